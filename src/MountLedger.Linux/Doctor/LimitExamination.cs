using MountLedger.Linux.Interop;
using MountLedger.Wire;

namespace MountLedger.Linux;

/// <summary>Limits of the kernel and device nodes that mounts need.</summary>
internal static class LimitExamination
{
    private const string MountMaxFile = "/proc/sys/fs/mount-max";
    private const string UserNamespacesFile = "/proc/sys/user/max_user_namespaces";

    /// <summary>The kernel's own default of fs.mount-max.</summary>
    private const long MountMaxUsual = 100_000;

    public static IEnumerable<DoctorFinding> Limits()
    {
        const string Area = "limits";
        var used = CountMounts();
        if (HostExamination.NumberIn(MountMaxFile) is { } mountMax)
        {
            // Beyond the limit a mount is made and cannot be attached (ENOSPC).
            var wanted = Math.Max(MountMaxUsual, used * 4);
            yield return mountMax < MountMaxUsual || used > mountMax * 4 / 5
                ? DoctorFinding.Shortfall(
                    Area, "fs.mount-max", $"{mountMax} mounts are allowed in a namespace, {used} are there",
                    "raise it, and keep it in /etc/sysctl.d", $"echo {wanted} > {MountMaxFile}")
                : DoctorFinding.Ok(Area, "fs.mount-max", $"{mountMax} mounts are allowed in a namespace, {used} are there");
        }
        else
        {
            yield return DoctorFinding.Note(Area, "fs.mount-max", "cannot be told: /proc/sys cannot be read");
        }
        if (HostExamination.NumberIn(UserNamespacesFile) is { } namespaces)
        {
            yield return namespaces > 0
                ? DoctorFinding.Ok(Area, "user-namespaces", $"{namespaces} are allowed")
                : DoctorFinding.Note(
                    Area, "user-namespaces",
                    "none is allowed: a PostgreSQL of the agent's own needs one where its account cannot pass through to the state directory",
                    "allow them, or let the account pass", $"echo 15000 > {UserNamespacesFile}");
        }
    }

    public static IEnumerable<DoctorFinding> Devices(IReadOnlyList<string> helperDirectories)
    {
        const string Area = "devices";
        yield return File.Exists("/dev/loop-control")
            ? DoctorFinding.Ok(Area, "loop", "/dev/loop-control is there: images can be mounted")
            : DoctorFinding.Shortfall(
                Area, "loop", "there is no /dev/loop-control: images (ext4, xfs, btrfs, squashfs) cannot be mounted",
                "load the module loop, or make the node; a container needs the devices of the host",
                "mknod -m 0660 /dev/loop-control c 10 237");
        if (File.Exists("/dev/fuse")) yield return DoctorFinding.Ok(Area, "fuse", "/dev/fuse is there");
        else
        {
            const string Says = "there is no /dev/fuse: FUSE filesystems cannot be mounted";
            const string Remedy = "load the module fuse, or make the node; a container needs --device /dev/fuse";
            const string Command = "mknod -m 0666 /dev/fuse c 10 229";
            yield return ProgramExamination.HasFuseProgram(helperDirectories)
                ? DoctorFinding.Shortfall(Area, "fuse", Says, Remedy, Command)
                : DoctorFinding.Note(Area, "fuse", Says, Remedy, Command);
        }
    }

    private static long CountMounts()
    {
        var ids = new List<ulong>();
        return MountQueryCalls.List(MountQueryCalls.LSMT_ROOT, MountInfoReader.MountsMax, ids) == 0
            ? ids.Count : File.ReadLines("/proc/self/mountinfo").LongCount();
    }
}
