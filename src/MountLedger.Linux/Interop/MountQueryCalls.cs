using System.Buffers;
using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text;

namespace MountLedger.Linux.Interop;

/// <summary>
/// Asking about mounts without touching their filesystems: statx(2) with AT_STATX_DONT_SYNC, statmount(2), listmount(2).
/// The last two have no C wrapper; their layouts are those of linux/mount.h.
/// </summary>
internal static partial class MountQueryCalls
{
    public const ulong SB_BASIC = 0x1;
    public const ulong MNT_BASIC = 0x2;
    public const ulong MNT_ROOT = 0x8;
    public const ulong MNT_POINT = 0x10;
    public const ulong FS_TYPE = 0x20;
    public const ulong MNT_OPTS = 0x80;
    public const ulong FS_SUBTYPE = 0x100;
    public const ulong SB_SOURCE = 0x200;
    public const ulong Everything = SB_BASIC | MNT_BASIC | MNT_ROOT | MNT_POINT | FS_TYPE | MNT_OPTS | FS_SUBTYPE | SB_SOURCE;

    /// <summary>listmount's name for the root of the caller's namespace.</summary>
    public const ulong LSMT_ROOT = ulong.MaxValue;

    public const uint STATX_TYPE = 0x1;
    public const uint STATX_UID = 0x8;
    public const uint STATX_MNT_ID = 0x1000;
    public const uint STATX_MNT_ID_UNIQUE = 0x4000;
    public const ulong STATX_ATTR_MOUNT_ROOT = 0x2000;
    public const int AT_STATX_DONT_SYNC = 0x4000;
    public const int AT_NO_AUTOMOUNT = 0x800;
    public const int StatxSize = 256;
    public const int StatmountFixedSize = 512;

    private const nint StatmountNumber = 457;
    private const nint ListmountNumber = 458;

    /// <summary>What statx says of an open descriptor. <c>MountId</c> null: this kernel has no unique ids (before 6.8).</summary>
    public readonly record struct FileFacts(ulong? MountId, uint OldMountId, bool IsMountRoot, ushort Mode, uint Uid)
    {
        public bool IsRegularFile => (Mode & 0xF000) == 0x8000;
        public bool IsDirectory => (Mode & 0xF000) == 0x4000;
        public bool IsBlockDevice => (Mode & 0xF000) == 0x6000;
    }

    /// <summary>What statmount says; a string that the kernel left out is null.</summary>
    public sealed record MountFacts(
        ulong Mask, uint DeviceMajor, uint DeviceMinor, uint SuperFlags, ulong MountId, ulong ParentId, uint OldId, uint OldParentId,
        ulong Attributes, ulong PeerGroup, string? Root, string? Point, string? FsType, string? SubType, string? Source, string? Options);

    /// <summary>0 or the error number. Asks for the mount's identity and, as far as it is known without a request, the file type.</summary>
    public static unsafe int Describe(int descriptor, out FileFacts facts)
    {
        var buffer = stackalloc byte[StatxSize];
        var rc = Statx(
            descriptor, "", PathCalls.AT_EMPTY_PATH | AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE | STATX_UID | STATX_MNT_ID_UNIQUE, buffer);
        var errno = rc == 0 ? 0 : Marshal.GetLastPInvokeError();
        facts = default;
        if (errno != 0) return errno;
        var bytes = new ReadOnlySpan<byte>(buffer, StatxSize);
        var mask = BinaryPrimitives.ReadUInt32LittleEndian(bytes);
        var attributes = BinaryPrimitives.ReadUInt64LittleEndian(bytes[8..]);
        var mode = BinaryPrimitives.ReadUInt16LittleEndian(bytes[28..]);
        var id = BinaryPrimitives.ReadUInt64LittleEndian(bytes[144..]);
        var unique = (mask & STATX_MNT_ID_UNIQUE) != 0;
        var uid = BinaryPrimitives.ReadUInt32LittleEndian(bytes[20..]);
        facts = new FileFacts(unique ? id : null, unique ? 0 : (uint)id, (attributes & STATX_ATTR_MOUNT_ROOT) != 0, mode, uid);
        return 0;
    }

    /// <summary>
    /// Facts about a mount of this namespace by its unique id. ENOENT: it is gone, detached or elsewhere; ENOSYS: a kernel
    /// before 6.8.
    /// </summary>
    public static int Look(ulong mountId, ulong mask, out MountFacts? facts)
    {
        const int SizeFirst = 2048;
        const int SizeMax = 1 << 20;
        facts = null;
        var errno = 0;
        for (var size = SizeFirst; size <= SizeMax; size *= 8)
        {
            var buffer = ArrayPool<byte>.Shared.Rent(size);
            try
            {
                errno = Fill(mountId, mask, buffer);
                if (errno == Errno.EOVERFLOW) continue;
                if (errno == 0) facts = Decode(buffer);
                return errno;
            }
            finally
            {
                ArrayPool<byte>.Shared.Return(buffer);
            }
        }
        return errno;
    }

    /// <summary>Where a mount is, as raw bytes in the caller's buffer: 0 or the error number. Allocates nothing.</summary>
    public static int PointOf(ulong mountId, byte[] buffer, out ReadOnlySpan<byte> point)
    {
        point = default;
        var errno = Fill(mountId, MNT_POINT, buffer);
        if (errno != 0) return errno;
        if ((U64(buffer, 8) & MNT_POINT) == 0) return Errno.ENOENT;
        var start = buffer.AsSpan(StatmountFixedSize + (int)U32(buffer, 108));
        point = start[..start.IndexOf((byte)0)];
        return 0;
    }

    /// <summary>The unique ids of all mounts below <paramref name="mountId"/>, oldest first; 0 or the error number.</summary>
    public static unsafe int List(ulong mountId, int countMax, List<ulong> ids)
    {
        const int Batch = 1024;
        var buffer = stackalloc ulong[Batch];
        var last = 0UL;
        while (ids.Count < countMax)
        {
            var request = new MountIdRequest { Size = MountIdRequest.SizeInBytes, MountId = mountId, Parameter = last };
            var count = (int)Listmount(ListmountNumber, in request, buffer, Batch, 0);
            var errno = count < 0 ? Marshal.GetLastPInvokeError() : 0;
            if (errno != 0) return errno;
            for (var i = 0; i < count && ids.Count < countMax; i++) ids.Add(buffer[i]);
            if (count < Batch) return 0;
            last = buffer[Batch - 1];
        }
        return 0;
    }

    private static unsafe int Fill(ulong mountId, ulong mask, byte[] buffer)
    {
        var request = new MountIdRequest { Size = MountIdRequest.SizeInBytes, MountId = mountId, Parameter = mask };
        fixed (byte* pointer = buffer)
        {
            var rc = Statmount(StatmountNumber, in request, pointer, buffer.Length, 0);
            return rc == 0 ? 0 : Marshal.GetLastPInvokeError();
        }
    }

    private static MountFacts Decode(ReadOnlySpan<byte> bytes)
    {
        var mask = U64(bytes, 8);
        return new MountFacts(
            mask, U32(bytes, 16), U32(bytes, 20), U32(bytes, 32), U64(bytes, 40), U64(bytes, 48), U32(bytes, 56), U32(bytes, 60),
            U64(bytes, 64), U64(bytes, 80), Text(bytes, mask, MNT_ROOT, 104), Text(bytes, mask, MNT_POINT, 108), Text(bytes, mask, FS_TYPE, 36),
            Text(bytes, mask, FS_SUBTYPE, 120), Text(bytes, mask, SB_SOURCE, 124), Text(bytes, mask, MNT_OPTS, 4));
    }

    private static uint U32(ReadOnlySpan<byte> bytes, int offset) => BinaryPrimitives.ReadUInt32LittleEndian(bytes[offset..]);

    private static ulong U64(ReadOnlySpan<byte> bytes, int offset) => BinaryPrimitives.ReadUInt64LittleEndian(bytes[offset..]);

    /// <summary>An empty string is left out of the mask; its offset then means nothing.</summary>
    private static string? Text(ReadOnlySpan<byte> bytes, ulong mask, ulong bit, int offset)
    {
        if ((mask & bit) == 0) return null;
        var start = bytes[(StatmountFixedSize + (int)U32(bytes, offset))..];
        return Encoding.UTF8.GetString(start[..start.IndexOf((byte)0)]);
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct MountIdRequest
    {
        /// <summary>The first version of the struct, which every kernel that has the calls accepts.</summary>
        public const uint SizeInBytes = 24;

        public uint Size;
        public uint NamespaceDescriptor;
        public ulong MountId;
        public ulong Parameter;
    }

    [LibraryImport("libc", EntryPoint = "statx", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static unsafe partial int Statx(int directory, string path, int flags, uint mask, byte* buffer);

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static unsafe partial nint Statmount(nint number, in MountIdRequest request, byte* buffer, nint size, nint flags);

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static unsafe partial nint Listmount(nint number, in MountIdRequest request, ulong* ids, nint count, nint flags);
}
