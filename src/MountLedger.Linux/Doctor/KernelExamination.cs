using MountLedger.Linux.Interop;
using MountLedger.Wire;

namespace MountLedger.Linux;

/// <summary>Which calls and filesystems the kernel has, and what is done without those that it lacks.</summary>
internal static class KernelExamination
{
    private const string Area = "kernel";

    public static IEnumerable<DoctorFinding> Calls()
    {
        var release = KernelIdentityReader.ReadKernelRelease();
        yield return DoctorFinding.Ok(Area, "release", $"Linux {release}");

        yield return Call(
            "mount-api", KernelInterfaces.HasDetachedMounts, "fsopen, fsconfig, fsmount, open_tree, move_mount", "5.2",
            "mounts are made with mount(2) on the open directory: the kernel explains less, and a read-only bind is writable for a moment");
        yield return Call(
            "mount-setattr", KernelInterfaces.HasMountSetattr, "mount_setattr", "5.12",
            "bind mounts get their options a moment after they are there, and recursive binds with options are refused");
        yield return Call(
            "openat2", KernelInterfaces.HasOpenat2, "openat2", "5.6",
            "paths are walked one component at a time without following links: as safe, and slower");
        yield return Call(
            "statmount", KernelInterfaces.HasStatmount, "statmount", "6.8", "the whole mount table is read instead: slow with thousands of mounts");
        yield return Call(
            "listmount", KernelInterfaces.HasListmount, "listmount", "6.8", "the whole mount table is read instead: slow with thousands of mounts");
        yield return UniqueIds();
        yield return Call(
            "mount-events", ProbeCalls.FanotifyReportsMounts(), "fanotify events of mounts", "6.14",
            "changes of the mount table are found by reading it again whenever it changes: slow with thousands of mounts");
    }

    public static IEnumerable<DoctorFinding> Filesystems()
    {
        var known = File.ReadLines("/proc/filesystems").Select(line => line.Split('\t')[^1]).ToHashSet(StringComparer.Ordinal);
        var missing = FilesystemCatalog.Types.Where(type => type != "bind" && !known.Contains(type) && MountPlan.IsKernelType(type)).ToList();
        if (missing.Count == 0)
        {
            yield return DoctorFinding.Ok(Area, "filesystems", "every type that is mounted without a program of its own is in the kernel");
            yield break;
        }
        yield return DoctorFinding.Note(
            Area, "filesystems", $"not in the kernel now: {string.Join(", ", missing)}; a module is loaded at the first mount where there is one",
            "load the modules, or install the package that has them", $"modprobe -a {string.Join(' ', missing)}");
    }

    private static DoctorFinding UniqueIds()
    {
        const string Without = "mounts are told apart by their reusable id, source, type and path: a stranger's mount of the very same thing "
            + "in the same place passes for ours";
        return Call("unique-ids", KernelInterfaces.HasUniqueIds, "unique mount ids (statx, statmount and listmount together)", "6.8", Without);
    }

    private static DoctorFinding Call(string name, bool has, string calls, string since, string without) =>
        has ? DoctorFinding.Ok(Area, name, calls)
        : DoctorFinding.Note(
            Area, name, $"not here: {calls} (Linux {since}): {without}",
            $"run Linux {since} or newer; in a container, a seccomp profile that allows the calls");
}
