using System.Collections.Concurrent;
using System.Collections.Immutable;
using Microsoft.Extensions.Logging;

namespace MountLedger;

/// <summary>
/// One step of work on one mountpoint: record the start, act on the kernel, record the outcome. The caller holds the
/// mountpoint (<see cref="PathGate"/>). Every method says by its result whether there may be more to do.
/// </summary>
public sealed class MountOperator(
    AgentIdentity agent, IMountHost host, LiveStates live, MountJournal journal, HostSwitch hostSwitch, TimeProvider time, ILogger logger)
{
    private readonly ConcurrentDictionary<string, AppendOrigin> _causes = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, Task> _running = new(StringComparer.Ordinal);
    private volatile bool _stopping;

    /// <summary>Nothing was done then; but it is not the caller's failure, so it is settled like everything that nobody can be sure of.</summary>
    private const string NotConfirmed = "the agent's lease may have run out, so it was not begun";

    /// <summary>Remembers on whose behalf the next operation on a mountpoint will be.</summary>
    public void ActFor(string mountpoint, AppendOrigin origin) => _causes[mountpoint] = origin;

    /// <summary>On whose behalf an operation on a mountpoint is; the agent's own unless a command asked for it.</summary>
    public AppendOrigin CauseOf(string mountpoint) => _causes.GetValueOrDefault(mountpoint) ?? agent.Own();

    /// <summary>Nothing is left to do: what comes next is nobody's behalf until somebody asks.</summary>
    public void Forget(string mountpoint) => _causes.TryRemove(mountpoint, out _);

    /// <summary>From now on no operation begins; running ones go on.</summary>
    public void Stop() => _stopping = true;

    /// <summary>The operations whose start is recorded and whose outcome is not yet.</summary>
    public IReadOnlyCollection<Task> Running() => [.. _running.Values];

    /// <summary>Whether an operation that <paramref name="state"/> asks for could begin now.</summary>
    public bool MayBegin(ActionKind action, MountState state) => action switch
    {
        _ when _stopping || journal.IsFenced => false,
        ActionKind.Mount => hostSwitch.IsUp && !live.AncestorsOf(state.Mountpoint).Any(MustComeFirst) && HiddenBy(state.Mountpoint) is null,
        ActionKind.Unmount => !live.DescendantsOf(state.Mountpoint).Any(IsInKernel),
        _ => true,
    };

    /// <summary>A managed mountpoint that a mount at this path would cover; null when there is none.</summary>
    public string? HiddenBy(string mountpoint) =>
        live.DescendantsOf(mountpoint).FirstOrDefault(IsInKernel)?.Mountpoint;

    /// <returns>True: look again. False: nothing more to do until somebody wakes this mountpoint.</returns>
    public Task<bool> StepAsync(ActionKind action, MountState state, AppendOrigin origin) => action switch
    {
        ActionKind.Mount => MountAsync(state, origin),
        ActionKind.Unmount => UnmountAsync(state, origin),
        ActionKind.Remount => RemountAsync(state, origin),
        ActionKind.Settle => SettleAsync(state),
        ActionKind.Keep => RecordWhileAsync(ActionKind.Keep, state, [new MountEvent.MountKept()], origin),
        ActionKind.Release => RecordWhileAsync(ActionKind.Release, state, OutcomeRules.Unmounted(state, released: true, []), origin),
        _ => Task.FromResult(false),
    };

    /// <summary>
    /// Carries out the operation whose start <paramref name="state"/> shows, and records its outcome.
    /// </summary>
    /// <returns>The state after it; null when this agent may not record it any more.</returns>
    public Task<MountState?> FinishAsync(MountState state, PreparedMount? prepared, AppendOrigin origin)
    {
        var operation = state.Operation ?? throw new ArgumentException("no operation has been started", nameof(state));
        _causes.TryRemove(state.Mountpoint, out _);
        var task = operation.Kind switch
        {
            OperationKind.Mount => FinishMountAsync(state, operation, prepared ?? throw new ArgumentNullException(nameof(prepared)), origin),
            OperationKind.Remount => FinishRemountAsync(state, operation, origin),
            _ => FinishUnmountAsync(state, operation, origin),
        };
        return Tracked(state.Mountpoint, task);
    }

    /// <summary>
    /// Removes the directories of a mountpoint that nobody needs any more, as far as they are empty (rule 6): for a mount that went
    /// without an unmount of ours. What cannot be removed now stays ours until the mountpoint's next mount and unmount.
    /// </summary>
    public async Task SweepAsync(MountState state)
    {
        if (_stopping || !journal.MayAct || state.IsBehind || state.Phase != Phase.Absent || state.OwnedDirectories.IsEmpty) return;
        await host.UnmountAsync(
            new UnmountOrder(state.Mountpoint, UnmountOrder.NoMount, UnmountMode.Normal, state.OwnedDirectories), CancellationToken.None);
    }

    /// <summary>The start event of a prepared mount.</summary>
    public MountEvent.MountStarted Started(PreparedMount prepared, long generation) =>
        new(generation, host.Identity.BootId, host.Identity.MountNamespaceId, prepared.MountId, prepared.DirectoriesToCreate);

    /// <summary>The start event of the unmount that <paramref name="state"/> wants.</summary>
    public static MountEvent.UnmountStarted UnmountStarted(MountState state) =>
        new(state.UnmountWanted ?? UnmountMode.Normal, state.Kernel?.BootId, state.Kernel?.MountNamespaceId, state.Kernel?.MountId);

    /// <summary>The start event of the remount that <paramref name="state"/> wants.</summary>
    public MountEvent.RemountStarted RemountStarted(MountState state) =>
        new(state.Remount!.Generation, host.Identity.BootId, host.Identity.MountNamespaceId, state.Kernel?.MountId);

    private async Task<bool> MountAsync(MountState state, AppendOrigin origin)
    {
        // Nobody is told of a failure while nothing may be tried: what hides it may be gone by the time that the host is up.
        if (!hostSwitch.IsUp) return false;
        if (HiddenBy(state.Mountpoint) is { } hidden)
        {
            return await MountFailedAsync(state, KernelError.Of(
                OperationKind.Mount, "EBUSY", new Rejection.WouldHide(state.Mountpoint, hidden).Message, transient: true), origin);
        }
        if (!MayBegin(ActionKind.Mount, state)) return false;
        if (DriftRules.MayShadowData(state) && await host.HasEntriesAsync(state.Mountpoint, CancellationToken.None) == true)
        {
            const string detail = "the directory was empty when it was mounted over and is not any more: files were written while the mount was missing";
            logger.Drift(DriftKind.ShadowedData, state.Mountpoint, detail);
            return await RecordAsync(
                state, newest => DriftRules.MayShadowData(newest) ? [new MountEvent.DriftDetected(DriftKind.ShadowedData, detail)] : [], agent.Own());
        }

        // To prepare one may run a helper or replay a journal.
        await journal.ConfirmLeaseAsync();
        if (!journal.MayAct) throw new LedgerUnavailableException(NotConfirmed); // Taken up again in a moment.
        switch (await OperationMeter.TimedAsync(time, "prepare", () => host.PrepareAsync(state.Mountpoint, state.Spec!, CancellationToken.None)))
        {
            case PrepareResult.Failed failed:
                return await MountFailedAsync(state, failed.Error, origin);

            case PrepareResult.Occupied { Found.Top: { Matches: true } found }:
                return await RecordAsync(
                    state, newest => StillWants(newest, state)
                        ? OutcomeRules.Adopted(newest, host.Identity, found.MountId) : [],
                    origin);

            case PrepareResult.Occupied { Found.Top: var found }:
                var foreign = new Rejection.ForeignMount(
                    state.Mountpoint, found?.Described ?? "of an unknown kind", found?.Differences ?? ["source"]);
                return await MountFailedAsync(
                    state, KernelError.Of(OperationKind.Mount, "EBUSY", foreign.Message, transient: true), origin);

            case PrepareResult.Ready { Mount: var prepared }:
                MountState? started = null;
                try
                {
                    if (!await StartAsync(state, Started(prepared, state.Generation), origin)) return !journal.IsFenced;
                    var newest = await journal.StateAsync(state.Mountpoint, fresh: false, CancellationToken.None);
                    if (newest.Operation is null) return false;
                    started = newest;
                }
                finally
                {
                    // Also when the ledger has gone away: if the start was recorded, it is settled as one without effect.
                    if (started is null) await host.DiscardAsync(prepared);
                }
                return await FinishAsync(started, prepared, origin) is not null;

            default: return false;
        }
    }

    private async Task<bool> UnmountAsync(MountState state, AppendOrigin origin)
    {
        var below = live.DescendantsOf(state.Mountpoint).Where(IsInKernel).ToList();
        if (below.FirstOrDefault(child => !child.Attachments.IsEmpty || child.IsBehind) is { } inUse)
        {
            var error = KernelError.Of(
                OperationKind.Unmount, "EBUSY",
                $"unmount {state.Mountpoint}: the managed mountpoint {inUse.Mountpoint} below it is in use; detach that one first",
                transient: true);
            return await RecordAsync(
                state, newest => MountFlow.NextAction(newest).Kind == ActionKind.Unmount
                    ? OutcomeRules.UnmountFailed(newest, error, time.GetUtcNow()) : [],
                origin);
        }
        if (below.Count > 0 || !MayBegin(ActionKind.Unmount, state)) return false;

        if (!await StartAsync(state, UnmountStarted(state), origin)) return !journal.IsFenced;
        var started = await journal.StateAsync(state.Mountpoint, fresh: false, CancellationToken.None);
        return started.Operation is not null && await FinishAsync(started, prepared: null, origin) is not null;
    }

    private async Task<bool> RemountAsync(MountState state, AppendOrigin origin)
    {
        if (!MayBegin(ActionKind.Remount, state)) return false;
        if (!await StartAsync(state, RemountStarted(state), origin)) return !journal.IsFenced;
        var started = await journal.StateAsync(state.Mountpoint, fresh: false, CancellationToken.None);
        return started.Operation is not null && await FinishAsync(started, prepared: null, origin) is not null;
    }

    private async Task<MountState?> FinishRemountAsync(MountState state, Operation operation, AppendOrigin origin)
    {
        var before = state.Kernel?.Spec ?? state.Spec!;
        var order = new RemountOrder(state.Mountpoint, operation.MountId, before, operation.Spec ?? before);
        await journal.ConfirmLeaseAsync();
        var result = journal.MayAct
            ? await OperationMeter.TimedAsync(time, "remount", () => host.RemountAsync(order, CancellationToken.None))
            : new RemountResult.Unknown(NotConfirmed);
        if (result is RemountResult.Failed failed)
            logger.RemountFailed(state.Mountpoint, failed.Error.Errno, failed.Error.Message);
        return await OutcomeAsync(state, operation, origin, newest => result switch
        {
            RemountResult.Remounted => [new MountEvent.Remounted(operation.Generation)],
            RemountResult.Failed f => [new MountEvent.RemountFailed(f.Error.Errno, f.Error.Message)],
            _ => Uncertain(newest, operation, ((RemountResult.Unknown)result).Reason),
        });
    }

    private async Task<bool> StartAsync(MountState state, MountEvent start, AppendOrigin origin) =>
        await journal.AppendAsync(state, [start], origin, requireHostUp: false, request: null, CancellationToken.None)
            is AppendResult.Appended;

    private async Task<MountState?> FinishMountAsync(
        MountState state, Operation operation, PreparedMount prepared, AppendOrigin origin)
    {
        await journal.ConfirmLeaseAsync();
        AttachResult result;
        if (journal.MayAct)
        {
            result = await OperationMeter.TimedAsync(time, "attach", () => host.AttachAsync(prepared, CancellationToken.None));
        }
        else
        {
            await host.DiscardAsync(prepared);
            result = new AttachResult.Unknown(NotConfirmed);
        }
        if (result is AttachResult.Failed failed)
            logger.MountFailed(state.Mountpoint, prepared.Spec, failed.Error.Errno, failed.Error.Message);
        return await OutcomeAsync(state, operation, origin, newest => result switch
        {
            AttachResult.Attached attached => OutcomeRules.Mounted(
                newest, host.Identity, attached.MountId, attached.DirectoriesCreated, attached.OverEmptyDirectory),
            AttachResult.Failed f => OutcomeRules.MountFailed(newest, f.Error, time.GetUtcNow()),
            _ => Uncertain(newest, operation, ((AttachResult.Unknown)result).Reason),
        });
    }

    private async Task<MountState?> FinishUnmountAsync(MountState state, Operation operation, AppendOrigin origin)
    {
        var order = new UnmountOrder(
            state.Mountpoint, operation.MountId, operation.Mode, state.Attachments.IsEmpty ? state.OwnedDirectories : [])
        {
            RecursiveSource = operation.Spec is { } spec && spec.Options.Contains("rbind") ? spec.Source : null,
            Expected = operation.Spec,
        };
        await journal.ConfirmLeaseAsync();
        var result = journal.MayAct
            ? await OperationMeter.TimedAsync(time, "unmount", () => host.UnmountAsync(order, CancellationToken.None))
            : new UnmountResult.Unknown(NotConfirmed);
        if (result is UnmountResult.Failed failed)
            logger.UnmountFailed(state.Mountpoint, failed.Error.Errno, failed.Error.Message);
        return await OutcomeAsync(state, operation, origin, newest => result switch
        {
            UnmountResult.Unmounted done => OutcomeRules.Unmounted(newest, released: false, done.DirectoriesRemoved),
            UnmountResult.NotMounted done => OutcomeRules.Unmounted(newest, released: false, done.DirectoriesRemoved),
            UnmountResult.Failed f => OutcomeRules.UnmountFailed(newest, f.Error, time.GetUtcNow()),
            _ => Uncertain(newest, operation, ((UnmountResult.Unknown)result).Reason),
        });
    }

    /// <summary>Rule 13: make sure that nothing can act any more, look, and record what is there.</summary>
    private async Task<bool> SettleAsync(MountState state)
    {
        if (_stopping) return false;
        if (state.Operation is not { } operation)
        {
            return await RecordAsync(
                state, newest => newest is { Uncertain: true, Operation: null }
                    ? OutcomeRules.Settled(newest, new Observation([], DirectoryExists: false), host.Identity, time.GetUtcNow()) : [],
                agent.Own());
        }
        if (!state.Uncertain)
        {
            const string reason = "its outcome was never recorded: the agent or its worker ended in between";
            logger.OutcomeUnknown(operation.Kind, state.Mountpoint, reason);
            if (await OutcomeAsync(state, operation, agent.Own(), newest => Uncertain(newest, operation, reason)) is not { } marked)
                return false;
            if (!marked.Uncertain) return true;
        }

        await host.QuiesceAsync(state.Mountpoint, CancellationToken.None);
        var found = await FindAsync(state, operation);
        var removed = await CleanUpAsync(state, operation, found);
        var settled = await journal.RecordOutcomeAsync(
            state,
            newest => newest.Operation?.StartedAtVersion != operation.StartedAtVersion
                ? []
                : [.. OutcomeRules.Settled(newest, found, host.Identity, time.GetUtcNow()).Select(change =>
                    change is MountEvent.Unmounted unmounted ? unmounted with { DirectoriesRemoved = removed } : change)],
            agent.Own(), CancellationToken.None);
        if (settled is null) return false;
        logger.Settled(operation.Kind, state.Mountpoint, settled.Phase.ToString());
        return true;
    }

    /// <summary>
    /// What is at the path, and the operation's own mount wherever it is: a stranger who has mounted over a directory above hides it from who
    /// looks at the path, and it would be made a second time.
    /// </summary>
    private async Task<Observation> FindAsync(MountState state, Operation operation)
    {
        var found = await host.ObserveAsync(state.Mountpoint, operation.Spec ?? state.Spec, CancellationToken.None);
        if (operation.MountId is not { } id || !operation.IsOf(host.Identity) || found.Mounts.Any(mount => mount.MountId == id))
            return found;
        var elsewhere = await host.FindAsync(id, CancellationToken.None);
        return elsewhere is null ? found : found with { Mounts = found.Mounts.Add(elsewhere) };
    }

    /// <summary>An unmount that took effect, whose agent did not live to remove the directories (rule 6).</summary>
    private async Task<ImmutableArray<string>> CleanUpAsync(MountState state, Operation operation, Observation found)
    {
        var done = operation.Kind == OperationKind.Unmount
            && found.Mounts.IsEmpty && state.Attachments.IsEmpty && !state.OwnedDirectories.IsEmpty;
        if (!done || !journal.MayAct) return [];
        var order = new UnmountOrder(state.Mountpoint, UnmountOrder.NoMount, UnmountMode.Normal, state.OwnedDirectories);
        return await host.UnmountAsync(order, CancellationToken.None) switch
        {
            UnmountResult.NotMounted gone => gone.DirectoriesRemoved,
            UnmountResult.Unmounted gone => gone.DirectoriesRemoved,
            _ => [],
        };
    }

    private async Task<bool> MountFailedAsync(MountState state, KernelError error, AppendOrigin origin)
    {
        _causes.TryRemove(state.Mountpoint, out _);
        logger.MountFailed(state.Mountpoint, state.Spec!, error.Errno, error.Message);
        return await RecordAsync(
            state, newest => StillWants(newest, state) ? MountNeverStarted(newest, error) : [],
            origin);
    }

    /// <summary>
    /// A mount that failed while it was being prepared: start and failure are recorded together, so that every operation
    /// of the history has both.
    /// </summary>
    public ImmutableArray<MountEvent> MountNeverStarted(MountState state, KernelError error) =>
    [
        new MountEvent.MountStarted(state.Generation, host.Identity.BootId, host.Identity.MountNamespaceId, MountId: null, DirectoriesToCreate: []),
        .. OutcomeRules.MountFailed(state, error, time.GetUtcNow()),
    ];

    private async Task<bool> RecordWhileAsync(
        ActionKind action, MountState state, ImmutableArray<MountEvent> events, AppendOrigin origin) =>
        await RecordAsync(state, newest => MountFlow.NextAction(newest).Kind == action ? events : [], origin);

    private async Task<bool> RecordAsync(
        MountState state, Func<MountState, ImmutableArray<MountEvent>> decide, AppendOrigin origin) =>
        await journal.RecordOutcomeAsync(state, decide, origin, CancellationToken.None) is not null;

    /// <summary>Records the outcome of exactly this operation, unless somebody has done so.</summary>
    private Task<MountState?> OutcomeAsync(
        MountState state, Operation operation, AppendOrigin origin, Func<MountState, ImmutableArray<MountEvent>> decide) =>
        journal.RecordOutcomeAsync(
            state,
            newest => newest.Operation?.StartedAtVersion == operation.StartedAtVersion && !newest.Uncertain ? decide(newest) : [],
            origin, CancellationToken.None);

    private static ImmutableArray<MountEvent> Uncertain(MountState state, Operation operation, string reason) =>
        state.Uncertain ? [] : [new MountEvent.OperationUncertain(operation.Kind, reason)];

    /// <summary>What was found out for <paramref name="tried"/> concerns nobody who has asked for something else since.</summary>
    private static bool StillWants(MountState newest, MountState tried) =>
        MountFlow.NextAction(newest).Kind == ActionKind.Mount && newest.Generation == tried.Generation;

    /// <summary>Where the ledger is behind nobody knows, so there may be one.</summary>
    private static bool IsInKernel(MountState state) => state.Kernel is not null || state.Operation is not null || state.IsBehind;

    /// <summary>An ancestor that is neither there for good nor gone for good.</summary>
    private static bool MustComeFirst(MountState ancestor) => ancestor.Phase is not (Phase.Mounted or Phase.Absent);

    private async Task<MountState?> Tracked(string mountpoint, Task<MountState?> operation)
    {
        _running[mountpoint] = operation;
        try
        {
            return await operation;
        }
        finally
        {
            _running.TryRemove(mountpoint, out _);
        }
    }
}
