using System.Collections.Immutable;

namespace MountLedger;

/// <summary>One line of a reconciliation. <paramref name="Outcome"/>: <c>planned</c>, <c>done</c>, <c>left</c> or <c>failed</c>, with <paramref name="Note"/>.</summary>
public sealed record RepairResult(string Mountpoint, RepairPlan Plan, string Outcome, string? Note);

/// <summary>
/// What an operator does about drift: pauses and resumes the automatic repair of a mountpoint, and asks for the repairs that are never done
/// unasked. Each repair looks again first, with the mountpoint in hand.
/// </summary>
public sealed class Repairs(
    AgentIdentity agent, IMountHost host, LiveStates live, MountJournal journal, MountExecutor executor, DriftCheck check, HostSwitch hostSwitch)
{
    private const int AppendAttemptsMax = 20;
    private const int StrangersMax = 16;
    private const string Superseded = "it cannot be confirmed that this agent still serves the host: nothing more was done";

    /// <summary>Pauses (with a reason) or resumes; asking for what is so already records nothing.</summary>
    /// <returns>The state after it, null when nothing was ever recorded of the mountpoint; and why nothing was done, when its version is not <paramref name="expected"/>.</returns>
    /// <exception cref="LedgerUnavailableException">The ledger is away, or another agent has taken over.</exception>
    public async Task<(MountState? State, Rejection? Rejection)> SetPausedAsync(
        string mountpoint, bool paused, string? reason, long? expected, string actor, string commandId)
    {
        for (var attempt = 0; attempt < AppendAttemptsMax; attempt++)
        {
            using var turn = await journal.EnterAsync(mountpoint);
            var state = await journal.StateAsync(mountpoint, fresh: attempt > 0 || expected is not null, CancellationToken.None);
            if (state.Version == 0) return (null, null);
            if (expected is { } version && version != state.Version) return (state, new Rejection.VersionConflict(mountpoint, version, state.Version));
            if (state.RepairPaused == paused) return (state, null);
            MountEvent change = paused ? new MountEvent.RepairPaused(reason) : new MountEvent.RepairResumed();
            if (!await AppendedAsync(state, [change], agent.For(actor, commandId))) continue;
            if (!paused) executor.Examine(mountpoint);
            return (await journal.StateAsync(mountpoint, fresh: false, CancellationToken.None), null);
        }
        throw new LedgerUnavailableException($"{mountpoint} changed {AppendAttemptsMax} times while this was recorded: try again");
    }

    /// <summary>What a reconciliation of this mountpoint, or of all, would do; in the order of the paths.</summary>
    public ImmutableArray<RepairResult> Plan(string? mountpoint) =>
    [
        .. live.Present()
            .Where(state => mountpoint is null || state.Mountpoint == mountpoint)
            .SelectMany(state => state.Drift.Keys.Select(kind =>
                new RepairResult(state.Mountpoint, RepairRules.Plan(state, kind, hostSwitch.IsUp), "planned", state.Drift[kind]))),
    ];

    /// <summary>Does what <see cref="Plan"/> shows, one mountpoint after the other, and waits for each.</summary>
    public async Task<ImmutableArray<RepairResult>> RunAsync(
        string? mountpoint, string actor, string commandId, TimeSpan waitEach, TimeProvider time, CancellationToken cancellationToken)
    {
        var results = ImmutableArray.CreateBuilder<RepairResult>();
        // Several differences of one mountpoint are one repair.
        foreach (var group in Plan(mountpoint).GroupBy(line => line.Mountpoint))
        {
            var origin = agent.For(actor, commandId);
            string? failure = null;
            if (group.Any(line => line.Plan.Kind != RepairKind.Leave))
                failure = await RepairAsync(group.Key, [.. group.Select(line => line.Plan)], origin, waitEach, time, cancellationToken);
            var after = await journal.StateAsync(group.Key, fresh: false, cancellationToken);
            foreach (var line in group)
            {
                var isOver = !after.Drift.ContainsKey(line.Plan.Drift);
                results.Add(line with
                {
                    Outcome = isOver ? "done" : line.Plan.Kind == RepairKind.Leave ? "left" : "failed",
                    Note = isOver ? null : failure ?? after.Error?.Message ?? line.Note,
                });
            }
        }
        return results.ToImmutable();
    }

    /// <returns>What went wrong; null when nothing did.</returns>
    private async Task<string?> RepairAsync(
        string mountpoint, ImmutableArray<RepairPlan> plans, AppendOrigin origin, TimeSpan wait, TimeProvider time, CancellationToken cancellationToken)
    {
        using var patience = new CancellationTokenSource(wait, time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(patience.Token, cancellationToken);
        try
        {
            long version;
            using (await executor.Gate.EnterAsync(mountpoint, either.Token))
            {
                var state = await journal.StateAsync(mountpoint, fresh: false, either.Token);
                if (state.Operation is not null || state.Uncertain) return "an operation is under way: try again";
                // Between the plan and this turn the difference may have gone, the last holder may have left, somebody may have paused.
                if (await check.LookAsync(state, either.Token) is not { } seen) return Superseded;
                state = seen;
                plans = [.. plans.Select(plan => plan.Drift).Where(state.Drift.ContainsKey).Select(drift => RepairRules.Plan(state, drift, hostSwitch.IsUp))];
                if (plans.All(plan => plan.Kind == RepairKind.Leave))
                {
                    executor.Wake(mountpoint); // What the look has found may ask for something.
                    return plans.IsEmpty ? null : plans[0].Text;
                }
                if (plans.Any(plan => plan.Kind == RepairKind.UnmountStrangers) && await UnmountStrangersAsync(state) is { } failure) return failure;
                if (plans.Any(plan => plan.Drift == DriftKind.ShadowedData))
                {
                    await journal.RecordOutcomeAsync(
                        state,
                        newest => newest.Drift.ContainsKey(DriftKind.ShadowedData)
                            ? [new MountEvent.DriftResolved(DriftKind.ShadowedData, "the files are to be covered, as was asked")] : [],
                        origin, either.Token);
                }
                var before = await journal.StateAsync(mountpoint, fresh: false, either.Token);
                await check.LookAsync(before, either.Token);
                // Before the repair can begin: an error after this is the repair's.
                version = (await journal.StateAsync(mountpoint, fresh: false, either.Token)).Version;
            }
            executor.RepairNow(mountpoint, origin);
            await live.WaitAsync(
                mountpoint,
                state => plans.All(plan => plan.Kind == RepairKind.Leave || !state.Drift.ContainsKey(plan.Drift)) || state.Error?.AtVersion > version,
                either.Token);
            return null;
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            return $"it did not come about within {wait.TotalSeconds:0} s";
        }
    }

    /// <summary>From the top down to the mount that is ours, or down to the directory when ours is gone. Never ours.</summary>
    private async Task<string?> UnmountStrangersAsync(MountState state)
    {
        for (var count = 0; count < StrangersMax; count++)
        {
            var seen = await host.ObserveAsync(state.Mountpoint, state.Kernel?.Spec ?? state.Spec, CancellationToken.None);
            if (seen.Top is not { } top) return null;
            if (state.Kernel is { } mount)
            {
                // Without ids, or when ours is not below, nobody can say where to stop.
                if (DriftRules.OursAmong(seen, mount, host.Identity) is not { } ours) return "the mount of the ledger is not at its path any more: look again";
                if (ours == top) return null;
            }
            else if (top.Matches)
            {
                return null; // The repair adopts it.
            }
            if (top.MountId is null) return "this kernel has no unique mount ids: unmount what is there by hand";
            if (live.MountpointOf(top.MountId.Value) is { } owner && owner != state.Mountpoint)
                return $"the mount of {owner} was moved there: move it back by hand";
            await journal.ConfirmLeaseAsync();
            if (!journal.MayAct) return Superseded;
            var result = await host.UnmountAsync(new UnmountOrder(state.Mountpoint, top.MountId, UnmountMode.Normal, []), CancellationToken.None);
            if (result is UnmountResult.Failed failed) return failed.Error.Message;
            if (result is UnmountResult.Unknown unknown) return unknown.Reason;
        }
        return $"more than {StrangersMax} mounts are stacked there: unmount them by hand";
    }

    private async Task<bool> AppendedAsync(MountState state, ImmutableArray<MountEvent> events, AppendOrigin origin) =>
        await journal.AppendAsync(state, events, origin, requireHostUp: false, request: null, CancellationToken.None) switch
        {
            AppendResult.Appended => true,
            AppendResult.StaleEpoch stale => throw new LedgerUnavailableException(
                $"host {agent.Host} is served by another agent now (epoch {stale.CurrentEpoch}): this one was superseded"),
            _ => false,
        };
}
