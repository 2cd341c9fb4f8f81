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
    /// <param name="roots">The directories below which mountpoints may lie.</param>
    /// <param name="helperDirectories">Where programs that mount are looked for.</param>
    public static ImmutableArray<DoctorFinding> Run(IReadOnlyList<string> roots, IReadOnlyList<string> helperDirectories)
    {
        (string Area, Func<IEnumerable<DoctorFinding>> Look)[] parts =
        [
            ("kernel", KernelExamination.Calls),
            ("kernel", KernelExamination.Filesystems),
            ("namespace", NamespaceExamination.Namespace),
            ("permissions", NamespaceExamination.Capabilities),
            ("roots", () => RootExamination.Roots(roots)),
            ("limits", LimitExamination.Limits),
            ("devices", () => LimitExamination.Devices(helperDirectories)),
            ("helpers", () => ProgramExamination.Programs(helperDirectories)),
        ];
        var findings = ImmutableArray.CreateBuilder<DoctorFinding>();
        foreach (var (area, look) in parts)
        {
            try
            {
                findings.AddRange(look());
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
