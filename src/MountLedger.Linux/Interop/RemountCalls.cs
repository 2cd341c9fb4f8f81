using System.Runtime.InteropServices;

namespace MountLedger.Linux.Interop;

/// <summary>Changing a filesystem that is mounted: fspick(2); its steps are those of <see cref="MountCalls.Configure"/>.</summary>
internal static partial class RemountCalls
{
    public const uint FSCONFIG_CMD_RECONFIGURE = 7;
    public const uint FSPICK_CLOEXEC = 1;
    public const uint FSPICK_EMPTY_PATH = 8;

    private const nint FspickNumber = 433;

    /// <summary>A context for the superblock of the mount at whose root this descriptor is, or −1.</summary>
    public static int PickContext(int mountRoot, out int errno)
    {
        var rc = Fspick(FspickNumber, mountRoot, "", (nint)(FSPICK_CLOEXEC | FSPICK_EMPTY_PATH));
        errno = rc < 0 ? Marshal.GetLastPInvokeError() : 0;
        return (int)rc;
    }

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial nint Fspick(nint number, nint directory, string path, nint flags);
}
