using System.Globalization;
using MountLedger.Linux.Interop;
using MountLedger.Wire;

namespace MountLedger.Linux;

/// <summary>Whose mount table is served, and whether this process may change it.</summary>
internal static class NamespaceExamination
{
    // Numbers of linux/capability.h.
    private static readonly (int Number, string Name, bool Needed, string For)[] Wanted =
    [
        (21, "CAP_SYS_ADMIN", true, "to mount and unmount"),
        (1, "CAP_DAC_OVERRIDE", true, "to make and remove directories that others own"),
        (2, "CAP_DAC_READ_SEARCH", false, "to pass through directories of others"),
        (19, "CAP_SYS_PTRACE", false, "to see which processes keep a mount busy"),
    ];

    public static IEnumerable<DoctorFinding> Namespace()
    {
        const string Area = "namespace";
        var own = PathCalls.ReadLink("/proc/self/ns/mnt");
        var first = PathCalls.ReadLink("/proc/1/ns/mnt");
        yield return own is null
            ? DoctorFinding.Note(Area, "mounts", "cannot be told: /proc/self/ns/mnt cannot be read")
            : first is null
                ? DoctorFinding.Note(Area, "mounts", $"{own} is served; whether it is the host's cannot be told (/proc/1/ns/mnt cannot be read)")
                : own == first
                    ? DoctorFinding.Ok(Area, "mounts", $"{own} is served, that of process 1")
                    : DoctorFinding.Note(
                        Area, "mounts",
                        $"{own} is served, process 1 is in {first}: what is mounted here is seen there only where propagation carries it",
                        "to serve that of process 1, start mountledgerd there: nsenter --target 1 --mount mountledgerd …");
        var users = File.Exists("/proc/self/uid_map") ? File.ReadAllText("/proc/self/uid_map").Split(null as char[], StringSplitOptions.RemoveEmptyEntries) : [];
        if (users is ["0", "0", "4294967295"]) yield return DoctorFinding.Ok(Area, "users", "the host's user namespace");
        else yield return DoctorFinding.Note(
            Area, "users", "a user namespace of its own: the kernel lets it mount tmpfs, overlay, bind and FUSE, and no disks",
            "run mountledgerd as the host's root if disks are to be mounted");
    }

    public static IEnumerable<DoctorFinding> Capabilities()
    {
        const string Area = "permissions";
        var status = File.ReadLines("/proc/self/status").FirstOrDefault(line => line.StartsWith("CapEff:", StringComparison.Ordinal));
        if (status is null || !ulong.TryParse(status.AsSpan(7).Trim(), NumberStyles.HexNumber, CultureInfo.InvariantCulture, out var effective))
        {
            yield return DoctorFinding.Note(Area, "capabilities", "cannot be told: /proc/self/status does not say");
            yield break;
        }
        var missing = Wanted.Where(capability => (effective & (1UL << capability.Number)) == 0).ToList();
        if (missing.Count == 0) yield return DoctorFinding.Ok(Area, "capabilities", "the worker has those that it needs");
        foreach (var (_, name, needed, purpose) in missing)
        {
            var says = $"the worker lacks {name}, which it needs {purpose}";
            var remedy = $"run mountledgerd as root, with {name} in its bounding set (systemd: CapabilityBoundingSet; container: cap_add)";
            yield return needed
                ? DoctorFinding.Shortfall(Area, name, says, remedy)
                : DoctorFinding.Note(Area, name, says, remedy);
        }
    }
}
