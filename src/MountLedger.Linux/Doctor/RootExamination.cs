using System.Globalization;
using MountLedger.Linux.Interop;
using MountLedger.Wire;

namespace MountLedger.Linux;

/// <summary>
/// The roots: whether they are there, whether somebody but root can swap a directory on the way to them, and whether what is mounted in them is
/// seen elsewhere.
/// </summary>
internal static class RootExamination
{
    private const string Area = "roots";
    private const uint Sticky = 0x200;
    private const uint WritableByOthers = 0x12;
    private const ulong NoLinks = PathCalls.RESOLVE_NO_SYMLINKS | PathCalls.RESOLVE_NO_MAGICLINKS;

    public static IEnumerable<DoctorFinding> Roots(IReadOnlyList<string> roots) => roots.SelectMany(Root);

    private static IEnumerable<DoctorFinding> Root(string root)
    {
        var number = PathCalls.OpenAt(PathCalls.AT_FDCWD, root, PathCalls.O_PATH | PathCalls.O_DIRECTORY, NoLinks, out var errno);
        if (number < 0)
        {
            var quoted = DoctorFinding.Quoted(root);
            yield return errno switch
            {
                Errno.ELOOP => DoctorFinding.Shortfall(
                    Area, root, "leads through a symbolic link, and links are not followed", "configure the real path, which `realpath` prints"),
                Errno.ENOENT => DoctorFinding.Shortfall(Area, root, "does not exist", "make it", $"install -d -m 0755 {quoted}"),
                Errno.ENOTDIR => DoctorFinding.Shortfall(
                    Area, root, "is not a directory", "make a directory there, or configure another root"),
                _ => DoctorFinding.Shortfall(Area, root, $"cannot be opened: {Errno.Name(errno)}", "make it accessible to root, or configure another root"),
            };
            yield break;
        }
        using var opened = new Descriptor(number);
        var risks = Risks(root).ToList();
        if (risks.Count == 0) yield return DoctorFinding.Ok(Area, root, "only root can change the way to it");
        foreach (var risk in risks) yield return risk;
        yield return Propagation(root, opened);
    }

    /// <summary>
    /// Whoever may write to a directory on the way can rename what is in it, and put another directory in its place. A sticky directory
    /// (/tmp) lets nobody rename what root owns.
    /// </summary>
    private static IEnumerable<DoctorFinding> Risks(string root)
    {
        for (var end = 0; end >= 0 && end < root.Length; end = end + 1 < root.Length ? root.IndexOf('/', end + 1) : -1)
        {
            if (Risk(end == 0 ? "/" : root[..end]) is { } risk) yield return risk;
        }
        if (root != "/" && Risk(root) is { } own) yield return own;
    }

    private static DoctorFinding? Risk(string directory)
    {
        var number = PathCalls.OpenAt(PathCalls.AT_FDCWD, directory, PathCalls.O_PATH | PathCalls.O_DIRECTORY, NoLinks, out _);
        if (number < 0) return null;
        using var opened = new Descriptor(number);
        if (MountQueryCalls.Describe(opened.Number, out var facts) != 0) return null;
        var mode = facts.Mode & 0xFFFu;
        const string Why = "can swap what is below it while it is being mounted to; what follows is found and undone, and can keep mounts from succeeding";
        var quoted = DoctorFinding.Quoted(directory);
        if (facts.Uid != 0)
        {
            var name = UserNames.Of(facts.Uid);
            return DoctorFinding.Shortfall(Area, directory, $"belongs to {name}, who {Why}", "let root own it", $"chown 0:0 {quoted}");
        }
        return (mode & WritableByOthers) != 0 && (mode & Sticky) == 0
            ? DoctorFinding.Shortfall(
                Area, directory,
                $"others than root may write to it (mode {Convert.ToString(mode, 8)}): who does so {Why}", "let only root write to it",
                $"chmod go-w {quoted}")
            : null;
    }

    private static DoctorFinding Propagation(string root, Descriptor opened)
    {
        var name = $"propagation of {root}";
        if (MountQueryCalls.Describe(opened.Number, out var facts) != 0) return DoctorFinding.Note(Area, name, "cannot be told");
        var row = Rows().FirstOrDefault(row => facts.MountId is { } id && MountTable.ById(id) is { } mount
            ? row.Id == mount.OldId : row.Id == facts.OldMountId);
        if (row.Point is null) return DoctorFinding.Note(Area, name, "cannot be told: its mount is not in the table");
        if (row.Tags.Any(tag => tag.StartsWith("shared:", StringComparison.Ordinal)))
            return DoctorFinding.Ok(Area, name, $"shared ({row.Point}): containers that take part see what is mounted");
        return DoctorFinding.Note(
            Area, name,
            $"{(row.Tags.Any(tag => tag.StartsWith("master:", StringComparison.Ordinal)) ? "slave" : "private")} ({row.Point}): "
            + "other mount namespaces, those of containers among them, do not see what is mounted below it",
            "make it shared before the containers start", $"mount --make-shared {DoctorFinding.Quoted(row.Point)}");
    }

    /// <summary>Id, mount point and optional fields of the table's rows; the parser of the executor has no use for the last.</summary>
    private static IEnumerable<(uint Id, string Point, string[] Tags)> Rows()
    {
        foreach (var line in File.ReadLines("/proc/self/mountinfo"))
        {
            var fields = line.Split(' ');
            var dash = Array.IndexOf(fields, "-", 6);
            if (dash < 6 || !uint.TryParse(fields[0], NumberStyles.None, CultureInfo.InvariantCulture, out var id)) continue;
            yield return (id, MountInfoParser.Text(System.Text.Encoding.UTF8.GetBytes(fields[4])), fields[6..dash]);
        }
    }
}
