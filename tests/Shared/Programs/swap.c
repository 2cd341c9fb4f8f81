// Somebody else on the machine: becomes the user UID, then exchanges the names A and B as fast as it can until it is killed.
// Usage: swap UID A B
#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXCHANGE 2

int main(int argc, char **argv)
{
    if (argc != 4) return 2;
    uid_t user = (uid_t)atoi(argv[1]);
    if (setgroups(0, NULL) != 0 || setresgid(user, user, user) != 0 || setresuid(user, user, user) != 0) {
        perror("become another user");
        return 1;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (syscall(SYS_renameat2, AT_FDCWD, argv[2], AT_FDCWD, argv[3], EXCHANGE) != 0) {
        perror("renameat2");
        return 1;
    }
    puts("swapping");
    fflush(stdout);
    for (;;) syscall(SYS_renameat2, AT_FDCWD, argv[2], AT_FDCWD, argv[3], EXCHANGE);
}
