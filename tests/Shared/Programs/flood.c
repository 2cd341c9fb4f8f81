// Somebody else on the machine: mounts a tmpfs at each of the given directories in turn and unmounts it at once, COUNT times in all. It ends
// by itself: the death of the thread that started it, as PR_SET_PDEATHSIG means it, is nothing unusual in .NET.
// Usage: flood COUNT DIRECTORY...
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>

int main(int argc, char **argv)
{
    if (argc < 3) return 2;
    long count = atol(argv[1]);
    for (long i = 0; i < count; i++) {
        const char *directory = argv[2 + i % (argc - 2)];
        if (mount("flood", directory, "tmpfs", 0, "size=4k") != 0 || umount2(directory, UMOUNT_NOFOLLOW) != 0) {
            perror(directory);
            return 1;
        }
    }
    return 0;
}
