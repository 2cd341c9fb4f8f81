using System.Collections.Immutable;

namespace MountLedger.Wire;

/// <summary>
/// <c>Ok</c>: as it should be. <c>Note</c>: something does less than it could, or cannot be told; the agent works all the same.
/// <c>Shortfall</c>: something that is promised does not hold or does not work; <c>doctor</c> exits with 1.
/// </summary>
public enum DoctorLevel { Ok, Note, Shortfall }

/// <summary>
/// One thing that <c>doctor</c> looked at. <paramref name="Area"/> and <paramref name="Name"/> stay the same from version to version;
/// <paramref name="Remedy"/> says what to do (never null for a shortfall), and <paramref name="Command"/>, where one line of shell does it
/// for now, is that line.
/// </summary>
public sealed record DoctorFinding(
    string Area, string Name, DoctorLevel Level, string Says, string? Remedy = null, string? Command = null)
{
    public static DoctorFinding Ok(string area, string name, string says) => new(area, name, DoctorLevel.Ok, says);

    public static DoctorFinding Note(string area, string name, string says, string? remedy = null, string? command = null) =>
        new(area, name, DoctorLevel.Note, says, remedy, command);

    public static DoctorFinding Shortfall(string area, string name, string says, string remedy, string? command = null) =>
        new(area, name, DoctorLevel.Shortfall, says, remedy, command);

    /// <summary>A word as a shell takes it literally.</summary>
    public static string Quoted(string word) =>
        word.Length > 0 && word.All(c => char.IsAsciiLetterOrDigit(c) || c is '/' or '.' or '-' or '_' or '=' or ':' or ',')
            ? word : $"'{word.Replace("'", "'\\''", StringComparison.Ordinal)}'";
}

/// <summary><c>GET /v1/doctor</c> and <c>mountledger doctor --json</c>. <paramref name="Host"/> null: no agent said which host this is.</summary>
public sealed record DoctorView(string? Host, ImmutableArray<DoctorFinding> Findings)
{
    /// <summary>There is no shortfall.</summary>
    public bool Well => !Findings.Any(finding => finding.Level == DoctorLevel.Shortfall);
}
