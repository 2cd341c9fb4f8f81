using System.Collections.Immutable;

namespace MountLedger;

/// <summary>Limits of the command handler.</summary>
public sealed record HandlerOptions
{
    /// <summary>How often a command is decided again because somebody else appended first.</summary>
    public int AppendAttemptsMax { get; init; } = 50;
}

/// <summary>
/// From a command to its recorded outcome: fold, decide, append; a conflict decides again. When the decision asks for an
/// operation that can begin at once, its start is part of the same append, so that a mount costs two commits. The caller
/// then waits for the state that answers it, or for its own patience to end: what is recorded stays recorded.
/// </summary>
public sealed class CommandHandler(
    AgentIdentity agent, IMountHost host, LiveStates live, MountJournal journal, MountOperator @operator, MountExecutor executor,
    HostSwitch hostSwitch, HoldCheck holdCheck, RequestReplay replay, TimeProvider time, HandlerOptions options)
{
    /// <exception cref="LedgerUnavailableException">
    /// The ledger is away; whether anything was recorded is unknown, and the same command may be given again.
    /// </exception>
    public async Task<CommandResult> HandleAsync(MountCommand command, CancellationToken cancellationToken)
    {
        if (journal.IsFenced)
            throw new LedgerUnavailableException($"host {agent.Host} is served by another agent now: this one was superseded");
        if (command.Stream.Host != agent.Host)
            throw new ArgumentException($"this agent serves host {agent.Host}, not {command.Stream.Host}", nameof(command));

        using var patience = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        using var alarm = command.Wait > TimeSpan.Zero
            ? time.CreateTimer(_ => patience.Cancel(), null, command.Wait, Timeout.InfiniteTimeSpan)
            : null;

        if (command.Request is not { } request) return (await DecideAsync(command, patience.Token)).Result;

        if (await replay.FindAsync(command, request, patience.Token) is { } earlier) return earlier;
        KillPoint.Reached("request-new");
        var (result, version) = await DecideAsync(command, patience.Token);
        return await replay.KeepAsync(command, request, result, version, patience.Token);
    }

    /// <returns>The result, and the version at which something was recorded for this command, if anything was.</returns>
    private async Task<(CommandResult Result, long? Version)> DecideAsync(MountCommand command, CancellationToken patience)
    {
        var mountpoint = command.Stream.Id;
        var mayWait = command.Wait > TimeSpan.Zero;
        for (var attempt = 0; attempt < options.AppendAttemptsMax; attempt++)
        {
            var state = await journal.StateAsync(mountpoint, fresh: false, CancellationToken.None);
            var decision = MountDecider.Decide(command, state, Context(state));
            if (decision is Decision.Reject { Rejection: Rejection.RemountPending } && mayWait)
            {
                mayWait = await WaitForChangeAsync(state, patience);
                continue;
            }
            if (decision is Decision.Invalid || (decision is Decision.Reject && !(MayBeThereAlready(decision) && mayWait)))
            {
                // Nothing is refused on the word of a state that may be old.
                state = await journal.StateAsync(mountpoint, fresh: true, CancellationToken.None);
                var again = MountDecider.Decide(command, state, Context(state));
                if (again is Decision.Invalid invalid) return (new CommandResult.Invalid(invalid.Errors), null);
                if (again is Decision.Reject rejected) return (new CommandResult.Rejected(rejected.Rejection, state), null);
                continue;
            }

            if (decision is Decision.Accept { Events.IsEmpty: true } && !await IsNewestAsync(state)) continue;

            if (command is MountCommand.Mount or MountCommand.Remount && state.Holds && await holdCheck.LookAsync(state) is { } finding)
            {
                if (NotHeld(finding, state, command is MountCommand.Remount ? OperationKind.Remount : OperationKind.Mount) is { } answer) return (answer, null);
                executor.Wake(mountpoint);
                continue;
            }

            var action = decision switch
            {
                Decision.Reject => ActionKind.Mount,
                Decision.Accept { Events: var events } when !events.IsEmpty =>
                    MountFlow.NextAction(journal.Fold(state, events, command.Actor)).Kind,
                _ => ActionKind.None,
            };
            var pass = action is ActionKind.Mount or ActionKind.Unmount or ActionKind.Remount ? executor.Gate.TryEnter(mountpoint) : null;

            // The first mount of a mountpoint is decided by who holds it: only then it is known what is at the path. If
            // somebody else holds it, either it becomes free or the state changes, and both let us decide again.
            if (pass is null && action == ActionKind.Mount && mayWait)
            {
                pass = await WaitForTurnAsync(state, patience);
                mayWait = !patience.IsCancellationRequested;
                if (pass is null) continue;
            }

            Tried? tried;
            try
            {
                tried = pass is null
                    ? await AppendAsync(command)
                    : await AppendWithStartAsync(command, pass);
            }
            catch
            {
                pass?.Dispose();
                // It may have been recorded all the same, and then nobody else would begin with it.
                executor.WakeSoon(mountpoint);
                throw;
            }
            if (tried is not Tried.HandedOver) pass?.Dispose();
            if (tried is not null) return (await AnswerAsync(tried, command, patience), tried.AppendedVersion);
        }
        var actual = await journal.StateAsync(mountpoint, fresh: true, CancellationToken.None);
        return (new CommandResult.Rejected(new Rejection.VersionConflict(mountpoint, null, actual.Version), actual), null);
    }

    /// <summary>
    /// Whether nothing has been recorded since <paramref name="state"/>: an answer that appends nothing has no version check, and somebody
    /// else may have written to the ledger, another machine's agent included.
    /// </summary>
    private async Task<bool> IsNewestAsync(MountState state)
    {
        await journal.ConfirmLeaseAsync();
        if (!journal.MayAct) throw new LedgerUnavailableException($"it cannot be confirmed that this agent still serves host {agent.Host}");
        // Behind an append of ours that is under way: its caller may have given it up and asked for the opposite, and it may be committed yet.
        using var turn = await journal.EnterAsync(state.Mountpoint);
        return (await journal.StateAsync(state.Mountpoint, fresh: true, CancellationToken.None)).Version == state.Version;
    }

    /// <summary>The answer to who would join a mount that is not what it was; null when it is made again.</summary>
    private static CommandResult? NotHeld(HoldCheck.Finding finding, MountState state, OperationKind kind) => finding switch
    {
        HoldCheck.Finding.Covered covered => new CommandResult.Rejected(
            new Rejection.ForeignMount(state.Mountpoint, covered.By, ["source"]), state),
        HoldCheck.Finding.Moved moved => new CommandResult.Failed(
            new OperationError(
                OperationKind.Mount, "ESTALE",
                $"mount {state.Mountpoint}: the mount was moved to {moved.To}; move it back, or unmount it there by hand",
                [], Attempt: 1, RetryAt: null, state.Version),
            state),
        HoldCheck.Finding.Stale stale => new CommandResult.Failed(
            new OperationError(
                kind, stale.Errno, $"{(kind == OperationKind.Remount ? "remount" : "mount")} {state.Mountpoint}: what is mounted there is stale, {stale.Why}",
                [], Attempt: 1, RetryAt: null, state.Version),
            state),
        _ => null,
    };

    /// <summary>Records what does not begin an operation here and now.</summary>
    /// <returns>Null: it has to be decided again.</returns>
    private async Task<Tried?> AppendAsync(MountCommand command)
    {
        var mountpoint = command.Stream.Id;
        using var turn = await journal.EnterAsync(mountpoint);
        var state = await journal.StateAsync(mountpoint, fresh: false, CancellationToken.None);
        if (MountDecider.Decide(command, state, Context(state)) is not Decision.Accept { Events: var events }) return null;
        if (events.IsEmpty) return AlreadySo(command, state);

        var result = await AppendAsync(command, state, events);
        if (result is not AppendResult.Appended appended) return NotAppended(result, state);

        @operator.ActFor(mountpoint, Cause(command, appended));
        executor.Wake(mountpoint);
        return new Tried.Recorded(await NewestAsync(mountpoint), appended.Events[^1].Version) { AppendedVersion = appended.Events[^1].Version };
    }

    /// <summary>
    /// Records what may begin an operation, together with its start; the caller holds the mountpoint. What is at the path
    /// is looked at first, and a mount is prepared, so that the append comes last and a conflict loses nothing.
    /// </summary>
    private async Task<Tried?> AppendWithStartAsync(MountCommand command, PathGate.Pass pass)
    {
        var mountpoint = command.Stream.Id;
        var state = await journal.StateAsync(mountpoint, fresh: false, CancellationToken.None);
        var context = Context(state);
        var decision = MountDecider.Decide(command, state, context);
        var (start, prepared, occupied) = decision is Decision.Accept { Events: { IsEmpty: false } asIfFree }
            ? await BeginAsync(command, state, asIfFree)
            : Beginning.None;
        // Whoever prepares a mount sees what is at the path; only without that a look of its own is needed.
        if (command is MountCommand.Mount mount && start is null && NeedsLook(decision, state))
        {
            var seen = occupied ?? await host.ObserveAsync(mountpoint, mount.Spec, CancellationToken.None);
            decision = MountDecider.Decide(command, state, context with { Occupant = seen.Top });
            KillPoint.Reached("request-looked");
        }
        if (decision is Decision.Reject rejected) return new Tried.Answered(new CommandResult.Rejected(rejected.Rejection, state));
        if (decision is Decision.Invalid) return null;

        var events = ((Decision.Accept)decision).Events;
        if (events.IsEmpty) return AlreadySo(command, state);

        KillPoint.Reached(prepared is null ? "request-decided" : "request-prepared");
        var result = await AppendOrDiscardAsync(command, state, start is null ? events : events.Add(start), prepared);
        if (result is not AppendResult.Appended appended) return NotAppended(result, state);

        MountState newest;
        try
        {
            newest = await NewestAsync(mountpoint);
            // Between the look and the record the mount may have gone, and until the record nobody knew that it mattered.
            if (appended.Events.Any(recorded => recorded.Event is MountEvent.MountAdopted) && await holdCheck.LookAsync(newest) is not null)
                newest = await NewestAsync(mountpoint);
        }
        catch when (prepared is not null)
        {
            await host.DiscardAsync(prepared);
            throw;
        }
        KillPoint.Reached("request-recorded");
        executor.Continue(pass, newest, start is not null, prepared, Cause(command, appended));
        return new Tried.HandedOver(newest, appended.Events[^1].Version) { AppendedVersion = appended.Events[^1].Version };
    }

    private async Task<AppendResult> AppendOrDiscardAsync(
        MountCommand command, MountState state, ImmutableArray<MountEvent> events, PreparedMount? prepared)
    {
        AppendResult? result = null;
        try
        {
            using var turn = await journal.EnterAsync(state.Mountpoint);
            return result = await AppendAsync(command, state, events);
        }
        finally
        {
            if (prepared is not null && result is not AppendResult.Appended) await host.DiscardAsync(prepared);
        }
    }

    private ValueTask<AppendResult> AppendAsync(MountCommand command, MountState state, ImmutableArray<MountEvent> events) =>
        // Never cancelled: a caller that goes away must not leave it open whether its request was recorded.
        journal.AppendAsync(
            state, events, agent.For(command.Actor, command.Id), requireHostUp: command is MountCommand.Mount,
            RowOf(command, state, events), CancellationToken.None);

    private AppendOrigin Cause(MountCommand command, AppendResult.Appended appended) =>
        agent.For(command.Actor, command.Id, appended.Events[^1].Id.ToString());

    private ValueTask<MountState> NewestAsync(string mountpoint) =>
        journal.StateAsync(mountpoint, fresh: false, CancellationToken.None);

    /// <summary>An idempotent repeat: of a mount the same answer, which may still be on its way (rule 3); else nothing to do (rule 7).</summary>
    private static Tried AlreadySo(MountCommand command, MountState state) => command is MountCommand.Mount
        ? new Tried.Recorded(state, state.Version)
        : new Tried.Answered(new CommandResult.Done(Outcome.Noop, state));

    /// <summary>
    /// The start event to append with the decision, when its operation can begin at once. A mount is prepared for it
    /// first, if that leaves no trace: tmpfs, bind and overlay exist only in memory until they are attached, while a block filesystem's
    /// journal is replayed by preparing it, which must not happen before the request is recorded.
    /// </summary>
    private async Task<Beginning> BeginAsync(
        MountCommand command, MountState state, ImmutableArray<MountEvent> events)
    {
        var folded = journal.Fold(state, events, command.Actor);
        var action = MountFlow.NextAction(folded);
        if (!action.IsDue(time.GetUtcNow()) || !@operator.MayBegin(action.Kind, folded)) return Beginning.None;
        switch (action.Kind)
        {
            case ActionKind.Unmount:
                return new(MountOperator.UnmountStarted(folded));
            case ActionKind.Remount:
                return new(@operator.RemountStarted(folded));
            // What has gone above it or below its source comes first: the executor sees to that.
            case ActionKind.Mount when await executor.WaitsForAsync(folded) is not null:
                return Beginning.None;
            case ActionKind.Mount when folded.Spec is { FsType: "tmpfs" or "ramfs" or "bind" or "overlay" } spec:
                return await OperationMeter.TimedAsync(time, "prepare", () => host.PrepareAsync(state.Mountpoint, spec, CancellationToken.None)) switch
                {
                    PrepareResult.Ready { Mount: var prepared } => new(@operator.Started(prepared, folded.Generation), prepared),
                    PrepareResult.Occupied { Found: var found } => new(null, Occupied: found),
                    // What goes wrong here goes wrong again in the executor, which records it.
                    _ => Beginning.None,
                };
            default:
                return Beginning.None;
        }
    }

    private Tried? NotAppended(AppendResult result, MountState state)
    {
        switch (result)
        {
            case AppendResult.HostDown down:
                return new Tried.Answered(new CommandResult.Rejected(new Rejection.HostUnavailable(agent.Host, down.Reason), state));
            case AppendResult.StaleEpoch stale:
                throw new LedgerUnavailableException(
                    $"host {agent.Host} is served by another agent now (epoch {stale.CurrentEpoch}): this one was superseded");
            case AppendResult.DuplicateRequest duplicate:
                return new Tried.Duplicate(duplicate.Existing);
            default:
                return null; // A conflict: decide again.
        }
    }

    private async Task<CommandResult> AnswerAsync(Tried tried, MountCommand command, CancellationToken patience) => tried switch
    {
        Tried.Answered answered => answered.Result,
        // Answered only here, when nothing is held any more: it may have to wait for the one that recorded it.
        Tried.Duplicate duplicate => await replay.AnswerAsync(command, duplicate.Existing, patience),
        Tried.Recorded recorded => await WaitForOutcomeAsync(command, recorded.State, recorded.Version, patience),
        Tried.HandedOver recorded => await WaitForOutcomeAsync(command, recorded.State, recorded.Version, patience),
        _ => throw new InvalidOperationException("nothing was tried"),
    };

    private async Task<CommandResult> WaitForOutcomeAsync(
        MountCommand command, MountState state, long version, CancellationToken patience)
    {
        if (OutcomeOf.Command(command, state, version) is { } already) return already;
        if (command.Wait <= TimeSpan.Zero) return new CommandResult.Pending(state);
        try
        {
            var settled = await live.WaitAsync(
                state.Mountpoint, newest => OutcomeOf.Command(command, newest, version) is not null, patience);
            return OutcomeOf.Command(command, settled, version)!;
        }
        catch (OperationCanceledException)
        {
            return new CommandResult.Pending(live.TryGet(state.Mountpoint, out var newest) ? newest : state);
        }
    }

    /// <summary>Enters the mountpoint, or returns null when its state changed or the caller's patience ended first.</summary>
    private async Task<PathGate.Pass?> WaitForTurnAsync(MountState seen, CancellationToken patience)
    {
        using var either = CancellationTokenSource.CreateLinkedTokenSource(patience);
        var turn = executor.Gate.EnterAsync(seen.Mountpoint, either.Token);
        var change = live.WaitAsync(seen.Mountpoint, newest => newest.Version != seen.Version, either.Token);
        await Task.WhenAny(turn, change);
        either.Cancel(); // Here and now: the order of what follows is then ours, not the thread pool's.
        await Task.WhenAny(change); // Its cancellation is not news.
        try
        {
            return await turn;
        }
        catch (OperationCanceledException)
        {
            return null;
        }
    }

    /// <summary>Waits until the mountpoint has another state.</summary>
    /// <returns>False when the caller's patience ended first.</returns>
    private async Task<bool> WaitForChangeAsync(MountState seen, CancellationToken patience)
    {
        try
        {
            await live.WaitAsync(seen.Mountpoint, newest => newest.Version != seen.Version, patience);
            return true;
        }
        catch (OperationCanceledException)
        {
            return false;
        }
    }

    private static bool NeedsLook(Decision decision, MountState state) =>
        state is { Kernel: null, Operation: null, Uncertain: false }
        && (MayBeThereAlready(decision) || decision is Decision.Accept accept && accept.Events.OfType<MountEvent.MountRequested>().Any());

    /// <summary>A mount that would hide something is refused, unless it is there already: then it can be adopted.</summary>
    private static bool MayBeThereAlready(Decision decision) => decision is Decision.Reject { Rejection: Rejection.WouldHide };

    private DecisionContext Context(MountState state) => new(
        host.Identity, hostSwitch.IsUp, hostSwitch.State.DownReason,
        HiddenDescendant: live.DescendantsOf(state.Mountpoint).FirstOrDefault(below => below.Phase != Phase.Absent || below.IsBehind)?.Mountpoint);

    private static StoredRequest? RowOf(MountCommand command, MountState state, ImmutableArray<MountEvent> events) =>
        command.Request is { } request
            ? new StoredRequest(
                request.Key, command.Actor, request.BodyHash, state.Mountpoint, state.Version + events.Length, Status: null, Answer: null)
            : null;

    /// <summary>The start of an operation that is to be recorded with the decision; or what is in the way at the path.</summary>
    private readonly record struct Beginning(MountEvent? Start, PreparedMount? Prepared = null, Observation? Occupied = null)
    {
        public static Beginning None => default;
    }

    private abstract record Tried
    {
        /// <summary>The version of the last event that was appended for the command; null when none was.</summary>
        public long? AppendedVersion { get; init; }

        /// <summary>The same request has been recorded by somebody else meanwhile.</summary>
        public sealed record Duplicate(StoredRequest Existing) : Tried;

        public sealed record Answered(CommandResult Result) : Tried;

        public sealed record Recorded(MountState State, long Version) : Tried;

        /// <summary>Recorded, and the executor has taken over the pass.</summary>
        public sealed record HandedOver(MountState State, long Version) : Tried;
    }
}
