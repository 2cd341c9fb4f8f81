using System.Collections.Immutable;

namespace MountLedger.Linux;

/// <summary>
/// Comparing what a helper mounted with what was asked of it. The kernel shows less of such a mount than the helper was told
/// (a FUSE filesystem keeps its options to itself), and sometimes other words for it.
/// </summary>
internal static class HelperComparison
{
    /// <summary>What the kernel shows of a FUSE mount's options, when they are there.</summary>
    private static readonly HashSet<string> ShownByFuse = new(StringComparer.Ordinal) { "allow_other", "default_permissions" };

    /// <summary>Types that are shown under the name of another one.</summary>
    private static readonly (string Wanted, string Shown)[] Renamed =
        [("nfs", "nfs4"), ("nfs4", "nfs"), ("smb3", "cifs"), ("cifs", "smb3"), ("glusterfs", "fuse.glusterfs"), ("ceph", "fuse.ceph")];

    /// <summary><c>fuse.bindfs</c> is shown as <c>fuse</c> by programs that set no subtype.</summary>
    public static bool TypesMatch(string wanted, string shown) =>
        wanted == shown
        || (shown is "fuse" or "fuseblk" && wanted.StartsWith("fuse.", StringComparison.Ordinal))
        || Renamed.Contains((wanted, shown));

    /// <summary>
    /// Slashes at the end mean nothing, and a server's name may be followed by the path with or without the first one. A source
    /// that is the program's own name (s3fs without <c>fsname</c>) says nothing about the bucket, so it matches none.
    /// </summary>
    public static bool SourcesMatch(MountSpec wanted, ObservedMount found)
    {
        var (one, other) = (Trimmed(wanted.Source), Trimmed(found.Source));
        if (one == other) return true;
        return wanted.FsType switch
        {
            // sshfs shows what it was given; older ones put their name before it.
            "fuse.sshfs" => $"sshfs#{one}" == other,
            "glusterfs" => one.Replace(":/", ":", StringComparison.Ordinal) == other.Replace(":/", ":", StringComparison.Ordinal),
            "cifs" or "smb3" => string.Equals(one, other.Replace('\\', '/'), StringComparison.OrdinalIgnoreCase),
            // rclone adds a hash of its overrides: remote{AbC1x}:path.
            "fuse.rclone" => one == Trimmed(WithoutHash(other)),
            _ => false,
        };
    }

    /// <summary>
    /// Whether an option that the helper was given is, as far as the kernel shows it, in effect: shown with another value it is not,
    /// not shown at all it cannot be told.
    /// </summary>
    public static bool OptionHolds(string option, ImmutableArray<string> shown)
    {
        if (ShownByFuse.Contains(option)) return shown.Contains(option);
        var key = Filesystem.KeyOf(option);
        if (key == option) return !shown.Contains(Opposite(option));
        return shown.Contains(option) || !shown.Any(other => Filesystem.KeyOf(other) == key && !SameValue(option, other));
    }

    private static bool SameValue(string option, string other) =>
        string.Equals(Filesystem.ValueOf(option)?.TrimStart('0'), Filesystem.ValueOf(other)?.TrimStart('0'), StringComparison.OrdinalIgnoreCase)
        // vers=4 is shown as vers=4.2: what was left open was chosen.
        || (Filesystem.KeyOf(option) == "vers" && Filesystem.ValueOf(other)?.StartsWith(Filesystem.ValueOf(option) + ".", StringComparison.Ordinal) == true);

    private static string Opposite(string flag) => flag switch
    {
        "hard" => "soft",
        "soft" => "hard",
        _ when flag.StartsWith("no", StringComparison.Ordinal) => flag[2..],
        _ => "no" + flag,
    };

    private static string WithoutHash(string source)
    {
        var (open, close) = (source.IndexOf('{', StringComparison.Ordinal), source.IndexOf("}:", StringComparison.Ordinal));
        return open > 0 && close > open ? source[..open] + source[(close + 1)..] : source;
    }

    private static string Trimmed(string source) => source.Length > 1 && !source.EndsWith(":/", StringComparison.Ordinal) ? source.TrimEnd('/') : source;
}
