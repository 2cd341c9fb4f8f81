// A FUSE filesystem against /dev/fuse, without a library, that stops (SIGSTOP) at a place of choice. Called as a mount helper:
//   stuckfs SOURCE DIRECTORY [-o OPTION,…]
// at=mount    stops before mount(2), in the foreground: the helper that is waited for
// at=mounted  stops after mount(2), in the foreground, before it has read a request
// at=init     goes into the background, reads FUSE_INIT, and stops before it answers that
// at=answered goes into the background, answers FUSE_INIT, and stops when it has read the next request
// at=destroy  stops when it is told that the last mount of it goes (FUSE_DESTROY), for whose answer the unmount waits in the kernel;
//             that is asked of servers of block devices alone, so SOURCE has to be one
// otherwise   serves, until somebody else stops it
// Its root holds a directory "sub".
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SUB = 2 };

static char request[1 << 18];

static void stop(void) { raise(SIGSTOP); }

static void answer(int fuse, uint64_t unique, int error, const void *data, size_t size)
{
    struct fuse_out_header head = { .len = sizeof head + (error ? 0 : size), .error = -error, .unique = unique };
    struct iovec parts[] = { { &head, sizeof head }, { (void *)data, error ? 0 : size } };
    // ENOENT: who asked has gone meanwhile.
    if (writev(fuse, parts, 2) < 0 && errno != ENOENT) exit(0);
}

static struct fuse_attr attributes(uint64_t node)
{
    return (struct fuse_attr){ .ino = node, .mode = S_IFDIR | 0755, .nlink = 2, .blksize = 4096 };
}

static void serve(int fuse, struct fuse_in_header *in, const void *body)
{
    uint64_t unique = in->unique;
    switch (in->opcode) {
    case FUSE_INIT: {
        const struct fuse_init_in *init = body;
        struct fuse_init_out out = { .major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION, .max_readahead = init->max_readahead,
            .max_background = 64, .congestion_threshold = 48, .max_write = 4096, .time_gran = 1 };
        answer(fuse, unique, 0, &out, sizeof out);
        return;
    }
    case FUSE_LOOKUP: {
        uint64_t node = strcmp(body, "sub") == 0 ? SUB : 0;
        struct fuse_entry_out out = { .nodeid = node, .attr = attributes(node) };
        answer(fuse, unique, node ? 0 : ENOENT, &out, sizeof out);
        return;
    }
    case FUSE_GETATTR:
    case FUSE_SETATTR: {
        struct fuse_attr_out out = { .attr = attributes(in->nodeid) };
        answer(fuse, unique, 0, &out, sizeof out);
        return;
    }
    case FUSE_OPENDIR: {
        struct fuse_open_out out = { .fh = in->nodeid };
        answer(fuse, unique, 0, &out, sizeof out);
        return;
    }
    case FUSE_STATFS: {
        struct fuse_statfs_out out = { .st = { .bsize = 4096, .namelen = 255 } };
        answer(fuse, unique, 0, &out, sizeof out);
        return;
    }
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
        return;
    case FUSE_READDIR:
    case FUSE_RELEASEDIR:
    case FUSE_DESTROY:
        answer(fuse, unique, 0, NULL, 0);
        return;
    default:
        answer(fuse, unique, ENOSYS, NULL, 0);
    }
}

int main(int argc, char **argv)
{
    const char *at = "";
    for (int i = 3; i + 1 < argc; i++)
        if (strcmp(argv[i], "-o") == 0)
            for (char *option = strtok(strdup(argv[i + 1]), ","); option; option = strtok(NULL, ","))
                if (strncmp(option, "at=", 3) == 0) at = option + 3;
    if (argc < 3) return 2;
    int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fuse < 0) return perror("/dev/fuse"), 1;
    char data[128];
    int device = strcmp(at, "destroy") == 0;
    snprintf(data, sizeof data, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fuse);
    if (strcmp(at, "mount") == 0) stop();
    if (mount(argv[1], argv[2], device ? "fuseblk" : "fuse.stuck", MS_NOSUID | MS_NODEV, data) != 0) return perror("mount"), 1;
    if (strcmp(at, "mounted") == 0) stop();
    if (daemon(0, 0) != 0) return perror("daemon"), 1;

    for (int requests = 0;; requests++) {
        ssize_t length = read(fuse, request, sizeof request);
        if (length < 0 && (errno == EINTR || errno == ENOENT)) continue;
        if (length <= 0) return 0; // ENODEV: it is unmounted, or its connection was aborted.
        if (device && ((struct fuse_in_header *)request)->opcode == FUSE_DESTROY) stop();
        if (strcmp(at, requests == 0 ? "init" : requests == 1 ? "answered" : "none") == 0) stop();
        serve(fuse, (struct fuse_in_header *)request, request + sizeof(struct fuse_in_header));
    }
}
