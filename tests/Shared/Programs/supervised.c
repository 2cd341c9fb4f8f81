// Runs a program so that a supervisor can make its system calls fail: each of them, except those that the language's
// runtime makes by itself (memory, threads, signals, clocks), stops and asks the supervisor (seccomp_unotify(2)).
// The supervisor takes descriptor 3 of this process with pidfd_getfd(2); the program does not get it.
// Usage: supervised PROGRAM ARGUMENT…
#define _GNU_SOURCE
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

// close is among them although it is no runtime's own: the kernel frees the descriptor whatever close returns, while a
// call that is answered by a supervisor does not run at all, so failing it would show leaks that cannot happen.
static const int runtimes_own[] = {
    SYS_brk, SYS_mmap, SYS_munmap, SYS_mprotect, SYS_madvise, SYS_mremap, SYS_mincore, SYS_futex, SYS_sched_yield, SYS_membarrier,
    SYS_sched_getaffinity, SYS_sched_setaffinity, SYS_getcpu, SYS_get_mempolicy, SYS_getrandom, SYS_rt_sigaction, SYS_rt_sigprocmask,
    SYS_rt_sigreturn, SYS_sigaltstack, SYS_tgkill, SYS_clone, SYS_clone3, SYS_exit, SYS_exit_group, SYS_set_robust_list, SYS_rseq,
    SYS_gettid, SYS_getpid, SYS_prctl, SYS_clock_gettime, SYS_clock_nanosleep, SYS_nanosleep, SYS_restart_syscall, SYS_getrusage,
    SYS_sysinfo, SYS_close,
};

#define OWN (sizeof runtimes_own / sizeof *runtimes_own)

int main(int argc, char **argv)
{
    if (argc < 2) return 2;
    struct sock_filter filter[OWN + 6];
    size_t n = 0;
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 0, OWN + 2);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < OWN; i++)
        filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)runtimes_own[i], OWN - i, 0);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = { .len = (unsigned short)n, .filter = filter };

    syscall(SYS_close_range, 3, ~0U, 0);
    long listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
        SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &program);
    if (listener < 0) {
        perror("seccomp (it takes Linux 5.19, and root)");
        return 1;
    }
    execv(argv[1], argv + 1);
    perror(argv[1]);
    return 1;
}
