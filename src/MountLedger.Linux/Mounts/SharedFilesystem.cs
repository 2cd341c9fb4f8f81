using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// One filesystem, mounted a second time. The kernel then hands out the filesystem that is there already, with the options that it
/// has, whatever is asked for: so that is refused unless both mean the same. And two overlays that write into one directory
/// ruin each other, of which the kernel only warns.
/// </summary>
internal static class SharedFilesystem
{
    /// <summary>Called when a device has a filesystem in use already, before that one is shared.</summary>
    /// <exception cref="KernelFailure"><c>EBUSY</c>: its options are others, or cannot be seen.</exception>
    public static void RefuseOtherOptions(MountPlan plan, string device)
    {
        var mounted = MountOf(device);
        if (mounted is null)
            throw new KernelFailure(
                Errno.EBUSY, $"{device} is in use, and not by a mount that can be seen here (one that is just being made, another mount namespace, a RAID): its options cannot be compared");
        if (mounted.FsType != plan.Spec.FsType)
            throw new KernelFailure(Errno.EBUSY, $"{device} is mounted at {mounted.Path} as {mounted.FsType}");
        if (Differences(plan, mounted) is { Count: > 0 } differences)
            throw new KernelFailure(
                Errno.EBUSY, $"{device} is mounted at {mounted.Path} already, and one filesystem has one set of options: {string.Join(", ", differences)}; ask for the same options, or unmount the other one first");
    }

    /// <exception cref="KernelFailure"><c>EBUSY</c>: another overlay writes there.</exception>
    public static void RefuseSharedLayers(MountPlan plan, IEnumerable<(string Mountpoint, MountPlan Plan)> beingMade)
    {
        var written = WrittenLayers(plan);
        if (written.Count == 0) return;
        var others = Table().Where(entry => entry.Mount.FsType == "overlay")
            .Select(entry => (entry.Mount.Path, MountPlan.Of(new MountSpec("overlay", "overlay", entry.Mount.SuperOptions))))
            .Concat(beingMade);
        foreach (var (mountpoint, other) in others)
        {
            if (WrittenLayers(other).FirstOrDefault(layer => written.Contains(layer)) is { } shared)
                throw new KernelFailure(
                    Errno.EBUSY, $"{shared} is the upperdir or workdir of the overlay at {mountpoint} already: two that write there would ruin each other");
        }
    }

    public static bool IsMounted(string device) => MountOf(device) is not null;

    private static ObservedMount? MountOf(string device)
    {
        var real = MountComparison.RealDevice(device);
        return Table().Select(entry => entry.Mount)
            .FirstOrDefault(mount => mount.Source.StartsWith("/dev/", StringComparison.Ordinal) && MountComparison.RealDevice(mount.Source) == real);
    }

    internal static List<MountInfoEntry> Table()
    {
        try
        {
            return MountInfoReader.Read(out _);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Without the table nobody can say that it is safe.
            var errno = e is UnauthorizedAccessException ? Errno.EACCES : e.HResult is > 0 and < 4096 ? e.HResult : Errno.EIO;
            throw new KernelFailure(errno, "the mount table cannot be read");
        }
    }

    private static List<string> Differences(MountPlan plan, ObservedMount mounted)
    {
        // Subvolumes of one btrfs are mounted side by side; which one it is belongs to the mount, not to the filesystem.
        static bool IsOfFilesystem(string option) =>
            !MountPlan.IsAttribute(option) && Filesystem.KeyOf(option) is not ("subvol" or "subvolid" or "loop" or "defaults");
        var type = plan.Spec.FsType;
        var shown = mounted.SuperOptions;
        var wanted = plan.Spec.Options.Where(IsOfFilesystem).ToList();
        var differences = wanted.Where(option => !OptionMeaning.Holds(type, option, mounted.MountOptions, shown)).Select(option => $"{option} is not set there")
            .Concat(OptionMeaning.Unasked(type, wanted, shown).Select(option => $"{option} is set there")).ToList();
        if (plan.ReadOnly != shown.Contains("ro")) differences.Add(plan.ReadOnly ? "it is writable there" : "it is read-only there");
        return differences;
    }

    private static List<string> WrittenLayers(MountPlan plan) =>
        [.. plan.Parameters.Where(parameter => parameter.Key is "upperdir" or "workdir" && parameter.Value is { Length: > 0 }).Select(parameter => parameter.Value!)];
}
