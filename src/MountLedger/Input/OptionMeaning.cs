using System.Collections.Frozen;
using System.Globalization;

namespace MountLedger;

/// <summary>
/// Whether an option that was asked for is in effect, judged by what the kernel shows of a mount. It shows other words
/// (<c>size=1048576k</c>, <c>nobarrier</c> for <c>barrier=0</c>), leaves out what is so anyway, and some it never shows. The table
/// was made by mounting each filesystem with each of its options and reading what Linux 6.18 shows.
/// </summary>
public static class OptionMeaning
{
    private const ulong PageSize = 4096;

    /// <summary>Flags of a mount that are shown only by the absence of another.</summary>
    private static readonly FrozenDictionary<string, string> AbsenceOf = new Dictionary<string, string>(StringComparer.Ordinal)
    {
        ["rw"] = "ro",
        ["suid"] = "nosuid",
        ["dev"] = "nodev",
        ["exec"] = "noexec",
        ["diratime"] = "nodiratime",
        ["symfollow"] = "nosymfollow",
    }.ToFrozenDictionary();

    /// <summary>Words that mean the same: the first is how both sides are written before they are compared.</summary>
    private static readonly FrozenDictionary<string, string> Spellings = new Dictionary<string, string>(StringComparer.Ordinal)
    {
        ["barrier=0"] = "nobarrier",
        ["barrier=1"] = "barrier",
        ["auto_da_alloc=0"] = "noauto_da_alloc",
        ["auto_da_alloc=1"] = "auto_da_alloc",
        ["nodioread_nolock"] = "dioread_lock",
        ["noload"] = "norecovery",
        ["discard=sync"] = "discard",
        ["fsync=volatile"] = "volatile",
        ["compress"] = "compress=zlib:3",
        ["compress=zlib"] = "compress=zlib:3",
        ["compress=zstd"] = "compress=zstd:3",
        ["compress-force"] = "compress-force=zlib:3",
        ["compress-force=zlib"] = "compress-force=zlib:3",
        ["compress-force=zstd"] = "compress-force=zstd:3",
        ["rescue=all"] = "rescue=nologreplay:ignorebadroots:ignoredatacsums:ignoremetacsums:ignoresuperflags",
        ["dax"] = "dax=always",
    }.ToFrozenDictionary(StringComparer.Ordinal);

    /// <summary>
    /// Options that may be in effect although nothing is shown of them: defaults, and what a filesystem keeps to itself. A name
    /// with an equals sign at its end stands for whatever value.
    /// </summary>
    private static readonly FrozenDictionary<string, FrozenSet<string>> Hidden = new Dictionary<string, FrozenSet<string>>(StringComparer.Ordinal)
    {
        ["tmpfs"] = Set("mode=1777", "uid=0", "gid=0", "huge=never", "mpol=default", "inode32", "size=50%"),
        ["ramfs"] = Set("mode=755"),
        ["ext2"] = Set(Ext),
        ["ext3"] = Set(Ext),
        ["ext4"] = Set(Ext),
        ["xfs"] = Set("nodiscard", "nogrpid", "nolargeio", "sunit=0", "swidth=0", "dax=inode"),
        ["btrfs"] = Set(
            "compress=no", "compress=none", "compress-force=no", "compress-force=none", "acl", "noautodefrag", "barrier", "datacow", "datasum", "clear_cache", "nodiscard", "noflushoncommit",
            "nossd_spread", "treelog", "commit=30", "commit=0", "max_inline=2048", "metadata_ratio=0", "thread_pool=", "rescue=usebackuproot"),
        ["squashfs"] = Set("threads="),
        ["erofs"] = Set("directio", "dax=always", "fsoffset=0"),
        ["overlay"] = Set("redirect_dir=follow", "redirect_dir=off", "index=off", "metacopy=off", "xino=", "nfs_export=off", "uuid=auto", "verity=off"),
    }.ToFrozenDictionary(StringComparer.Ordinal);

    /// <summary>Shown although nobody asked for them: the filesystem chose them by what it found on the device.</summary>
    private static readonly FrozenSet<string> Chosen = FrozenSet.Create(
        StringComparer.Ordinal, "ro", "rw", "dax=never", "stripe", "sunit", "swidth", "attr2", "inode64", "logbufs", "logbsize", "noquota", "ssd",
        "nossd", "discard=async", "space_cache", "subvolid", "subvol", "user_xattr", "acl", "cache_strategy", "errors=continue");

    /// <summary>Wishes: the kernel decides in the end, and shows its decision.</summary>
    private static readonly FrozenSet<string> Wishes = FrozenSet.Create(
        StringComparer.Ordinal, "dax", "directio", "xino", "max_inline", "logbufs=0", "nr_blocks=0", "uuid=auto", "volatile");

    private static string[] Ext =>
    [
        "acl", "user_xattr", "nogrpid", "bsddf", "resuid=0", "resgid=0", "sb=", "errors=", "data=", "noquota", "commit=5", "commit=0", "barrier", "nodiscard",
        "delalloc", "journal_checksum", "auto_da_alloc", "init_itable", "inode_readahead_blks=32", "stripe=0", "max_batch_time=15000",
        "min_batch_time=0", "journal_ioprio=", "max_dir_size_kb=0", "data_err=ignore", "dioread_nolock", "block_validity",
    ];

    /// <summary>
    /// Whether an option of a canonical spec holds, as far as it can be seen. <paramref name="flags"/> are the words of the mount
    /// (sixth field of mountinfo), <paramref name="data"/> those of the filesystem (the last field).
    /// </summary>
    public static bool Holds(string fstype, string option, IReadOnlyCollection<string> flags, IReadOnlyCollection<string> data)
    {
        var filesystem = FilesystemCatalog.Find(fstype);
        var rule = filesystem?.RuleOf(option);
        if (rule?.Target == OptionTarget.Instruction) return true;
        if (rule?.Target == OptionTarget.Mount || (rule is null && IsFlag(option))) return FlagHolds(option, flags);

        if (Wishes.Contains(option) || Wishes.Contains(Filesystem.KeyOf(option))) return true;
        var wanted = Written(option);
        var shown = data.Select(Written).ToList();
        if (shown.Contains(wanted) || IsPartOf(wanted, shown)) return true;
        if (shown.Any(other => Contradicts(filesystem, rule, wanted, other))) return false;
        return Hidden.TryGetValue(fstype, out var hidden) && (hidden.Contains(wanted) || hidden.Contains(Filesystem.KeyOf(wanted) + "="));
    }

    /// <summary>
    /// What a filesystem has and a spec does not ask for, as far as it is neither a default nor the filesystem's own choice by what
    /// it found on the device. <paramref name="data"/>: the last field of mountinfo.
    /// </summary>
    public static IEnumerable<string> Unasked(string fstype, IReadOnlyCollection<string> wanted, IReadOnlyCollection<string> data)
    {
        var filesystem = FilesystemCatalog.Find(fstype);
        var groups = wanted.Select(option => filesystem?.RuleOf(option)?.Group).ToHashSet(StringComparer.Ordinal);
        return data.Where(option =>
            filesystem?.RuleOf(option) is { IsDefault: false } rule && !groups.Contains(rule.Group)
            && !Chosen.Contains(option) && !Chosen.Contains(Filesystem.KeyOf(option)) && !MayBeHidden(fstype, Written(option)));
    }

    private static bool MayBeHidden(string fstype, string option) =>
        Hidden.TryGetValue(fstype, out var hidden) && hidden.Contains(option);

    private static bool IsFlag(string option) =>
        AbsenceOf.ContainsKey(option) || AbsenceOf.Values.Contains(option) || option is "noatime" or "relatime" or "strictatime";

    private static bool FlagHolds(string option, IReadOnlyCollection<string> flags) => option switch
    {
        "strictatime" => !flags.Contains("relatime") && !flags.Contains("noatime"),
        "relatime" => !flags.Contains("noatime"),
        _ when AbsenceOf.TryGetValue(option, out var opposite) => !flags.Contains(opposite),
        _ => flags.Contains(option),
    };

    /// <summary>Shown as something that includes it.</summary>
    private static bool IsPartOf(string wanted, List<string> shown)
    {
        var key = Filesystem.KeyOf(wanted);
        return (key, Filesystem.ValueOf(wanted)) switch
        {
            // A share of memory is shown in kilobytes: that there is a limit is all that can be said without knowing the memory.
            ("size", { } share) when share.EndsWith('%') => shown.Any(other => Filesystem.KeyOf(other) == "size"),
            // The nodes are filled in: interleave is shown as interleave:0-3.
            ("mpol", { } policy) => shown.Any(other => other.StartsWith($"mpol={policy}:", StringComparison.Ordinal)),
            ("rescue", { } parts) => shown.FirstOrDefault(other => Filesystem.KeyOf(other) == "rescue") is { } all
                && parts.Split(':').All(part => part == "usebackuproot" || Filesystem.ValueOf(all)!.Split(':').Contains(part)),
            ("ssd", null) => shown.Contains("ssd_spread"),
            ("sync", null) => shown.Contains("wsync"),
            _ => false,
        };
    }

    /// <summary>Another value of the same option, or another option of its group.</summary>
    private static bool Contradicts(Filesystem? filesystem, OptionRule? rule, string wanted, string shown)
    {
        if (Filesystem.KeyOf(shown) == Filesystem.KeyOf(wanted)) return true;
        return rule is not null && filesystem?.RuleOf(shown) is { Target: OptionTarget.Superblock } other && other.Group == rule.Group;
    }

    /// <summary>One way to write it: sizes in bytes, modes without leading zeros, one of several spellings.</summary>
    private static string Written(string option)
    {
        if (Spellings.TryGetValue(option, out var spelling)) return spelling;
        if (Filesystem.ValueOf(option) is not { } value) return option;
        var key = Filesystem.KeyOf(option);
        return key switch
        {
            "mode" => value.TrimStart('0') is { Length: > 0 } bits ? $"mode={bits}" : "mode=0",
            // tmpfs rounds to whole pages.
            "size" when Number(value) is { } bytes => Text("size", (bytes + PageSize - 1) / PageSize * PageSize),
            "nr_blocks" when Number(value) is { } blocks => Text("size", blocks * PageSize),
            "nr_inodes" or "max_inline" or "allocsize" or "logbsize" when Number(value) is { } number => Text(key, number),
            _ => option,
        };
    }

    private static string Text(string key, ulong number) => string.Create(CultureInfo.InvariantCulture, $"{key}={number}");

    private static ulong? Number(string value)
    {
        if (value.Length == 0) return null;
        var shift = char.ToLowerInvariant(value[^1]) switch { 'k' => 10, 'm' => 20, 'g' => 30, 't' => 40, 'p' => 50, _ => 0 };
        return ulong.TryParse(shift == 0 ? value : value[..^1], NumberStyles.None, CultureInfo.InvariantCulture, out var number) && number <= ulong.MaxValue >> (shift + 12)
            ? number << shift : null;
    }

    private static FrozenSet<string> Set(params IEnumerable<string> options) => options.Select(Written).ToFrozenSet(StringComparer.Ordinal);
}
