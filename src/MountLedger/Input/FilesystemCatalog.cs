using System.Collections.Frozen;

namespace MountLedger;

/// <summary>
/// The filesystem types that can be mounted, and the options that each may have: the allow list of section 5 of the
/// design. Pure data. Sources: mount(8), Documentation/filesystems/*.rst of the kernel, btrfs(5), xfs(5), ext4(5).
/// Options that name further devices or files (<c>logdev</c>, <c>journal_path</c>, btrfs <c>device</c>) are not in it: a
/// request has one source. Of two spellings the canonical one is that which the kernel shows.
/// </summary>
public static class FilesystemCatalog
{
    private static readonly FrozenDictionary<string, Filesystem> ByType = new[]
    {
        Of("tmpfs", SourceKind.Label, Tmpfs()),
        Of("ramfs", SourceKind.Label, [Value("mode", ValueSyntax.OctalMode)]),
        Of("bind", SourceKind.Directory, [Instruction("bind") with { IsDefault = true }, Instruction("rbind")]),
        Of("overlay", SourceKind.Label, Overlay(), required: ["lowerdir"]),
        Of("ext2", SourceKind.DeviceOrImage, [.. Image(), .. Ext2()]),
        Of("ext3", SourceKind.DeviceOrImage, [.. Image(), .. Ext2(), .. Ext3()]),
        Of("ext4", SourceKind.DeviceOrImage, [.. Image(), .. Ext2(), .. Ext3(), .. Ext4()]),
        Of("xfs", SourceKind.DeviceOrImage, [.. Image(), .. Xfs()]),
        Of("btrfs", SourceKind.DeviceOrImage, [.. Image(), .. Btrfs()]),
        Of("squashfs", SourceKind.DeviceOrImage, [.. Image(), .. Squashfs()], readOnly: true),
        Of("erofs", SourceKind.DeviceOrImage, [.. Image(), .. Erofs()], readOnly: true),
    }.Concat(HelperFilesystems.BuiltIn()).ToFrozenDictionary(filesystem => filesystem.Type, StringComparer.Ordinal);

    private const string LosesData = "a power cut then loses data that was written";

    /// <summary>All known types, in ordinal order.</summary>
    public static IReadOnlyList<string> Types { get; } = [.. ByType.Keys.Order(StringComparer.Ordinal)];

    public static IEnumerable<Filesystem> All => ByType.Values;

    /// <summary>What a configuration can allow: options that put the host or its data at risk, in ordinal order.</summary>
    public static IReadOnlyList<string> OffByDefault { get; } =
    [
        .. ByType.Values.SelectMany(filesystem => filesystem.Options.Values)
            .SelectMany(rule => rule.ByPolicy is null ? rule.RefusedWords.Select(word => $"{rule.Name}={word}") : [rule.Name])
            .Distinct().Order(StringComparer.Ordinal),
    ];

    /// <summary>The filesystem of this exact name, or null.</summary>
    public static Filesystem? Find(string type) => ByType.GetValueOrDefault(type);

    /// <summary>The flags that every mount can have. What is marked as a default is what the kernel does without any flag.</summary>
    internal static IEnumerable<OptionRule> PerMount() =>
    [
        MountFlag("ro", "write"), MountFlag("rw", "write") with { IsDefault = true },
        MountFlag("nosuid", "suid"), MountFlag("suid", "suid"),
        MountFlag("nodev", "dev"), MountFlag("dev", "dev"),
        MountFlag("noexec", "exec"), MountFlag("exec", "exec") with { IsDefault = true },
        MountFlag("noatime", "atime"), MountFlag("strictatime", "atime"),
        MountFlag("relatime", "atime") with { IsDefault = true },
        MountFlag("nodiratime", "diratime"), MountFlag("diratime", "diratime") with { IsDefault = true },
        MountFlag("nosymfollow", "symfollow"), MountFlag("symfollow", "symfollow") with { IsDefault = true },
        Instruction("defaults") with { IsDefault = true },
    ];

    private static IEnumerable<OptionRule> Tmpfs() =>
    [
        Value("size", ValueSyntax.SizeOrPercent), Value("nr_blocks", ValueSyntax.Size), Value("nr_inodes", ValueSyntax.Size),
        Value("mode", ValueSyntax.OctalMode), Value("uid", ValueSyntax.Number), Value("gid", ValueSyntax.Number),
        Word("huge", "never", "always", "within_size", "advise"), Value("mpol", ValueSyntax.Text),
        Flag("inode32", "inode"), Flag("inode64", "inode"), Flag("noswap"),
    ];

    private static IEnumerable<OptionRule> Overlay() =>
    [
        Value("lowerdir", ValueSyntax.Paths), Value("upperdir", ValueSyntax.Path), Value("workdir", ValueSyntax.Path),
        Word("redirect_dir", "on", "follow", "nofollow", "off"), Word("index", "on", "off"), Word("metacopy", "on", "off"),
        Word("xino", "on", "off", "auto"), Word("nfs_export", "on", "off"), Word("uuid", "on", "off", "null", "auto"),
        Word("verity", "on", "off", "require"), Flag("userxattr"), Flag("volatile") with { ByPolicy = "after a crash the upper directory cannot be used again" },
    ];

    /// <summary>What everything on a block device or in an image has.</summary>
    private static IEnumerable<OptionRule> Image() =>
    [
        Instruction("loop"),
        Flag("sync", "sync"), Flag("async", "sync") with { IsDefault = true }, Flag("dirsync"),
        Flag("lazytime", "lazytime"), Flag("nolazytime", "lazytime") with { IsDefault = true },
    ];

    private static IEnumerable<OptionRule> Ext2() =>
    [
        Flag("acl", "acl"), Flag("noacl", "acl"), Flag("user_xattr", "user_xattr"), Flag("nouser_xattr", "user_xattr"),
        Flag("grpid", "grpid"), Flag("nogrpid", "grpid"),
        Flag("bsdgroups", "grpid") with { AliasOf = "grpid" }, Flag("sysvgroups", "grpid") with { AliasOf = "nogrpid" },
        Flag("bsddf", "df"), Flag("minixdf", "df"),
        Value("resuid", ValueSyntax.Number), Value("resgid", ValueSyntax.Number), Value("sb", ValueSyntax.Number),
        Word("errors", "continue", "remount-ro", "panic") with { RefusedWords = ["panic"] },
        Flag("usrquota"), Flag("grpquota"), Flag("noquota"),
    ];

    private static IEnumerable<OptionRule> Ext3() =>
    [
        Word("data", "journal", "ordered", "writeback"), Value("commit", ValueSyntax.Number),
        Flag("norecovery"), Flag("noload", "norecovery") with { AliasOf = "norecovery" },
        Maybe("barrier", ValueSyntax.Word, "barrier", "0", "1") with { RefusedWords = ["0"] }, Flag("nobarrier", "barrier") with { ByPolicy = LosesData },
    ];

    private static IEnumerable<OptionRule> Ext4() =>
    [
        Flag("discard", "discard"), Flag("nodiscard", "discard"), Flag("delalloc", "delalloc"), Flag("nodelalloc", "delalloc"),
        Flag("prjquota"), Flag("journal_checksum", "journal_checksum"), Flag("nojournal_checksum", "journal_checksum"),
        Flag("journal_async_commit"), Flag("noauto_da_alloc", "auto_da_alloc"),
        Maybe("auto_da_alloc", ValueSyntax.Word, "auto_da_alloc", "0", "1"),
        Maybe("init_itable", ValueSyntax.Number, "init_itable"), Flag("noinit_itable", "init_itable"),
        Value("inode_readahead_blks", ValueSyntax.Number), Value("stripe", ValueSyntax.Number),
        Value("max_batch_time", ValueSyntax.Number), Value("min_batch_time", ValueSyntax.Number),
        Value("journal_ioprio", ValueSyntax.Number), Value("max_dir_size_kb", ValueSyntax.Number),
        Word("data_err", "ignore", "abort"), Flag("dioread_lock", "dioread"), Flag("dioread_nolock", "dioread"),
        Flag("block_validity", "block_validity"), Flag("noblock_validity", "block_validity"),
        Maybe("dax", ValueSyntax.Word, "dax", "always", "never", "inode"),
    ];

    private static IEnumerable<OptionRule> Xfs() =>
    [
        Value("allocsize", ValueSyntax.Size), Flag("discard", "discard"), Flag("nodiscard", "discard"),
        Flag("grpid", "grpid"), Flag("nogrpid", "grpid"),
        Flag("bsdgroups", "grpid") with { AliasOf = "grpid" }, Flag("sysvgroups", "grpid") with { AliasOf = "nogrpid" },
        Flag("filestreams"), Flag("inode32", "inode"), Flag("inode64", "inode"),
        Flag("largeio", "largeio"), Flag("nolargeio", "largeio"),
        Value("logbufs", ValueSyntax.Number), Value("logbsize", ValueSyntax.Size), Flag("noalign"), Flag("norecovery"), Flag("nouuid"),
        Value("sunit", ValueSyntax.Number), Value("swidth", ValueSyntax.Number), Flag("swalloc"), Flag("wsync"),
        Flag("usrquota", "uquota"), Flag("uqnoenforce", "uquota"), Flag("grpquota", "gquota"), Flag("gqnoenforce", "gquota"),
        Flag("prjquota", "pquota"), Flag("pqnoenforce", "pquota"), Flag("noquota"),
        Flag("uquota", "uquota") with { AliasOf = "usrquota" }, Flag("gquota", "gquota") with { AliasOf = "grpquota" },
        Flag("pquota", "pquota") with { AliasOf = "prjquota" },
        Maybe("dax", ValueSyntax.Word, "dax", "always", "never", "inode"),
    ];

    private static IEnumerable<OptionRule> Btrfs() =>
    [
        Value("subvol", ValueSyntax.InnerPath), Value("subvolid", ValueSyntax.LongNumber),
        Maybe("compress", ValueSyntax.Compression, "compress", "zlib", "lzo", "zstd", "no", "none"),
        Maybe("compress-force", ValueSyntax.Compression, "compress", "zlib", "lzo", "zstd", "no", "none"),
        Flag("acl", "acl"), Flag("noacl", "acl"), Flag("autodefrag", "autodefrag"), Flag("noautodefrag", "autodefrag"),
        Flag("barrier", "barrier"), Flag("nobarrier", "barrier") with { ByPolicy = LosesData }, Flag("datacow", "datacow"), Flag("nodatacow", "datacow"),
        Flag("datasum", "datasum"), Flag("nodatasum", "datasum"), Flag("degraded"), Flag("clear_cache"), Flag("skip_balance"),
        Maybe("discard", ValueSyntax.Word, "discard", "sync", "async"), Flag("nodiscard", "discard"),
        Flag("flushoncommit", "flushoncommit"), Flag("noflushoncommit", "flushoncommit"),
        Flag("ssd", "ssd"), Flag("nossd", "ssd"), Flag("ssd_spread", "ssd_spread"), Flag("nossd_spread", "ssd_spread"),
        Flag("treelog", "treelog"), Flag("notreelog", "treelog"), Flag("user_subvol_rm_allowed"),
        Maybe("space_cache", ValueSyntax.Word, "space_cache", "v1", "v2"), Flag("nospace_cache", "space_cache"),
        Value("commit", ValueSyntax.Number), Value("max_inline", ValueSyntax.Size), Value("metadata_ratio", ValueSyntax.Number),
        Value("thread_pool", ValueSyntax.Number),
        Value("rescue", ValueSyntax.Words) with
        {
            Words = ["usebackuproot", "nologreplay", "ignorebadroots", "ignoredatacsums", "ignoremetacsums", "ignoresuperflags", "all"],
        },
    ];

    private static IEnumerable<OptionRule> Squashfs() =>
    [
        Word("errors", "continue", "panic") with { RefusedWords = ["panic"] }, Value("threads", ValueSyntax.Text),
    ];

    private static IEnumerable<OptionRule> Erofs() =>
    [
        Flag("acl", "acl"), Flag("noacl", "acl"), Flag("user_xattr", "user_xattr"), Flag("nouser_xattr", "user_xattr"),
        Word("cache_strategy", "disabled", "readahead", "readaround"), Value("fsoffset", ValueSyntax.LongNumber),
        Flag("directio"), Maybe("dax", ValueSyntax.Word, "dax", "always", "never"),
    ];

    private static Filesystem Of(
        string type, SourceKind source, IEnumerable<OptionRule> options, string[]? required = null, bool readOnly = false) =>
        new(type, source, PerMount().Concat(options).ToFrozenDictionary(rule => rule.Name, StringComparer.Ordinal), [.. required ?? []],
            readOnly);

    private static OptionRule MountFlag(string name, string group) =>
        new(name, OptionTarget.Mount, ValueNeed.Never, ValueSyntax.None) { Group = group };

    private static OptionRule Instruction(string name) =>
        new(name, OptionTarget.Instruction, ValueNeed.Never, ValueSyntax.None);

    private static OptionRule Flag(string name, string? group = null) =>
        new(name, OptionTarget.Superblock, ValueNeed.Never, ValueSyntax.None) { Group = group ?? name };

    private static OptionRule Value(string name, ValueSyntax syntax) =>
        new(name, OptionTarget.Superblock, ValueNeed.Always, syntax);

    private static OptionRule Word(string name, params string[] words) =>
        Value(name, ValueSyntax.Word) with { Words = [.. words] };

    private static OptionRule Maybe(string name, ValueSyntax syntax, string group, params string[] words) =>
        new(name, OptionTarget.Superblock, ValueNeed.Optional, syntax) { Group = group, Words = [.. words] };
}
