using MountLedger.Wire;

namespace MountLedger.Linux;

/// <summary>
/// For which types the program that mounts them is installed. That one is missing is a note, not a shortfall: nobody may want the type. One that
/// others may write is a shortfall: it would not be run.
/// </summary>
internal static class ProgramExamination
{
    private const string Area = "helpers";

    /// <summary>Names of Debian's packages.</summary>
    private static readonly Dictionary<string, string> Packages = new(StringComparer.Ordinal)
    {
        ["nfs"] = "nfs-common",
        ["nfs4"] = "nfs-common",
        ["cifs"] = "cifs-utils",
        ["smb3"] = "cifs-utils",
        ["glusterfs"] = "glusterfs-client",
        ["ceph"] = "ceph-common",
        ["fuse.sshfs"] = "sshfs",
        ["fuse.bindfs"] = "bindfs",
        ["fuse.rclone"] = "rclone",
        ["fuse.s3fs"] = "s3fs",
    };

    private static IEnumerable<string> Types => FilesystemCatalog.All.Where(filesystem => filesystem.ByHelper)
        .Select(filesystem => filesystem.Type).Order(StringComparer.Ordinal);

    /// <summary>A program that makes FUSE mounts is installed, so somebody may want them.</summary>
    public static bool HasFuseProgram(IReadOnlyList<string> directories) =>
        Types.Any(type => type.StartsWith("fuse.", StringComparison.Ordinal) && Look(type, directories).Level == DoctorLevel.Ok);

    public static IEnumerable<DoctorFinding> Programs(IReadOnlyList<string> directories) => Types.Select(type => Look(type, directories));

    private static DoctorFinding Look(string type, IReadOnlyList<string> directories)
    {
        try
        {
            if (HelperProgram.Find(type, directories) is { } path) return DoctorFinding.Ok(Area, type, path);
        }
        catch (KernelFailure unsafeProgram)
        {
            return DoctorFinding.Shortfall(Area, type, unsafeProgram.Message, "let only its owner write it");
        }
        var names = string.Join(" or ", HelperProgram.NamesOf(type));
        return DoctorFinding.Note(
            Area, type, $"{names} is not installed: {type} cannot be mounted", "install it if the type is wanted (package names are Debian's)",
            Packages.TryGetValue(type, out var package) ? $"apt-get install -y {package}" : null);
    }
}
