// Somebody who keeps a mount busy in exactly one way, until it is killed.
// Usage: hold cwd|root|open|mapped|socket PATH, or hold namespace PATH: a copy of the mount in a mount namespace of its own.
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int hold(const char *how, const char *path)
{
    if (strcmp(how, "cwd") == 0) return chdir(path);
    if (strcmp(how, "root") == 0) return chroot(path) == 0 ? chdir("/proc/self/root/nowhere"), 0 : -1;
    if (strcmp(how, "open") == 0) return open(path, O_RDWR | O_CREAT, 0600) < 0 ? -1 : 0;
    if (strcmp(how, "namespace") == 0) return unshare(CLONE_NEWNS) != 0 ? -1 : chdir(path);
    if (strcmp(how, "mapped") == 0) {
        int file = open(path, O_RDWR | O_CREAT, 0600);
        if (file < 0 || ftruncate(file, 4096) != 0) return -1;
        void *pages = mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0);
        return pages == MAP_FAILED ? -1 : close(file);
    }
    if (strcmp(how, "socket") == 0) {
        struct sockaddr_un name = { .sun_family = AF_UNIX };
        if (strlen(path) >= sizeof name.sun_path) return -1;
        strcpy(name.sun_path, path);
        int listener = socket(AF_UNIX, SOCK_STREAM, 0);
        return listener < 0 ? -1 : bind(listener, (struct sockaddr *)&name, sizeof name);
    }
    return -1;
}

int main(int argc, char **argv)
{
    if (argc != 3) return 2;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (hold(argv[1], argv[2]) != 0) {
        perror(argv[1]);
        return 1;
    }
    puts("holding");
    fflush(stdout);
    for (;;) pause();
}
