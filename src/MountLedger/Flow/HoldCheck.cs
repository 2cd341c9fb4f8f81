using System.Collections.Immutable;
using Microsoft.Extensions.Logging;

namespace MountLedger;

/// <summary>
/// Rule 2 answers a further attach when the mount holds. The ledger knows that it was made, not that it is still there: so before a
/// caller is told so although nothing is done for it, the kernel is asked, and what it says is recorded.
/// </summary>
public sealed class HoldCheck(AgentIdentity agent, IMountHost host, ServerProbes servers, MountJournal journal, TimeProvider time, ILogger logger)
{
    /// <summary>A worker that does not answer is no reason to keep a caller waiting who needs nothing from it.</summary>
    private static readonly TimeSpan LookMax = TimeSpan.FromMilliseconds(500);

    /// <summary>
    /// Longer than the host gives a server to answer, so that one that hangs is told as such; from the second question on that takes no
    /// time. Only a mount that may block is asked at all.
    /// </summary>
    private static readonly TimeSpan ProbeMax = TimeSpan.FromSeconds(4);

    /// <returns>Null: it holds, as far as can be seen. Else what to do instead.</returns>
    public async Task<Finding?> LookAsync(MountState state)
    {
        // A remount in flight says itself what became of the mount, and a look follows it; what was recorded now would not count.
        if (state.Operation is not null) return null;
        // First, as the worker that looks at such places may have to be started for it.
        var answer = await AskAsync(state);
        if (await ObserveAsync(state.Mountpoint) is not { } seen || state.Kernel is not { } kernel) return null;

        // Without unique ids, that something is mounted there must do; whether it is ours, the start-up comparison asks by meaning.
        bool IsOurs(ObservedMount mount) => kernel.IsOf(host.Identity) && (kernel.MountId is null || mount.MountId == kernel.MountId);
        if (seen.Top is { } top && IsOurs(top)) return await StaleAsync(state, answer);
        if (seen.Mounts.Any(IsOurs)) return new Finding.Covered(seen.Top!.Described);

        var elsewhere = kernel.MountId is { } id ? await host.FindAsync(id, CancellationToken.None) : null;
        // Something is mounted on a directory above: it is where it was, and nobody who follows the path finds it.
        if (elsewhere?.Path == state.Mountpoint) return new Finding.Covered("a mount on a directory above it");
        var (kind, detail) = elsewhere is null
            ? (DriftKind.Missing, "unmounted by somebody else")
            : (DriftKind.Moved, $"now at {elsewhere.Path}");
        if (!state.Drift.ContainsKey(kind))
        {
            logger.Drift(kind, state.Mountpoint, detail);
            await journal.RecordOutcomeAsync(
                state,
                newest => newest.Version == state.Version ? [new MountEvent.DriftDetected(kind, detail)] : ImmutableArray<MountEvent>.Empty,
                agent.Own(), CancellationToken.None);
        }
        return elsewhere is null ? new Finding.Gone() : new Finding.Moved(elsewhere.Path);
    }

    private async Task<ServerAnswer?> AskAsync(MountState state)
    {
        using var patience = new CancellationTokenSource(ProbeMax, time);
        try
        {
            return await servers.AskAsync(state, patience.Token);
        }
        catch (OperationCanceledException)
        {
            return null;
        }
    }

    /// <summary>Whether the mount that is in place answers. When nobody can tell, it holds.</summary>
    private async Task<Finding?> StaleAsync(MountState state, ServerAnswer? answer)
    {
        var changes = StaleRules.Compare(state, answer);
        if (!changes.IsEmpty)
        {
            foreach (var change in changes)
            {
                if (change is MountEvent.DriftDetected found) logger.Drift(found.Kind, state.Mountpoint, found.Detail);
                if (change is MountEvent.DriftResolved over) logger.DriftOver(over.Kind, state.Mountpoint, over.Detail);
            }
            await journal.RecordOutcomeAsync(
                state, newest => newest.Version == state.Version ? changes : [], agent.Own(), CancellationToken.None);
        }
        return StaleRules.Explain(answer?.Errno) is { } why ? new Finding.Stale(answer!.Errno!, why) : null;
    }

    private async Task<Observation?> ObserveAsync(string mountpoint)
    {
        using var patience = new CancellationTokenSource(LookMax, time);
        try
        {
            return await host.ObserveAsync(mountpoint, wanted: null, patience.Token);
        }
        catch (OperationCanceledException)
        {
            return null;
        }
    }

    /// <summary>Why a mount that the ledger knows does not hold.</summary>
    public abstract record Finding
    {
        private Finding() { }

        /// <summary>It is nowhere; that is recorded, and it is made again.</summary>
        public sealed record Gone : Finding;

        /// <summary>It is at another path.</summary>
        public sealed record Moved(string To) : Finding;

        /// <summary>Something foreign is mounted on top of it.</summary>
        public sealed record Covered(string By) : Finding;

        /// <summary>It is in place, and its server is dead or hangs.</summary>
        public sealed record Stale(string Errno, string Why) : Finding;
    }
}
