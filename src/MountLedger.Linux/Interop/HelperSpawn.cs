using System.Runtime.InteropServices;

namespace MountLedger.Linux.Interop;

/// <summary>Starting a mount helper: posix_spawn(3) into a session of its own, pipe2(2), kill(2) of a group, waitid(2).</summary>
internal static partial class ProcessCalls
{
    private const short POSIX_SPAWN_SETSIGDEF = 0x04;
    private const short POSIX_SPAWN_SETSID = 0x80;
    private const int O_NONBLOCK = 0x800;
    private const int O_CLOEXEC = 0x80000;
    private const int WNOWAIT = 0x01000000;
    private const int F_SETFL = 4;
    private const int SIGPIPE = 13;
    private const int CLD_EXITED = 1;

    /// <summary>
    /// Starts a program as the leader of a session and a group of its own, in the root directory, with no signal blocked or
    /// caught, /dev/null as its input and <paramref name="output"/> as its output and error. Every other descriptor is closed in it.
    /// SIGPIPE alone stays ignored: what it leaves behind must not die of writing to a pipe that nobody reads any more.
    /// </summary>
    /// <returns>0 and the pid, or the error number.</returns>
    public static unsafe int SpawnSession(
        string file, IReadOnlyList<string> arguments, IReadOnlyList<string> environment, int output, out int pid)
    {
        // Close-on-exec for all, our own channel included.
        _ = CloseRange(CloseRangeNumber, 3, int.MaxValue, 4);

        pid = 0;
        var actions = stackalloc byte[FileActionsSize];
        var attributes = stackalloc byte[AttributesSize];
        var mask = stackalloc byte[SignalSetSize];
        var defaults = stackalloc byte[SignalSetSize];
        new Span<byte>(mask, SignalSetSize).Clear();
        new Span<byte>(defaults, SignalSetSize).Fill(0xFF);
        defaults[(SIGPIPE - 1) / 8] &= unchecked((byte)~(1 << ((SIGPIPE - 1) % 8)));
        var rc = FileActionsInit(actions);
        if (rc != 0) return rc;
        rc = AttributesInit(attributes);
        if (rc != 0) return rc;
        var argv = StringArray([file, .. arguments]);
        var envp = StringArray(environment);
        try
        {
            rc = FileActionsAddOpen(actions, 0, "/dev/null", O_RDONLY, 0);
            if (rc == 0) rc = FileActionsAddDup2(actions, output, 1);
            if (rc == 0) rc = FileActionsAddDup2(actions, output, 2);
            if (rc == 0) rc = FileActionsAddChangeDirectory(actions, "/");
            if (rc == 0) rc = AttributesSetFlags(attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
            if (rc == 0) rc = AttributesSetSignalMask(attributes, mask);
            if (rc == 0) rc = AttributesSetSignalDefault(attributes, defaults);
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

    /// <summary>A pipe whose reading end does not block; 0 or the error number.</summary>
    public static unsafe int Pipe(out Descriptor? read, out Descriptor? write)
    {
        var pair = stackalloc int[2];
        var rc = Pipe2(pair, O_CLOEXEC);
        var errno = rc == 0 ? 0 : Marshal.GetLastPInvokeError();
        (read, write) = errno == 0 ? (new Descriptor(pair[0]), new Descriptor(pair[1])) : ((Descriptor?)null, (Descriptor?)null);
        if (errno == 0) _ = FileControl(pair[0], F_SETFL, O_NONBLOCK);
        return errno;
    }

    /// <summary>What can be read without waiting: a count, 0 at the end of the stream, −1 when there is nothing now.</summary>
    public static unsafe int ReadNow(int descriptor, Span<byte> bytes)
    {
        fixed (byte* start = bytes) return (int)ReadDescriptor(descriptor, start, bytes.Length);
    }

    /// <summary>SIGKILL to every process of a group. The leader must not have been reaped: only so long is the number its own.</summary>
    public static void KillGroup(int leader) => _ = KillProcess(-leader, SIGKILL);

    /// <summary>How a child that has ended did so, without reaping it: its exit status, or minus the signal that killed it.</summary>
    public static unsafe int StatusOf(int pidfd)
    {
        // siginfo_t: si_signo, si_errno, si_code, padding, si_pid, si_uid, si_status.
        var info = stackalloc byte[128];
        new Span<byte>(info, 128).Clear();
        if (WaitId(P_PIDFD, pidfd, info, WEXITED | WNOHANG | WNOWAIT) != 0) return 0;
        var (code, status) = (*(int*)(info + 8), *(int*)(info + 24));
        return code == CLD_EXITED ? status : -status;
    }

    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_addchdir_np", StringMarshalling = StringMarshalling.Utf8)]
    private static unsafe partial int FileActionsAddChangeDirectory(byte* actions, string path);

    [LibraryImport("libc", EntryPoint = "posix_spawnattr_setsigdefault")]
    private static unsafe partial int AttributesSetSignalDefault(byte* attributes, byte* signals);

    [LibraryImport("libc", EntryPoint = "pipe2", SetLastError = true)]
    private static unsafe partial int Pipe2(int* pair, int flags);

    [LibraryImport("libc", EntryPoint = "fcntl", SetLastError = true)]
    private static partial int FileControl(int descriptor, int command, nint argument);

    [LibraryImport("libc", EntryPoint = "read", SetLastError = true)]
    private static unsafe partial nint ReadDescriptor(int descriptor, byte* bytes, nint length);

    [LibraryImport("libc", EntryPoint = "kill")]
    private static partial int KillProcess(int pid, int signal);
}
