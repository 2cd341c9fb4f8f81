using System.Collections.Immutable;
using System.Globalization;

namespace MountLedger.Linux;

/// <summary>
/// Whether an observed mount is what a spec asks for, by meaning: the kernel shows <c>size=1048576k</c> for <c>size=1G</c>,
/// the filesystem's own type for <c>bind</c>, and <c>/dev/loop3</c> for an image.
/// </summary>
internal static class MountComparison
{
    // Said or left out, they mean the same: what the kernel does anyway, or what says how and not what.
    private static readonly HashSet<string> Defaults = new(StringComparer.Ordinal)
    {
        "defaults", "rw", "relatime", "suid", "dev", "exec", "diratime", "async", "loop", "bind", "rbind",
    };

    // An attribute that is there although nobody asked for it makes a different mount.
    private static readonly HashSet<string> Restricting = new(StringComparer.Ordinal) { "ro", "noexec", "nosymfollow" };

    /// <summary>Names of what differs: <c>source</c>, <c>fstype</c>, <c>options</c>; empty when it is the same.</summary>
    public static ImmutableArray<string> Differences(MountSpec wanted, MountTable.Found found)
    {
        var differences = ImmutableArray.CreateBuilder<string>(3);
        if (!SourceMatches(wanted, found)) differences.Add("source");
        // A bind mount has the type of the filesystem that it shows; its source was compared instead.
        if (wanted.FsType != "bind" && !HelperComparison.TypesMatch(wanted.FsType, found.Mount.FsType)) differences.Add("fstype");
        if (!OptionsMatch(wanted, found.Mount)) differences.Add("options");
        return differences.ToImmutable();
    }

    private static bool SourceMatches(MountSpec wanted, MountTable.Found found)
    {
        if (wanted.FsType == "bind")
            return MountTable.OriginOf(wanted.Source) is { } origin && origin.Major == found.DeviceMajor
                && origin.Minor == found.DeviceMinor && origin.Root == found.Mount.Root;
        // A bind mount of a part of such a filesystem shows the same source.
        if (found.Mount.Root != "/" && wanted.FsType != "btrfs") return false;
        if (found.Mount.Source == wanted.Source) return true;
        if (!FilesystemCatalog.IsKernelType(wanted.FsType)) return HelperComparison.SourcesMatch(wanted, found.Mount);
        if (LoopDevices.BackingFile(found.Mount.Source) is { } file) return file == wanted.Source;
        return wanted.Source.StartsWith("/dev/", StringComparison.Ordinal)
            && found.Mount.Source.StartsWith("/dev/", StringComparison.Ordinal)
            && RealDevice(wanted.Source) == RealDevice(found.Mount.Source);
    }

    private static string RealDevice(string path)
    {
        try
        {
            return File.ResolveLinkTarget(path, returnFinalTarget: true)?.FullName ?? path;
        }
        catch (IOException)
        {
            return path;
        }
    }

    private static bool OptionsMatch(MountSpec wanted, ObservedMount found)
    {
        var present = new HashSet<string>(found.MountOptions, StringComparer.Ordinal);
        foreach (var option in Restricting)
            if (present.Contains(option) && !wanted.Options.Contains(option)) return false;
        var super = found.SuperOptions.Select(Canonical).ToHashSet(StringComparer.Ordinal);
        var byHelper = !FilesystemCatalog.IsKernelType(wanted.FsType);
        foreach (var option in wanted.Options)
        {
            if (Defaults.Contains(option)) continue;
            if (MountPlan.IsAttribute(option))
            {
                // strictatime shows as the absence of the others.
                var holds = option == "strictatime" ? !present.Contains("relatime") && !present.Contains("noatime") : present.Contains(option);
                if (!holds) return false;
            }
            else if (byHelper)
            {
                if (!HelperComparison.OptionHolds(option, found.SuperOptions)) return false;
            }
            else if (wanted.FsType == "overlay" && Overlay.IsLayerKey(option.Split('=')[0]))
            {
                // Compared together below: the kernel shows them one by one.
            }
            else if (!super.Contains(Canonical(option)) && !present.Contains(option)) return false;
        }
        return wanted.FsType != "overlay" || Layers(wanted.Options).SequenceEqual(Layers(found.SuperOptions));
    }

    private static IEnumerable<string> Layers(IEnumerable<string> options)
    {
        var plan = MountPlan.Of(new MountSpec("overlay", "overlay", [.. options]));
        // Lower layers are a sequence, the other two are names: a stable order makes them comparable.
        return Overlay.LayersOf(plan).Where(layer => layer.Path.Length > 0).OrderBy(layer => layer.Key, StringComparer.Ordinal)
            .Select(layer => $"{layer.Key}={layer.Path}");
    }

    /// <summary>Sizes in bytes, modes without leading zeros: <c>size=1G</c> and <c>size=1048576k</c> become the same.</summary>
    private static string Canonical(string option)
    {
        var equals = option.IndexOf('=', StringComparison.Ordinal);
        if (equals < 0) return option;
        var (key, value) = (option[..equals], option[(equals + 1)..]);
        if (key == "mode") return $"mode={value.TrimStart('0')}";
        if (key is not ("size" or "nr_inodes" or "nr_blocks")) return option;
        var unit = value.Length == 0 ? '\0' : char.ToLowerInvariant(value[^1]);
        var shift = unit switch { 'k' => 10, 'm' => 20, 'g' => 30, 't' => 40, _ => 0 };
        var digits = shift == 0 ? value : value[..^1];
        if (!ulong.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out var number)) return option;
        var total = number << shift;
        // tmpfs rounds to whole pages.
        if (key == "size") total = (total + 4095) & ~4095UL;
        return $"{key}={total.ToString(CultureInfo.InvariantCulture)}";
    }
}
