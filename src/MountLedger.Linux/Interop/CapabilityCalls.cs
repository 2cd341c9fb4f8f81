using System.Runtime.InteropServices;

namespace MountLedger.Linux.Interop;

/// <summary>
/// Giving up capabilities: capset(2), prctl(2), execve(2). All of them are of the calling thread alone, except execve, which ends the
/// others: so what this thread is when it calls execve is what the whole process is afterwards.
/// </summary>
internal static partial class CapabilityCalls
{
    /// <summary>CAP_SETPCAP: without it neither the bounding set nor the securebits can be changed.</summary>
    public const int SetPcap = 8;

    private const int PR_CAPBSET_READ = 23;
    private const int PR_CAPBSET_DROP = 24;
    private const int PR_SET_SECUREBITS = 28;
    private const int PR_CAP_AMBIENT = 47;
    private const int PR_CAP_AMBIENT_CLEAR_ALL = 4;
    private const uint LINUX_CAPABILITY_VERSION_3 = 0x2008_0522;
    private const int F_SETFD = 2;
    private const int FD_CLOEXEC = 1;

    /// <summary>More than any kernel has; the first one that is not known ends the list.</summary>
    private const int CapabilitiesMax = 64;

    // SECBIT_NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE, each locked, and KEEP_CAPS locked as it is: user id 0 means nothing.
    private const int NoRootLocked = 0xEF;

    /// <summary>Takes every capability out of the bounding set and makes user id 0 mean nothing, for good; 0 or the first error number (EPERM: no CAP_SETPCAP).</summary>
    public static int CloseTheWayBack()
    {
        for (var capability = 0; capability < CapabilitiesMax && Prctl(PR_CAPBSET_READ, (nuint)capability, 0, 0, 0) >= 0; capability++)
        {
            var rc = Prctl(PR_CAPBSET_DROP, (nuint)capability, 0, 0, 0);
            var errno = rc == 0 ? 0 : Marshal.GetLastPInvokeError();
            if (errno != 0) return errno;
        }
        return Prctl(PR_SET_SECUREBITS, NoRootLocked, 0, 0, 0) == 0 ? 0 : Marshal.GetLastPInvokeError();
    }

    /// <summary>Empties the effective, permitted, inheritable and ambient sets of this thread; 0 or the error number.</summary>
    public static unsafe int Drop()
    {
        _ = Prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); // They go with the permitted ones in any case.
        var header = stackalloc uint[2] { LINUX_CAPABILITY_VERSION_3, 0 };
        var none = stackalloc uint[6];
        new Span<uint>(none, 6).Clear();
        return CapSet(header, none) == 0 ? 0 : Marshal.GetLastPInvokeError();
    }

    /// <summary>Whether a descriptor is handed on to the program that execve starts.</summary>
    public static int Inherit(int descriptor, bool inherited) =>
        FileControl(descriptor, F_SETFD, inherited ? 0 : FD_CLOEXEC) == 0 ? 0 : Marshal.GetLastPInvokeError();

    /// <summary>Becomes another program, with bytes as arguments and environment; returns only with an error number.</summary>
    public static unsafe int Become(string file, IReadOnlyList<byte[]> arguments, IReadOnlyList<byte[]> environment)
    {
        _ = Execute(file, ByteStrings(arguments), ByteStrings(environment));
        return Marshal.GetLastPInvokeError();
    }

    // Not freed: the process is another one afterwards, or ends.
    private static unsafe byte** ByteStrings(IReadOnlyList<byte[]> values)
    {
        var array = (byte**)NativeMemory.AllocZeroed((nuint)(values.Count + 1), (nuint)sizeof(byte*));
        for (var i = 0; i < values.Count; i++)
        {
            array[i] = (byte*)NativeMemory.AllocZeroed((nuint)values[i].Length + 1);
            values[i].CopyTo(new Span<byte>(array[i], values[i].Length));
        }
        return array;
    }

    [LibraryImport("libc", EntryPoint = "capset", SetLastError = true)]
    private static unsafe partial int CapSet(uint* header, uint* data);

    [LibraryImport("libc", EntryPoint = "prctl", SetLastError = true)]
    private static partial int Prctl(int option, nuint a, nuint b, nuint c, nuint d);

    [LibraryImport("libc", EntryPoint = "fcntl", SetLastError = true)]
    private static partial int FileControl(int descriptor, int command, nint argument);

    [LibraryImport("libc", EntryPoint = "execve", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static unsafe partial int Execute(string file, byte** arguments, byte** environment);
}
