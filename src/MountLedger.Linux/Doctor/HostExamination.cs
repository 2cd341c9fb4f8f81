using System.Collections.Immutable;
using System.Globalization;
using MountLedger.Linux.Interop;
using MountLedger.Wire;

namespace MountLedger.Linux;

/// <summary>
/// What this host has, and what it lacks, seen from the worker: what is looked at here is the kernel and the directories of the roots, which
/// the agent never touches. Each part says for itself when it could not look.
/// </summary>
internal static class HostExamination
{
    private static readonly (string Area, Func<IReadOnlyList<string>, IEnumerable<DoctorFinding>> Look)[] Parts =
    [
        ("kernel", _ => KernelExamination.Calls()),
        ("kernel", _ => KernelExamination.Filesystems()),
        ("namespace", _ => NamespaceExamination.Namespace()),
        ("permissions", _ => NamespaceExamination.Capabilities()),
        ("roots", RootExamination.Roots),
        ("limits", _ => LimitExamination.Limits()),
        ("devices", _ => LimitExamination.Devices()),
        ("helpers", _ => ProgramExamination.Programs()),
    ];

    public static ImmutableArray<DoctorFinding> Run(IReadOnlyList<string> roots)
    {
        var findings = ImmutableArray.CreateBuilder<DoctorFinding>();
        foreach (var (area, look) in Parts)
        {
            try
            {
                findings.AddRange(look(roots));
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException or KernelFailure or FormatException)
            {
                findings.Add(DoctorFinding.Note(area, "unseen", $"could not be looked at: {e.Message}"));
            }
        }
        return findings.ToImmutable();
    }

    /// <summary>A number that the kernel keeps in a file of /proc; null when it does not have it.</summary>
    internal static long? NumberIn(string file) =>
        File.Exists(file) && long.TryParse(File.ReadAllText(file).Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out var number)
            ? number : null;
}
