using System.Collections.Immutable;
using Microsoft.Extensions.Logging;

namespace MountLedger;

/// <summary>
/// The ledger was restored from a backup while the kernel went on: marks the mountpoints that it concerns, which from then on nobody touches, and
/// carries out what an operator decides about them.
/// </summary>
public sealed class BehindDecisions(
    AgentIdentity agent, IMountHost host, LiveStates live, MountJournal journal, MountExecutor executor, IKeptHeads? heads, ILogger logger)
{
    private const int AtOnceMax = 64;
    private const int AppendAttemptsMax = 20;

    private const string Detail = "the ledger is older than what this agent has recorded here";

    /// <summary>Records the drift where it is not recorded yet. To be called with all states loaded, and before anything is acted upon.</summary>
    public async Task MarkAsync(CancellationToken cancellationToken)
    {
        if (heads is null) return;
        var behind = heads.Behind();
        foreach (var some in behind.Chunk(AtOnceMax))
            await Task.WhenAll(some.Select(line => MarkAsync(line.Mountpoint, line.Marked, cancellationToken)));
        if (behind.Count > 0) logger.LedgerBehind(agent.Host, behind.Count);
    }

    /// <summary>How many mountpoints await a decision.</summary>
    public int Count() => live.Present().Count(state => state.IsBehind);

    /// <summary>What a decision would do; in the order of the paths.</summary>
    public ImmutableArray<RepairResult> Plan(string? mountpoint, BehindChoice choice)
    {
        var kept = Kept();
        return [.. Concerned(mountpoint).Select(state => new RepairResult(
            state.Mountpoint, PlanOf(choice, kept.GetValueOrDefault(state.Mountpoint)), "planned", state.Drift[DriftKind.LedgerBehind]))];
    }

    /// <summary>Records the decision, mountpoint by mountpoint; what follows from it is done as usual.</summary>
    /// <exception cref="LedgerUnavailableException">The ledger went away; what was decided stays decided.</exception>
    public async Task<ImmutableArray<RepairResult>> RunAsync(
        string? mountpoint, BehindChoice choice, string? reason, string actor, string commandId, CancellationToken cancellationToken)
    {
        var kept = Kept();
        var results = ImmutableArray.CreateBuilder<RepairResult>();
        var text = choice == BehindChoice.KeepMounts ? "keep-mounts" : "trust-ledger";
        var detail = reason is null ? text : $"{text}: {reason}";
        foreach (var state in Concerned(mountpoint))
        {
            var known = kept.GetValueOrDefault(state.Mountpoint);
            var problem = await DecideAsync(state.Mountpoint, choice, known, detail, agent.For(actor, commandId), cancellationToken);
            results.Add(new RepairResult(state.Mountpoint, PlanOf(choice, known), problem is null ? "done" : "failed", problem));
        }
        return results.ToImmutable();
    }

    private Dictionary<string, MountState?> Kept() =>
        heads?.Behind().ToDictionary(line => line.Mountpoint, line => line.Kept, StringComparer.Ordinal) ?? [];

    private IEnumerable<MountState> Concerned(string? mountpoint) =>
        live.Present().Where(state => state.IsBehind && (mountpoint is null || state.Mountpoint == mountpoint));

    private static RepairPlan PlanOf(BehindChoice choice, MountState? kept) => new(
        DriftKind.LedgerBehind, RepairKind.Leave,
        choice == BehindChoice.KeepMounts ? BehindRules.Describe(kept) : "forget what was recorded after the backup, and reconcile with the ledger as it is");

    private async Task MarkAsync(string mountpoint, bool marked, CancellationToken cancellationToken)
    {
        var after = await journal.StateAsync(mountpoint, fresh: false, cancellationToken);
        if (marked && !after.IsBehind)
        {
            heads!.Decided(mountpoint); // The agent ended between the decision and its note of it.
            return;
        }
        if (!after.IsBehind)
        {
            await journal.RecordOutcomeAsync(
                after, newest => newest.IsBehind ? [] : [new MountEvent.DriftDetected(DriftKind.LedgerBehind, Detail)], agent.Own(), cancellationToken);
            logger.Drift(DriftKind.LedgerBehind, mountpoint, Detail);
        }
        if (!marked) heads!.Marked(mountpoint);
    }

    /// <returns>What went wrong; null when nothing did.</returns>
    private async Task<string?> DecideAsync(
        string mountpoint, BehindChoice choice, MountState? kept, string detail, AppendOrigin origin, CancellationToken cancellationToken)
    {
        using (await executor.Gate.EnterAsync(mountpoint, cancellationToken))
        {
            for (var attempt = 0; ; attempt++)
            {
                var state = await journal.StateAsync(mountpoint, fresh: attempt > 0, cancellationToken);
                if (!state.IsBehind) break; // Somebody else has decided.
                if (attempt == AppendAttemptsMax) return $"it changed {AppendAttemptsMax} times while this was recorded: try again";
                var events = choice == BehindChoice.TrustLedger
                    ? BehindRules.TrustLedger(detail)
                    : BehindRules.KeepMounts(
                        state, kept,
                        await host.ObserveAsync(mountpoint, kept?.Kernel?.Spec ?? kept?.Spec ?? state.Kernel?.Spec ?? state.Spec, cancellationToken),
                        host.Identity, detail);
                using var turn = await journal.EnterAsync(mountpoint);
                var result = await journal.AppendAsync(state, events, origin, requireHostUp: false, request: null, CancellationToken.None);
                if (result is AppendResult.Appended) break;
                if (result is AppendResult.StaleEpoch stale)
                    throw new LedgerUnavailableException($"host {agent.Host} is served by another agent now (epoch {stale.CurrentEpoch}): this one was superseded");
            }
        }
        heads?.Decided(mountpoint);
        executor.Examine(mountpoint);
        return null;
    }
}
