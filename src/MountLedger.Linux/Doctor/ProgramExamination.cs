using MountLedger.Wire;

namespace MountLedger.Linux;

/// <summary>
/// For which types the program that mounts them is installed. That one is missing is a note, not a shortfall: nobody may want the type.
/// </summary>
internal static class ProgramExamination
{
    private static readonly string[] Directories = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

    private static readonly (string Type, string Program, string Package)[] Known =
    [
        ("nfs", "mount.nfs", "nfs-common"),
        ("nfs4", "mount.nfs4", "nfs-common"),
        ("cifs", "mount.cifs", "cifs-utils"),
        ("glusterfs", "mount.glusterfs", "glusterfs-client"),
        ("ceph", "mount.ceph", "ceph-common"),
        ("fuse.sshfs", "sshfs", "sshfs"),
        ("fuse.bindfs", "bindfs", "bindfs"),
        ("fuse.rclone", "rclone", "rclone"),
        ("fuse.s3fs", "s3fs", "s3fs"),
    ];

    /// <summary>A program that makes FUSE mounts is installed, so somebody may want them.</summary>
    public static bool HasFuseProgram => Known.Any(known => known.Type.StartsWith("fuse.", StringComparison.Ordinal) && Find(known.Program) is not null);

    public static IEnumerable<DoctorFinding> Programs()
    {
        const string Area = "helpers";
        foreach (var (type, program, package) in Known)
        {
            yield return Find(program) is { } path
                ? DoctorFinding.Ok(Area, type, path)
                : DoctorFinding.Note(
                    Area, type, $"{program} is not installed: {type} cannot be mounted",
                    "install it if the type is wanted (package names are Debian's)", $"apt-get install -y {package}");
        }
        yield return Find("mount.fuse") is { } generic
            ? DoctorFinding.Ok(Area, "fuse", generic)
            : DoctorFinding.Note(
                Area, "fuse", "mount.fuse is not installed: fuse.* types cannot be mounted by their name",
                "install it if FUSE types are wanted", "apt-get install -y fuse3");
    }

    private static string? Find(string program) => Directories.Select(directory => $"{directory}/{program}").FirstOrDefault(File.Exists);
}
