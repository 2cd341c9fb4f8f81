using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// The options of a spec, sorted by where the kernel wants them: attributes of the mount, parameters of the filesystem,
/// and our own words (<c>loop</c>, <c>rbind</c>). What is allowed was decided at the edge; what is unknown here goes to the
/// kernel, which refuses it by name.
/// </summary>
internal sealed record MountPlan(
    MountSpec Spec, ulong Attributes, ulong Cleared, bool ReadOnly, bool Loop, bool Recursive,
    IReadOnlyList<KeyValuePair<string, string?>> Parameters)
{
    private static readonly Dictionary<string, (ulong Set, ulong Clear)> AttributeWords = new(StringComparer.Ordinal)
    {
        ["ro"] = (MountCalls.MOUNT_ATTR_RDONLY, 0),
        ["rw"] = (0, MountCalls.MOUNT_ATTR_RDONLY),
        ["nosuid"] = (MountCalls.MOUNT_ATTR_NOSUID, 0),
        ["suid"] = (0, MountCalls.MOUNT_ATTR_NOSUID),
        ["nodev"] = (MountCalls.MOUNT_ATTR_NODEV, 0),
        ["dev"] = (0, MountCalls.MOUNT_ATTR_NODEV),
        ["noexec"] = (MountCalls.MOUNT_ATTR_NOEXEC, 0),
        ["exec"] = (0, MountCalls.MOUNT_ATTR_NOEXEC),
        ["noatime"] = (MountCalls.MOUNT_ATTR_NOATIME, MountCalls.MOUNT_ATTR_ATIME_MASK),
        ["relatime"] = (0, MountCalls.MOUNT_ATTR_ATIME_MASK),
        ["strictatime"] = (MountCalls.MOUNT_ATTR_STRICTATIME, MountCalls.MOUNT_ATTR_ATIME_MASK),
        ["nodiratime"] = (MountCalls.MOUNT_ATTR_NODIRATIME, 0),
        ["diratime"] = (0, MountCalls.MOUNT_ATTR_NODIRATIME),
        ["nosymfollow"] = (MountCalls.MOUNT_ATTR_NOSYMFOLLOW, 0),
    };

    private static readonly (ulong Attribute, string Name)[] AttributeNames =
    [
        (MountCalls.MOUNT_ATTR_RDONLY, "ro"), (MountCalls.MOUNT_ATTR_NOSUID, "nosuid"), (MountCalls.MOUNT_ATTR_NODEV, "nodev"),
        (MountCalls.MOUNT_ATTR_NOEXEC, "noexec"), (MountCalls.MOUNT_ATTR_NOATIME, "noatime"),
        (MountCalls.MOUNT_ATTR_STRICTATIME, "strictatime"), (MountCalls.MOUNT_ATTR_NODIRATIME, "nodiratime"),
        (MountCalls.MOUNT_ATTR_NOSYMFOLLOW, "nosymfollow"),
    ];

    public bool IsBind => Spec.FsType == "bind";

    /// <summary>The superblock is one of a disk or an image, so that <c>ro</c> must reach it too.</summary>
    public bool IsOnBlockDevice => Spec.FsType is "ext2" or "ext3" or "ext4" or "xfs" or "btrfs" or "squashfs" or "erofs";

    /// <summary>
    /// Whether the kernel's mount interface makes this type, without a program. Of the catalogue the same is true, but that is much to
    /// load for a worker whose first request waits; a test holds the two together.
    /// </summary>
    public static bool IsKernelType(string type) => type is "tmpfs" or "ramfs" or "bind" or "overlay" or "ext2" or "ext3" or "ext4"
        or "xfs" or "btrfs" or "squashfs" or "erofs";

    /// <summary>Whether the words of a mount's own attributes contain this option.</summary>
    public static bool IsAttribute(string option) => AttributeWords.ContainsKey(option);

    public static MountPlan Of(MountSpec spec)
    {
        ulong set = 0, clear = 0;
        bool loop = false, recursive = false;
        var parameters = new List<KeyValuePair<string, string?>>();
        foreach (var option in spec.Options)
        {
            if (AttributeWords.TryGetValue(option, out var words))
            {
                // The later word wins, as it does for mount(8).
                set = (set & ~words.Clear) | words.Set;
                clear = (clear & ~words.Set) | words.Clear;
            }
            else if (option == "loop") loop = true;
            else if (option is "rbind") recursive = true;
            else if (option is "bind" or "defaults") { /* said by the type, or says nothing */ }
            else
            {
                var equals = option.IndexOf('=', StringComparison.Ordinal);
                parameters.Add(equals < 0 ? new(option, null) : new(option[..equals], option[(equals + 1)..]));
            }
        }
        return new MountPlan(spec, set, clear, (set & MountCalls.MOUNT_ATTR_RDONLY) != 0, loop, recursive, parameters);
    }

    /// <summary>
    /// What is being tried, in one line: <c>mount tmpfs:/srv/a, flags nosuid|nodev, data size=1G</c>. Values of parameters
    /// that sound like secrets are masked.
    /// </summary>
    public string Describe(string mountpoint)
    {
        var text = Spec.Source == Spec.FsType ? $"mount {Spec.Source}:{mountpoint}" : $"mount {Spec.FsType} {Spec.Source}:{mountpoint}";
        var flags = string.Join('|', AttributeNames.Where(pair => (Attributes & pair.Attribute) != 0).Select(pair => pair.Name));
        if (flags.Length > 0) text += $", flags {flags}";
        if (Parameters.Count > 0)
            text += $", data {string.Join(',', Parameters.Select(p => p.Value is null ? p.Key : $"{p.Key}={Shown(p.Key, p.Value)}"))}";
        return text;
    }

    private static string Shown(string key, string value) =>
        SecretRules.NameIn(value) is not null || (!SecretRules.IsKey(key) && !SecretRules.HasCredentials(value)) ? value : "<masked>";
}
