using System.Collections.Immutable;

namespace MountLedger;

/// <summary>What the filesystem itself said when it was asked: null when it answered, else the name of an error.</summary>
public sealed record ServerAnswer(string? Errno);

/// <summary>
/// When a mount that is in place is of no use because its server is dead or hangs (drift <c>stale</c>): pure. It is reported and never
/// replaced under who holds it: their open files and working directories would silently be on another mount than the path.
/// </summary>
public static class StaleRules
{
    private const string Dead = "detach everybody and mount it again, or unmount it with --lazy or --force";

    /// <summary>The errors that a server's death, or its silence, gives. Others (EACCES for root, say) tell nothing of the server.</summary>
    private static readonly ImmutableSortedDictionary<string, string> Meanings = new Dictionary<string, string>(StringComparer.Ordinal)
    {
        ["ENOTCONN"] = $"its server has ended: {Dead}",
        ["ECONNABORTED"] = $"its connection to the server was aborted: {Dead}",
        ["ECONNRESET"] = $"its server has closed the connection: {Dead}",
        ["ECONNREFUSED"] = $"nothing listens where its server was: start the server, or {Dead}",
        ["ESTALE"] = $"its server does not know it any more: {Dead}",
        ["EIO"] = $"it answers with an error of its device or server: see the kernel's log; then {Dead}",
        ["EHOSTDOWN"] = $"its server is down: start it, or {Dead}",
        ["EHOSTUNREACH"] = $"its server cannot be reached: repair the network, or {Dead}",
        ["ENETUNREACH"] = $"its server cannot be reached: repair the network, or {Dead}",
        ["ETIMEDOUT"] = "its server does not answer: let it answer, or end it; or unmount it with --lazy or --force",
    }.ToImmutableSortedDictionary(StringComparer.Ordinal);

    /// <summary>What this error means for the mount and what to do; null when it is none of a dead server's.</summary>
    public static string? Explain(string? errno) =>
        errno is not null && Meanings.TryGetValue(errno, out var meaning) ? $"{errno}: {meaning}" : null;

    /// <summary>What an answer changes in the ledger: recorded once, again only when the error has become another one.</summary>
    /// <param name="state">A mountpoint whose mount is in place, uncovered.</param>
    /// <param name="answer">What the filesystem said; null: nobody asked, or nobody can tell, and nothing changes.</param>
    public static ImmutableArray<MountEvent> Compare(MountState state, ServerAnswer? answer)
    {
        if (state.Operation is not null || state.Uncertain || state.Kernel is null || answer is null) return [];
        var isKnown = state.Drift.TryGetValue(DriftKind.Stale, out var known);
        if (answer.Errno is null) return isKnown ? [new MountEvent.DriftResolved(DriftKind.Stale, "it answers again")] : [];
        return Explain(answer.Errno) is { } detail && !(isKnown && known == detail) ? [new MountEvent.DriftDetected(DriftKind.Stale, detail)] : [];
    }
}
