using System.Runtime.InteropServices;

namespace MountLedger.Linux.Interop;

/// <summary>
/// Whether this kernel has a call, found out by calling it with arguments that it must refuse: ENOSYS means that it is not there (or
/// that a seccomp filter says so, which comes to the same). Nothing is changed by it.
/// </summary>
internal static partial class ProbeCalls
{
    private const nint FanotifyInitX64 = 300;
    private const nint FanotifyInitArm64 = 262;
    private const nint FAN_CLOEXEC = 1;
    private const nint FAN_NONBLOCK = 2;
    private const nint FAN_REPORT_MNT = 0x4000;
    private const nint Nonsense = 0x7fff_ffff;

    public const nint OpenTree = 428;
    public const nint MoveMount = 429;
    public const nint Fsopen = 430;
    public const nint Fsconfig = 431;
    public const nint Fsmount = 432;
    public const nint Fspick = 433;
    public const nint PidfdOpen = 434;
    public const nint Openat2 = 437;
    public const nint MountSetattr = 442;
    public const nint Statmount = 457;
    public const nint Listmount = 458;

    /// <summary>False: the call answers ENOSYS.</summary>
    public static bool Answers(nint number)
    {
        // No call takes these descriptors, flags and sizes; the pointers are null.
        var rc = Call(number, -1, number == Fsopen ? Nonsense : 0, number == Fsmount ? Nonsense : 0, Nonsense, Nonsense);
        var errno = rc < 0 ? Marshal.GetLastPInvokeError() : 0;
        return errno != Errno.ENOSYS;
    }

    /// <summary>Whether fanotify reports mounts (Linux 6.14).</summary>
    public static bool FanotifyReportsMounts()
    {
        var number = RuntimeInformation.ProcessArchitecture == Architecture.Arm64 ? FanotifyInitArm64 : FanotifyInitX64;
        var descriptor = (int)Call(number, FAN_REPORT_MNT | FAN_CLOEXEC | FAN_NONBLOCK, 0, 0, 0, 0);
        if (descriptor < 0) return false;
        new Descriptor(descriptor).Dispose();
        return true;
    }

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial nint Call(nint number, nint a, nint b, nint c, nint d, nint e);
}
