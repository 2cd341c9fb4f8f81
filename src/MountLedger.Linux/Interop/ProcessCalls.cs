using System.Runtime.InteropServices;

namespace MountLedger.Linux.Interop;

/// <summary>Starting, signalling and reaping processes: posix_spawn(3), pidfd_open(2), pidfd_send_signal(2), waitid(2), prctl(2).</summary>
internal static partial class ProcessCalls
{
    public const int SIGKILL = 9;

    private const nint PidfdSendSignalNumber = 424;
    private const nint PidfdOpenNumber = 434;
    private const nint CloseRangeNumber = 436;
    private const int PR_SET_NO_NEW_PRIVS = 38;
    private const int P_PIDFD = 3;
    private const int WNOHANG = 1;
    private const int WEXITED = 4;
    private const short POSIX_SPAWN_SETPGROUP = 0x02;
    private const short POSIX_SPAWN_SETSIGMASK = 0x08;
    private const int O_RDONLY = 0;

    // Generous upper bounds of glibc's opaque structs (80, 336 and 128 bytes).
    private const int FileActionsSize = 256;
    private const int AttributesSize = 512;
    private const int SignalSetSize = 128;

    /// <summary>
    /// Starts a program in a process group of its own, with no signal blocked, /dev/null as its input, and
    /// <paramref name="inherited"/> as its descriptor <paramref name="inheritedAs"/>. Every other descriptor from 3 on is
    /// closed in it.
    /// </summary>
    /// <returns>0 and the pid, or the error number.</returns>
    public static unsafe int Spawn(
        string file, IReadOnlyList<string> arguments, IReadOnlyList<string> environment, int inherited, int inheritedAs, out int pid)
    {
        // .NET opens everything close-on-exec; this covers what other native code may have opened.
        _ = CloseRange(CloseRangeNumber, 3, int.MaxValue, 4);

        pid = 0;
        var actions = stackalloc byte[FileActionsSize];
        var attributes = stackalloc byte[AttributesSize];
        var mask = stackalloc byte[SignalSetSize];
        new Span<byte>(mask, SignalSetSize).Clear();
        var rc = FileActionsInit(actions);
        if (rc != 0) return rc;
        rc = AttributesInit(attributes);
        if (rc != 0) return rc;
        var argv = StringArray([file, .. arguments]);
        var envp = StringArray(environment);
        try
        {
            rc = FileActionsAddOpen(actions, 0, "/dev/null", O_RDONLY, 0);
            if (rc == 0) rc = FileActionsAddDup2(actions, inherited, inheritedAs);
            if (rc == 0) rc = AttributesSetFlags(attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
            if (rc == 0) rc = AttributesSetProcessGroup(attributes, 0);
            if (rc == 0) rc = AttributesSetSignalMask(attributes, mask);
            return rc != 0 ? rc : PosixSpawn(out pid, file, actions, attributes, argv, envp);
        }
        finally
        {
            FreeStringArray(argv);
            FreeStringArray(envp);
            _ = FileActionsDestroy(actions);
            _ = AttributesDestroy(attributes);
        }
    }

    /// <summary>A descriptor that stands for exactly this process, or −1 (ESRCH: there is none).</summary>
    public static int OpenProcess(int pid, out int errno)
    {
        var rc = PidfdOpen(PidfdOpenNumber, pid, 0);
        errno = rc < 0 ? Marshal.GetLastPInvokeError() : 0;
        return (int)rc;
    }

    /// <summary>0 or the error number (ESRCH: it is dead and reaped).</summary>
    public static int Signal(int pidfd, int signal)
    {
        var rc = PidfdSendSignal(PidfdSendSignalNumber, pidfd, signal, 0, 0);
        return rc == 0 ? 0 : Marshal.GetLastPInvokeError();
    }

    /// <summary>Whether every thread of the process is dead, whether reaped or not.</summary>
    public static bool HasExited(int pidfd) => SocketCalls.Poll(pidfd, SocketCalls.POLLIN, 0) > 0;

    /// <summary>Reaps a dead child; does nothing when it lives or is not ours.</summary>
    public static unsafe void Reap(int pidfd)
    {
        var info = stackalloc byte[128];
        _ = WaitId(P_PIDFD, pidfd, info, WEXITED | WNOHANG);
    }

    /// <summary>No program that this process runs may gain privileges; 0 or the error number.</summary>
    public static int ForbidNewPrivileges()
    {
        var rc = Prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        return rc == 0 ? 0 : Marshal.GetLastPInvokeError();
    }

    /// <summary>Ends this process without running anything more, whatever its threads are doing.</summary>
    [LibraryImport("libc", EntryPoint = "_exit")]
    public static partial void ExitNow(int status);

    private static unsafe byte** StringArray(IReadOnlyList<string> values)
    {
        var array = (byte**)NativeMemory.AllocZeroed((nuint)(values.Count + 1), (nuint)sizeof(byte*));
        for (var i = 0; i < values.Count; i++) array[i] = (byte*)Marshal.StringToCoTaskMemUTF8(values[i]);
        return array;
    }

    private static unsafe void FreeStringArray(byte** array)
    {
        for (var i = 0; array[i] != null; i++) Marshal.FreeCoTaskMem((nint)array[i]);
        NativeMemory.Free(array);
    }

    [LibraryImport("libc", EntryPoint = "posix_spawn", StringMarshalling = StringMarshalling.Utf8)]
    private static unsafe partial int PosixSpawn(
        out int pid, string path, byte* fileActions, byte* attributes, byte** arguments, byte** environment);

    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_init")]
    private static unsafe partial int FileActionsInit(byte* actions);

    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_destroy")]
    private static unsafe partial int FileActionsDestroy(byte* actions);

    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_adddup2")]
    private static unsafe partial int FileActionsAddDup2(byte* actions, int from, int to);

    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_addopen", StringMarshalling = StringMarshalling.Utf8)]
    private static unsafe partial int FileActionsAddOpen(byte* actions, int descriptor, string path, int flags, uint mode);

    [LibraryImport("libc", EntryPoint = "posix_spawnattr_init")]
    private static unsafe partial int AttributesInit(byte* attributes);

    [LibraryImport("libc", EntryPoint = "posix_spawnattr_destroy")]
    private static unsafe partial int AttributesDestroy(byte* attributes);

    [LibraryImport("libc", EntryPoint = "posix_spawnattr_setflags")]
    private static unsafe partial int AttributesSetFlags(byte* attributes, short flags);

    [LibraryImport("libc", EntryPoint = "posix_spawnattr_setpgroup")]
    private static unsafe partial int AttributesSetProcessGroup(byte* attributes, int group);

    [LibraryImport("libc", EntryPoint = "posix_spawnattr_setsigmask")]
    private static unsafe partial int AttributesSetSignalMask(byte* attributes, byte* mask);

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial nint PidfdOpen(nint number, nint pid, nint flags);

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial nint PidfdSendSignal(nint number, nint pidfd, nint signal, nint info, nint flags);

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial nint CloseRange(nint number, nint first, nint last, nint flags);

    [LibraryImport("libc", EntryPoint = "waitid", SetLastError = true)]
    private static unsafe partial int WaitId(int kind, int id, byte* info, int options);

    [LibraryImport("libc", EntryPoint = "prctl", SetLastError = true)]
    private static partial int Prctl(int option, nuint a, nuint b, nuint c, nuint d);
}
