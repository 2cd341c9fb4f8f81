using System.Collections.Immutable;

namespace MountLedger.Linux;

/// <summary>
/// Whether an observed mount is what a spec asks for, by meaning: the kernel shows <c>size=1048576k</c> for <c>size=1G</c>,
/// the filesystem's own type for <c>bind</c>, and <c>/dev/loop3</c> for an image.
/// </summary>
internal static class MountComparison
{
    // An attribute that is there although nobody asked for it makes a different mount.
    private static readonly HashSet<string> Restricting = new(StringComparer.Ordinal) { "ro", "noexec", "nosymfollow", "noatime", "nodiratime" };

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
        if (!MountPlan.IsKernelType(wanted.FsType)) return HelperComparison.SourcesMatch(wanted, found.Mount);
        if (LoopDevices.BackingFile(found.Mount.Source) is { } file) return file == wanted.Source;
        return wanted.Source.StartsWith("/dev/", StringComparison.Ordinal)
            && found.Mount.Source.StartsWith("/dev/", StringComparison.Ordinal)
            && RealDevice(wanted.Source) == RealDevice(found.Mount.Source);
    }

    /// <summary>The device that a name such as /dev/disk/by-uuid/… stands for.</summary>
    public static string RealDevice(string path)
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
        if (UnaskedAttributes(wanted, found.MountOptions) is { Count: > 0 } unasked && !unasked.IsSubsetOf(Inherited(wanted))) return false;
        // A disk's filesystem that has turned itself read-only, after errors say, is not what was asked for.
        if (MountPlan.Of(wanted) is { IsOnBlockDevice: true, ReadOnly: false } && (found.SuperOptions.Contains("ro") || found.SuperOptions.Contains("emergency_ro")))
            return false;
        var byHelper = !MountPlan.IsKernelType(wanted.FsType);
        foreach (var option in wanted.Options)
        {
            // Layers are compared together below: the kernel shows them one by one.
            if (wanted.FsType == "overlay" && Overlay.IsLayerKey(Filesystem.KeyOf(option))) continue;
            var holds = byHelper && !MountPlan.IsAttribute(option)
                ? HelperComparison.OptionHolds(option, found.SuperOptions)
                : OptionMeaning.Holds(wanted.FsType, option, found.MountOptions, found.SuperOptions);
            if (!holds) return false;
        }
        return wanted.FsType != "overlay" || Layers(wanted.Options).SequenceEqual(Layers(found.SuperOptions));
    }

    /// <summary>Attributes of the mount that make it another one than the spec asks for, because it does not name them.</summary>
    private static HashSet<string> UnaskedAttributes(MountSpec wanted, ImmutableArray<string> present)
    {
        var unasked = Restricting.Where(option => present.Contains(option) && !wanted.Options.Contains(option)).ToHashSet(StringComparer.Ordinal);
        if (IsStrictAtime(present) && !wanted.Options.Contains("strictatime")) unasked.Add("strictatime");
        return unasked;
    }

    /// <summary>What a bind mount has without being asked, because the mount that it was made from has it.</summary>
    private static ImmutableArray<string> Inherited(MountSpec wanted) =>
        wanted.FsType == "bind" && MountTable.AttributesOf(wanted.Source) is { } words ? IsStrictAtime(words) ? words.Add("strictatime") : words : [];

    /// <summary>It shows as the absence of the others.</summary>
    private static bool IsStrictAtime(ImmutableArray<string> words) => !words.Contains("relatime") && !words.Contains("noatime");

    private static IEnumerable<string> Layers(IEnumerable<string> options)
    {
        var plan = MountPlan.Of(new MountSpec("overlay", "overlay", [.. options]));
        // Lower layers are a sequence, the other two are names: a stable order makes them comparable.
        return Overlay.LayersOf(plan).Where(layer => layer.Path.Length > 0).OrderBy(layer => layer.Key, StringComparer.Ordinal)
            .Select(layer => $"{layer.Key}={layer.Path}");
    }
}
