using System.Collections.Immutable;
using System.Globalization;

namespace MountLedger;

/// <summary>
/// Whether the options of our own mount are still those that it was made with. Only what the kernel is sure to show is compared: a
/// filesystem shows many options in a form of its own or not at all, and what it never showed has not changed.
/// </summary>
public static class OptionDrift
{
    /// <summary>Attributes of the mount itself, which every filesystem shows in both states.</summary>
    private static readonly ImmutableArray<string> Attributes = ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow"];

    /// <summary>Options with a value that the kernel shows as a number or a word of the same spelling.</summary>
    private static readonly HashSet<string> Comparable = new(StringComparer.Ordinal)
    {
        "size", "nr_inodes", "mode", "uid", "gid", "errors", "data", "commit",
    };

    /// <summary>Filesystems that are mounted with exactly the attributes that were asked for; a helper may add some of its own.</summary>
    private static readonly HashSet<string> Exact = new(StringComparer.Ordinal)
    {
        "tmpfs", "ramfs", "bind", "overlay", "ext2", "ext3", "ext4", "xfs", "btrfs", "squashfs", "erofs",
    };

    /// <summary>Filesystems that can be written to, and whose own read-only state therefore means that something happened.</summary>
    private static readonly HashSet<string> Writable = new(StringComparer.Ordinal) { "ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs" };

    /// <param name="wanted">What it was made with.</param>
    /// <param name="found">The same mount as it is now.</param>
    /// <param name="adopted">Somebody else made it: what they added was accepted then.</param>
    /// <returns>What differs, in words; null when nothing does.</returns>
    public static string? Between(MountSpec wanted, ObservedMount found, bool adopted)
    {
        var mayHaveMore = adopted || !Exact.Contains(wanted.FsType);
        var differing = new List<string>();
        foreach (var attribute in Attributes)
        {
            var isWanted = wanted.Options.Contains(attribute);
            if (!isWanted && mayHaveMore && attribute is not ("ro" or "noexec" or "nosymfollow")) continue;
            // A bind mount has what the mount has that it shows; that this is all, a comparison with the spec says, if there was one.
            if (!isWanted && wanted.FsType == "bind" && found.Differences is { IsDefault: false } compared && !compared.Contains("options")) continue;
            if (isWanted != found.MountOptions.Contains(attribute)) differing.Add(isWanted ? $"without {attribute}" : $"with {attribute}");
        }
        if (wanted.Options.Contains("strictatime") && found.MountOptions.Contains("relatime")) differing.Add("without strictatime");
        if (wanted.FsType != "bind")
        {
            if (Writable.Contains(wanted.FsType) && !wanted.Options.Contains("ro") && found.SuperOptions.Contains("ro"))
                differing.Add("the filesystem has become read-only");
            differing.AddRange(Values(wanted, found));
        }
        return differing.Count == 0 ? null : $"is mounted {string.Join(", ", differing)}";
    }

    private static IEnumerable<string> Values(MountSpec wanted, ObservedMount found)
    {
        foreach (var option in wanted.Options)
        {
            var equals = option.IndexOf('=', StringComparison.Ordinal);
            if (equals < 0 || option[..equals] is var key && !Comparable.Contains(key)) continue;
            var shown = found.SuperOptions.FirstOrDefault(candidate => candidate.StartsWith(option[..(equals + 1)], StringComparison.Ordinal))?[(equals + 1)..];
            if (shown is not null && !Same(key, option[(equals + 1)..], shown)) yield return $"with {key}={shown} instead of {option}";
        }
    }

    private static bool Same(string key, string wanted, string shown)
    {
        // A helper takes names too, and the kernel shows numbers.
        if (key is "uid" or "gid" && Number(wanted) is null) return true;
        if (key == "mode") return wanted.TrimStart('0') == shown.TrimStart('0');
        if (key is not ("size" or "nr_inodes")) return wanted == shown;
        // A share of the memory (50%) cannot be told from here.
        if (Number(wanted) is not { } asked || Number(shown) is not { } given) return true;
        const ulong Page = 4096; // tmpfs rounds to whole pages.
        return key == "size" ? (asked + Page - 1) / Page == (given + Page - 1) / Page : asked == given;
    }

    private static ulong? Number(string text)
    {
        var shift = text.Length == 0 ? 0 : char.ToLowerInvariant(text[^1]) switch { 'k' => 10, 'm' => 20, 'g' => 30, 't' => 40, _ => 0 };
        var digits = shift == 0 ? text : text[..^1];
        return ulong.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out var number) ? number << shift : null;
    }
}
