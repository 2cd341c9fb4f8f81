using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace MountLedger.Linux.Interop;

/// <summary>Loop devices: the ioctls of linux/loop.h (LOOP_CONFIGURE needs Linux 5.8).</summary>
internal static partial class LoopCalls
{
    public const uint LOOP_CTL_GET_FREE = 0x4C82;
    public const uint LOOP_CONFIGURE = 0x4C0A;
    public const uint LO_FLAGS_READ_ONLY = 1;
    public const uint LO_FLAGS_AUTOCLEAR = 4;
    public const int ConfigSize = 304;
    public const int FlagsOffset = 60;
    public const int FileNameOffset = 64;
    public const int FileNameSize = 64;

    /// <summary>The number of a loop device that was free just now, or −1. Another process may take it first.</summary>
    public static int FindFree(int control, out int errno)
    {
        var rc = Ioctl(control, LOOP_CTL_GET_FREE, 0);
        errno = rc < 0 ? Marshal.GetLastPInvokeError() : 0;
        return rc;
    }

    /// <summary>
    /// Ties a loop device to a file until its last user is gone; 0 or the error number (EBUSY: somebody else got the
    /// device). <paramref name="name"/> is only shown by <c>losetup</c>; it is cut to 63 bytes.
    /// </summary>
    public static unsafe int Configure(int device, int file, bool readOnly, ReadOnlySpan<byte> name)
    {
        Span<byte> config = stackalloc byte[ConfigSize];
        config.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(config, (uint)file);
        BinaryPrimitives.WriteUInt32LittleEndian(config[FlagsOffset..], LO_FLAGS_AUTOCLEAR | (readOnly ? LO_FLAGS_READ_ONLY : 0));
        name[..Math.Min(name.Length, FileNameSize - 1)].CopyTo(config[FileNameOffset..]);
        fixed (byte* pointer = config)
        {
            var rc = Ioctl(device, LOOP_CONFIGURE, (nint)pointer);
            return rc == 0 ? 0 : Marshal.GetLastPInvokeError();
        }
    }

    [LibraryImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    private static partial int Ioctl(int descriptor, nuint request, nint argument);
}
