using System.Collections.Frozen;
using System.Globalization;

namespace MountLedger.Linux;

/// <summary>
/// What an option of a filesystem means in the words that the kernel shows it in: <c>size=1G</c> is shown as
/// <c>size=1048576k</c>, <c>barrier=0</c> as <c>nobarrier</c>, <c>commit=5</c> not at all. Each table was made from what the
/// kernel showed for each option (a test mounts them all), not from its sources.
/// </summary>
internal static class OptionMeaning
{
    private const long PageBytes = 4096;

    // Not shown when they hold: what the filesystem does anyway, and what only matters while it mounts.
    private static readonly FrozenDictionary<string, string[]> Unshown = new Dictionary<string, string[]>(StringComparer.Ordinal)
    {
        ["tmpfs"] = ["uid=0", "gid=0", "mode=1777", "huge=never", "inode32", "inode64", "mpol=default"],
        ["ramfs"] = ["mode=755"],
        ["ext"] =
        [
            "acl", "user_xattr", "bsddf", "nogrpid", "noquota", "errors=continue", "resuid=0", "resgid=0", "commit=0", "commit=5", "barrier",
            "data=ordered", "auto_da_alloc", "block_validity", "data_err=ignore", "delalloc", "dioread_nolock", "init_itable", "journal_checksum",
            "journal_ioprio=*", "max_dir_size_kb=0", "min_batch_time=0", "max_batch_time=15000", "sb=*", "stripe=0", "nodiscard", "nolazytime",
        ],
        ["xfs"] = ["nodiscard", "nogrpid", "nolargeio"],
        ["btrfs"] =
        [
            "acl", "barrier", "clear_cache", "commit=0", "commit=30", "compress=no", "compress-force=no", "datacow", "datasum",
            "metadata_ratio=0", "noautodefrag", "noflushoncommit", "nossd_spread", "nodiscard", "nossd", "treelog", "rescue=usebackuproot",
        ],
        ["overlay"] =
        [
            "index=off", "metacopy=off", "nfs_export=off", "redirect_dir=off", "redirect_dir=follow", "redirect_dir=nofollow", "verity=off",
            "volatile",
        ],
        ["erofs"] = ["fsoffset=0"],
        ["squashfs"] = ["errors=continue"],
    }.ToFrozenDictionary(StringComparer.Ordinal);

    // The kernel decides in the end, and shows its decision: what was asked for is a wish.
    private static readonly FrozenSet<string> Wishes = FrozenSet.Create(
        StringComparer.Ordinal, "dax", "directio", "xino", "max_inline", "logbufs=0", "nr_blocks=0", "threads", "uuid=auto");

    // Shown although nobody asked for them: the filesystem chose them by what it found on the device.
    private static readonly FrozenSet<string> Chosen = FrozenSet.Create(
        StringComparer.Ordinal, "ro", "rw", "dax=never", "stripe", "sunit", "swidth", "attr2", "inode64", "logbufs", "logbsize", "noquota", "seclabel",
        "ssd", "nossd", "discard=async", "space_cache", "subvolid", "subvol", "user_xattr", "acl", "cache_strategy", "errors=continue");

    /// <summary>
    /// Whether an option holds in a mount. One that the kernel would not show holds unless another one of its group is shown
    /// (<c>barrier</c> and <c>nobarrier</c>).
    /// </summary>
    /// <param name="type">The filesystem's type.</param>
    /// <param name="wanted">The option as a canonical spec has it.</param>
    /// <param name="shown">What the kernel shows, from <see cref="Shown"/>.</param>
    public static bool Holds(string type, string wanted, IReadOnlySet<string> shown)
    {
        if (IsWish(wanted)) return true;
        var canonical = Canonical(type, wanted);
        if (shown.Contains(canonical)) return true;
        if (!IsUnshown(type, canonical)) return false;
        var group = GroupOf(type, wanted);
        return !shown.Any(option => GroupOf(type, option) == group);
    }

    /// <summary>The options of a superblock in the one spelling that is compared.</summary>
    public static HashSet<string> Shown(string type, IEnumerable<string> options) =>
        options.Select(option => Canonical(type, option)).ToHashSet(StringComparer.Ordinal);

    /// <summary>What a superblock has and a spec does not ask for, as far as it is neither a default nor the filesystem's own choice.</summary>
    public static IEnumerable<string> Unasked(string type, IReadOnlyCollection<string> wanted, IReadOnlySet<string> shown)
    {
        var groups = wanted.Select(option => GroupOf(type, option)).ToHashSet(StringComparer.Ordinal);
        return shown.Where(option =>
            FilesystemCatalog.Find(type)?.RuleOf(option) is { IsDefault: false } && !Chosen.Contains(option)
            && !Chosen.Contains(Filesystem.KeyOf(option)) && !IsUnshown(type, option) && !groups.Contains(GroupOf(type, option)));
    }

    private static bool IsWish(string option) =>
        Wishes.Contains(Filesystem.KeyOf(option)) || Wishes.Contains(option) || (option.StartsWith("size=", StringComparison.Ordinal) && option.EndsWith('%'));

    private static bool IsUnshown(string type, string option) =>
        Unshown.TryGetValue(FamilyOf(type), out var options)
        && (options.Contains(option) || options.Contains(Filesystem.KeyOf(option) + "=*"));

    private static string GroupOf(string type, string option) =>
        FilesystemCatalog.Find(type)?.RuleOf(option)?.Group ?? Filesystem.KeyOf(option);

    private static string FamilyOf(string type) => type is "ext2" or "ext3" or "ext4" ? "ext" : type;

    private static string Canonical(string type, string option)
    {
        var (key, value) = (Filesystem.KeyOf(option), Filesystem.ValueOf(option));
        return (FamilyOf(type), key, value) switch
        {
            (_, "mode", { } mode) => $"mode={(mode.TrimStart('0') is { Length: > 0 } digits ? digits : "0")}",
            ("tmpfs", "nr_blocks", { } blocks) when Bytes(blocks) is { } count => $"size={Number(count * PageBytes)}",
            (_, "size", { } size) when Bytes(size) is { } bytes => $"size={Number((bytes + PageBytes - 1) / PageBytes * PageBytes)}",
            (_, "nr_inodes" or "allocsize" or "logbsize", { } size) when Bytes(size) is { } bytes => $"{key}={Number(bytes)}",
            ("ext" or "btrfs", "barrier", null or "1") => "barrier",
            ("ext", "barrier", "0") => "nobarrier",
            ("ext", "auto_da_alloc", null or "1") => "auto_da_alloc",
            ("ext", "auto_da_alloc", "0") => "noauto_da_alloc",
            ("ext", "nodioread_nolock", null) => "dioread_lock",
            ("btrfs", "compress" or "compress-force", null or "zlib") => $"{key}=zlib:3",
            ("btrfs", "compress" or "compress-force", "zstd") => $"{key}=zstd:3",
            ("btrfs", "compress" or "compress-force", "none") => $"{key}=no",
            ("btrfs", "discard", "sync") => "discard",
            _ => option,
        };
    }

    /// <summary>A number with one of <c>k m g t p</c>, in bytes; null when it is none.</summary>
    private static long? Bytes(string value)
    {
        var shift = value.Length == 0 ? 0 : char.ToLowerInvariant(value[^1]) switch { 'k' => 10, 'm' => 20, 'g' => 30, 't' => 40, 'p' => 50, _ => 0 };
        var digits = shift == 0 ? value : value[..^1];
        return long.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out var number) && number <= long.MaxValue >> shift
            ? number << shift : null;
    }

    private static string Number(long value) => value.ToString(CultureInfo.InvariantCulture);
}
