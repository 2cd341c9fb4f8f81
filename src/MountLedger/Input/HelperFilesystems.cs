using System.Collections.Frozen;
using System.Collections.Immutable;
using System.Text.RegularExpressions;

namespace MountLedger;

/// <summary>
/// The types that a program mounts (<c>/sbin/mount.TYPE</c>, or for <c>fuse.NAME</c> the program NAME itself), and the options
/// that each may have. Options that name a command, a second source or a file of secrets (<c>ssh_command</c>, <c>ProxyCommand</c>,
/// <c>config</c>, <c>credentials</c>) are in none of them. Sources: nfs(5), mount.cifs(8), sshfs(1), bindfs(1), s3fs(1),
/// mount.glusterfs(8), mount.ceph(8), mount.fuse3(8), rclone-mount.
/// </summary>
public static partial class HelperFilesystems
{
    /// <summary>All of them that need no configuration.</summary>
    internal static IEnumerable<Filesystem> BuiltIn() =>
    [
        Of("nfs", Server, [.. Nfs()]),
        Of("nfs4", Server, [.. Nfs()]),
        Of("cifs", Share, [.. Cifs()]),
        Of("smb3", Share, [.. Cifs()]),
        Of("ceph", Cluster, [.. Values("name", "mds_namespace", "fs", "rasize", "wsize", "rsize", "mount_timeout", "caps_wanted_delay_max", "recover_session", "ms_mode"),
            .. Flags("noshare", "nodcache", "dcache", "noasyncreaddir")]),
        Of("glusterfs", Server, [.. Values(
            "backup-volfile-servers", "log-level", "transport", "direct-io-mode", "attribute-timeout", "entry-timeout", "negative-timeout",
            "background-qlen", "congestion-threshold", "gid-timeout", "lru-limit", "use-readdirp"), .. Flags("acl", "selinux", "enable-ino32")]),
        Of("fuse.sshfs", Ssh, [.. Fuse(), .. Sshfs()]),
        Of("fuse.bindfs", null, [.. Fuse(), .. Bindfs()]) with { Source = SourceKind.Directory },
        Of("fuse.rclone", Remote, [.. Fuse(), .. Values(
            "vfs-cache-mode", "vfs-cache-max-age", "vfs-cache-max-size", "dir-cache-time", "poll-interval", "buffer-size", "transfers",
            "attr-timeout", "vfs-read-ahead", "vfs-write-back", "uid", "gid", "umask", "dir-perms", "file-perms"),
            .. Flags("read-only", "allow-non-empty", "no-checksum", "no-modtime", "vfs-fast-fingerprint")]),
        Of("fuse.s3fs", Bucket, [.. Fuse(), .. Values(
            "url", "endpoint", "retries", "connect_timeout", "readwrite_timeout", "list_object_max_keys", "max_stat_cache_size",
            "stat_cache_expire", "multireq_max", "parallel_count", "multipart_size", "ensure_diskfree", "storage_class", "mp_umask",
            "public_bucket", "iam_role", "dbglevel", "default_acl", "singlepart_copy_limit"),
            .. Flags("use_path_request_style", "nomultipart", "compat_dir", "complement_stat", "notsup_compat_dir", "requester_pays", "use_xattr")]),
    ];

    /// <summary>
    /// A type that the agent's configuration allows, with the names of its options; each may have a value. The source may be
    /// whatever its program takes, short of what could be read as a flag.
    /// </summary>
    public static Filesystem Configured(string type, IEnumerable<string> options) =>
        Of(type, AnySource, [.. (type.StartsWith("fuse.", StringComparison.Ordinal) ? Fuse() : []), .. options.Select(Loose)]);

    /// <summary>Whether the configuration may name such a type: <c>davfs</c>, <c>fuse.encfs</c>.</summary>
    public static bool IsTypeName(string type) => TypeName().IsMatch(type) && FilesystemCatalog.Find(type) is null;

    /// <summary>Whether the configuration may name such an option.</summary>
    public static bool IsOptionName(string option) => OptionName().IsMatch(option) && !ErrorValue.IsSecretKey(option);

    private static readonly SourceForm Server = new(ServerSource(), "SERVER:/PATH, with an IPv6 address in brackets");
    private static readonly SourceForm Share = new(ShareSource(), "//SERVER/SHARE or //SERVER/SHARE/PATH");
    private static readonly SourceForm Cluster = new(ClusterSource(), "MONITOR[,MONITOR…]:/PATH or USER@FSID.FILESYSTEM=/PATH");
    private static readonly SourceForm Ssh = new(SshSource(), "[USER@]SERVER:[PATH], with an IPv6 address in brackets");
    private static readonly SourceForm Remote = new(RemoteSource(), "REMOTE:[PATH], with a remote of rclone's own configuration");
    private static readonly SourceForm Bucket = new(BucketSource(), "BUCKET or BUCKET:/PATH");
    private static readonly SourceForm AnySource = new(PlainSource(), "text without spaces, commas, quotes and backslashes");

    private static IEnumerable<OptionRule> Nfs() =>
    [
        .. Values("vers", "minorversion", "proto", "port", "rsize", "wsize", "timeo", "retrans", "retry", "nconnect", "acregmin", "acregmax",
            "acdirmin", "acdirmax", "actimeo", "lookupcache", "sec", "clientaddr", "mountport", "mountproto", "mountvers", "mounthost"),
        Value("nfsvers") with { AliasOf = "vers", Group = "vers" },
        Choice("hard", "hard"), Choice("soft", "hard"), Choice("softerr", "hard"), Choice("ac", "ac"), Choice("noac", "ac"),
        Choice("lock", "lock"), Choice("nolock", "lock"), Choice("acl", "acl"), Choice("noacl", "acl"), Choice("cto", "cto"), Choice("nocto", "cto"),
        Choice("sharecache", "sharecache"), Choice("nosharecache", "sharecache"), Choice("resvport", "resvport"), Choice("noresvport", "resvport"),
        Choice("rdirplus", "rdirplus"), Choice("nordirplus", "rdirplus"), Choice("tcp", "proto"), Choice("udp", "proto"),
        Choice("fsc", "fsc"), Choice("nofsc", "fsc"),
    ];

    private static IEnumerable<OptionRule> Cifs() =>
    [
        .. Values("username", "domain", "vers", "sec", "uid", "gid", "file_mode", "dir_mode", "port", "ip", "netbiosname", "iocharset", "rsize",
            "wsize", "actimeo", "cache", "echo_interval", "max_credits", "snapshot", "cruid", "servern"),
        Value("user") with { AliasOf = "username", Group = "username" },
        .. Flags("guest", "seal", "mfsymlinks", "sfu", "nobrl", "noserverino", "serverino", "nounix", "noperm", "persistenthandles",
            "resilienthandles", "multichannel", "nostrictsync", "noposixpaths", "nodfs", "forceuid", "noforceuid", "forcegid", "noforcegid"),
    ];

    /// <summary>What libfuse itself takes.</summary>
    private static IEnumerable<OptionRule> Fuse() =>
    [
        .. Flags("allow_other", "allow_root", "default_permissions", "kernel_cache", "auto_cache", "noauto_cache", "noforget"),
        .. Values("max_read", "umask", "uid", "gid", "entry_timeout", "attr_timeout", "negative_timeout", "ac_attr_timeout", "remember"),
    ];

    private static IEnumerable<OptionRule> Sshfs() =>
    [
        .. Flags("reconnect", "delay_connect", "sshfs_sync", "no_readahead", "sync_readdir", "direct_io", "disable_hardlink", "transform_symlinks",
            "contain_symlinks", "no_contain_symlinks", "follow_symlinks", "no_check_root", "no_rofd_flush"),
        .. Values("port", "compression", "dir_cache", "dcache_max_size", "dcache_timeout", "dcache_stat_timeout", "dcache_link_timeout",
            "dcache_dir_timeout", "dcache_clean_interval", "dcache_min_clean_interval", "workaround", "idmap", "max_conns",
            "ConnectTimeout", "ConnectionAttempts", "ServerAliveInterval", "ServerAliveCountMax", "StrictHostKeyChecking", "AddressFamily",
            "Ciphers", "HostKeyAlgorithms", "KexAlgorithms", "MACs"),
        Value("IdentityFile") with { Syntax = ValueSyntax.Path }, Value("UserKnownHostsFile") with { Syntax = ValueSyntax.Path },
        new("IdentitiesOnly", OptionTarget.Superblock, ValueNeed.Always, ValueSyntax.Word) { Words = ["yes", "no"] },
    ];

    private static IEnumerable<OptionRule> Bindfs() =>
    [
        .. Values("force-user", "force-group", "mirror", "mirror-only", "map", "uid-offset", "gid-offset", "perms", "create-for-user",
            "create-for-group", "create-with-perms", "chmod-filter", "read-rate", "write-rate", "resolved-symlink-deletion", "forward-odirect"),
        .. Flags("create-as-user", "create-as-mounter", "chown-normal", "chown-ignore", "chown-deny", "chgrp-normal", "chgrp-ignore", "chgrp-deny",
            "chmod-normal", "chmod-ignore", "chmod-deny", "chmod-allow-x", "xattr-none", "xattr-ro", "xattr-rw", "delete-deny", "rename-deny",
            "no-allow-other", "realistic-permissions", "ctime-from-mtime", "enable-lock-forwarding", "enable-ioctl", "hide-hard-links",
            "resolve-symlinks", "block-devices-as-files", "multithreaded"),
    ];

    private static Filesystem Of(string type, SourceForm? form, IEnumerable<OptionRule> options)
    {
        var rules = new Dictionary<string, OptionRule>(StringComparer.Ordinal);
        foreach (var rule in options) rules[rule.Name] = rule;
        // The flags of every mount win over a helper's own word for the same.
        foreach (var rule in FilesystemCatalog.PerMount()) rules[rule.Name] = rule;
        return new(type, SourceKind.Remote, rules.ToFrozenDictionary(StringComparer.Ordinal), [], ReadOnly: false) { ByHelper = true, Form = form };
    }

    private static IEnumerable<OptionRule> Values(params IEnumerable<string> names) => names.Select(Value);

    private static IEnumerable<OptionRule> Flags(params IEnumerable<string> names) => names.Select(name => Choice(name, name));

    private static OptionRule Value(string name) => new(name, OptionTarget.Superblock, ValueNeed.Always, ValueSyntax.HelperText);

    private static OptionRule Loose(string name) => new(name, OptionTarget.Superblock, ValueNeed.Optional, ValueSyntax.HelperText);

    private static OptionRule Choice(string name, string group) =>
        new(name, OptionTarget.Superblock, ValueNeed.Never, ValueSyntax.None) { Group = group };

    // A host never begins with '-' (ssh and its kind would take it for a flag), also not behind "user@" or inside brackets.
    private const string Host = @"(\[[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?\]|[A-Za-z0-9_][A-Za-z0-9_.-]*)";
    private const string Plain = @"[^\s,\\""'`$;&|<>()*?]";

    [GeneratedRegex("^" + Host + ":/?" + Plain + "+$")]
    private static partial Regex ServerSource();

    [GeneratedRegex("^//" + Host + "/" + Plain + "+$")]
    private static partial Regex ShareSource();

    [GeneratedRegex(@"^([A-Za-z0-9_][A-Za-z0-9_.:,\[\]-]*:/|[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9_.-]*=/)" + Plain + "*$")]
    private static partial Regex ClusterSource();

    [GeneratedRegex("^([A-Za-z0-9_][A-Za-z0-9_.-]*@)?" + Host + ":" + Plain + "*$")]
    private static partial Regex SshSource();

    [GeneratedRegex("^[A-Za-z0-9_][A-Za-z0-9_.+@-]*:" + Plain + "*$")]
    private static partial Regex RemoteSource();

    [GeneratedRegex("^[a-z0-9][A-Za-z0-9.-]*(:/" + Plain + "*)?$")]
    private static partial Regex BucketSource();

    [GeneratedRegex("^" + Plain + "+$")]
    private static partial Regex PlainSource();

    [GeneratedRegex("^(fuse[.])?[a-z0-9][a-z0-9_-]{0,24}$")]
    private static partial Regex TypeName();

    [GeneratedRegex("^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]
    private static partial Regex OptionName();
}
