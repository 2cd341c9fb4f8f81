using System.Runtime.InteropServices;

namespace MountLedger.Bench;

/// <summary>The raw syscalls: the floor that every other way of mounting stands on, and the quickest way to fill a mount table.</summary>
internal static unsafe partial class Kernel
{
    private const int LazyFlag = 2;

    public static void MountTmpfs(string path)
    {
        if (Mount("tmpfs", path, "tmpfs", 0, null) != 0)
            throw new InvalidOperationException($"mount {path}: error {Marshal.GetLastPInvokeError()}");
    }

    public static void Unmount(string path) => _ = Unmount2(path, LazyFlag);

    /// <summary>Sleeps to a fraction of a millisecond, which .NET's sleep rounds away.</summary>
    public static void Sleep(double seconds)
    {
        var time = stackalloc nint[2] { (nint)seconds, (nint)((seconds - (nint)seconds) * 1e9) }; // struct timespec
        _ = NanoSleep(time, null);
    }

    [LibraryImport("libc", EntryPoint = "mount", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Mount(string source, string target, string type, nuint flags, void* data);

    [LibraryImport("libc", EntryPoint = "umount2", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Unmount2(string target, int flags);

    [LibraryImport("libc", EntryPoint = "nanosleep")]
    private static partial int NanoSleep(nint* time, nint* remaining);
}
