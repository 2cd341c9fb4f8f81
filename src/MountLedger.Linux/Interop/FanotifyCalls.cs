using System.Runtime.InteropServices;

namespace MountLedger.Linux.Interop;

/// <summary>Notifications of mounts: fanotify(7) with FAN_REPORT_MNT (Linux 6.15). The group needs CAP_SYS_ADMIN to be made, not to be read.</summary>
internal static partial class FanotifyCalls
{
    public const ulong FAN_MNT_ATTACH = 0x0100_0000;
    public const ulong FAN_MNT_DETACH = 0x0200_0000;
    public const ulong FAN_Q_OVERFLOW = 0x4000;

    /// <summary>Layout of an event: metadata, then one info record with the unique mount id.</summary>
    public const int MaskOffset = 8;
    public const int MetadataLengthOffset = 6;
    public const int MetadataSize = 24;
    public const int InfoSize = 16;
    public const int InfoMountIdOffset = 8;
    public const byte FAN_EVENT_INFO_TYPE_MNT = 7;

    private const uint FAN_CLOEXEC = 0x1;
    private const uint FAN_NONBLOCK = 0x2;
    private const uint FAN_REPORT_MNT = 0x4000;
    private const uint FAN_MARK_ADD = 0x1;
    private const uint FAN_MARK_MNTNS = 0x110;

    /// <summary>A group that tells every attach and detach in a mount namespace; null and the error number where that cannot be had.</summary>
    /// <param name="namespaceDescriptor">An open /proc/PID/ns/mnt.</param>
    /// <param name="errno">EINVAL: the kernel is too old; EPERM: no CAP_SYS_ADMIN.</param>
    public static Descriptor? WatchMounts(int namespaceDescriptor, out int errno)
    {
        // The queue stays bounded: a reader that cannot keep up is told so, and lists again.
        var group = FanotifyInit(FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_MNT, 0);
        errno = group < 0 ? Marshal.GetLastPInvokeError() : 0;
        if (errno != 0) return null;
        var opened = new Descriptor(group);
        var rc = FanotifyMark(group, FAN_MARK_ADD | FAN_MARK_MNTNS, FAN_MNT_ATTACH | FAN_MNT_DETACH, namespaceDescriptor, 0);
        errno = rc < 0 ? Marshal.GetLastPInvokeError() : 0;
        if (errno == 0) return opened;
        opened.Dispose();
        return null;
    }

    /// <summary>How many bytes of events were read; 0 when there are none now.</summary>
    public static unsafe int Read(int group, Span<byte> events)
    {
        fixed (byte* start = events)
        {
            var rc = ReadBytes(group, start, (nuint)events.Length);
            return rc < 0 ? 0 : (int)rc;
        }
    }

    [LibraryImport("libc", EntryPoint = "fanotify_init", SetLastError = true)]
    private static partial int FanotifyInit(uint flags, uint eventFlags);

    [LibraryImport("libc", EntryPoint = "fanotify_mark", SetLastError = true)]
    private static partial int FanotifyMark(int group, uint flags, ulong mask, int directory, nint path);

    [LibraryImport("libc", EntryPoint = "read", SetLastError = true)]
    private static unsafe partial nint ReadBytes(int descriptor, byte* bytes, nuint count);
}
