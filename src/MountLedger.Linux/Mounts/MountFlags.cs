using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>The flags of mount(2) (linux/mount.h), which are other numbers than the attributes of mount_setattr(2) for the same words.</summary>
internal static class MountFlags
{
    public const ulong MS_RDONLY = 1;
    public const ulong MS_NOSUID = 2;
    public const ulong MS_NODEV = 4;
    public const ulong MS_NOEXEC = 8;
    public const ulong MS_SYNCHRONOUS = 16;
    public const ulong MS_REMOUNT = 32;
    public const ulong MS_DIRSYNC = 128;
    public const ulong MS_NOSYMFOLLOW = 256;
    public const ulong MS_NOATIME = 1024;
    public const ulong MS_NODIRATIME = 2048;
    public const ulong MS_BIND = 4096;
    public const ulong MS_REC = 16384;
    public const ulong MS_RELATIME = 1 << 21;
    public const ulong MS_STRICTATIME = 1 << 24;
    public const ulong MS_LAZYTIME = 1 << 25;

    private static readonly (ulong Attribute, ulong Flag, string Word)[] Attributes =
    [
        (MountCalls.MOUNT_ATTR_RDONLY, MS_RDONLY, "ro"), (MountCalls.MOUNT_ATTR_NOSUID, MS_NOSUID, "nosuid"),
        (MountCalls.MOUNT_ATTR_NODEV, MS_NODEV, "nodev"), (MountCalls.MOUNT_ATTR_NOEXEC, MS_NOEXEC, "noexec"),
        (MountCalls.MOUNT_ATTR_NOATIME, MS_NOATIME, "noatime"), (MountCalls.MOUNT_ATTR_STRICTATIME, MS_STRICTATIME, "strictatime"),
        (MountCalls.MOUNT_ATTR_NODIRATIME, MS_NODIRATIME, "nodiratime"), (MountCalls.MOUNT_ATTR_NOSYMFOLLOW, MS_NOSYMFOLLOW, "nosymfollow"),
    ];

    public static ulong OfAttributes(ulong attributes) =>
        Attributes.Where(entry => (attributes & entry.Attribute) != 0).Aggregate(0UL, (flags, entry) => flags | entry.Flag);

    /// <summary>The attributes that mountinfo's words say; neither noatime nor relatime there means strictatime.</summary>
    public static ulong AttributesOf(IEnumerable<string> words)
    {
        var all = words.ToHashSet(StringComparer.Ordinal);
        var attributes = Attributes.Where(entry => all.Contains(entry.Word)).Aggregate(0UL, (set, entry) => set | entry.Attribute);
        return all.Contains("noatime") || all.Contains("relatime") ? attributes : attributes | MountCalls.MOUNT_ATTR_STRICTATIME;
    }

    /// <summary>A parameter that is a flag of the superblock to mount(2), or 0.</summary>
    public static ulong OfParameter(string key) => key switch
    {
        "sync" => MS_SYNCHRONOUS,
        "dirsync" => MS_DIRSYNC,
        "lazytime" => MS_LAZYTIME,
        _ => 0,
    };
}
