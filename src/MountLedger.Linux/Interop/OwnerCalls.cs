using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace MountLedger.Linux.Interop;

/// <summary>Who owns an open file and what others may do with it, as far as it is known without a request to a server: statx(2).</summary>
internal static partial class OwnerCalls
{
    private const uint STATX_TYPE_MODE_UID_GID = 0x1 | 0x2 | 0x8 | 0x10;

    /// <summary>Owner, group and permission bits; null when the filesystem does not say.</summary>
    public static unsafe (uint User, uint Group, uint Mode)? Of(int descriptor)
    {
        var buffer = stackalloc byte[MountQueryCalls.StatxSize];
        const int Flags = PathCalls.AT_EMPTY_PATH | MountQueryCalls.AT_STATX_DONT_SYNC | MountQueryCalls.AT_NO_AUTOMOUNT;
        if (Statx(descriptor, "", Flags, STATX_TYPE_MODE_UID_GID, buffer) != 0) return null;
        var bytes = new ReadOnlySpan<byte>(buffer, MountQueryCalls.StatxSize);
        return (
            BinaryPrimitives.ReadUInt32LittleEndian(bytes[20..]), BinaryPrimitives.ReadUInt32LittleEndian(bytes[24..]),
            BinaryPrimitives.ReadUInt16LittleEndian(bytes[28..]) & 0xFFFu);
    }

    [LibraryImport("libc", EntryPoint = "statx", StringMarshalling = StringMarshalling.Utf8)]
    private static unsafe partial int Statx(int directory, string path, int flags, uint mask, byte* buffer);
}
