using System.Collections.Concurrent;
using System.Collections.Immutable;
using Microsoft.Extensions.Logging;

namespace MountLedger;

/// <summary>Limits of the executor.</summary>
public sealed record ExecutorOptions
{
    /// <summary>The safety net: how often the work list is read although nobody called. Infinite switches it off (a test does).</summary>
    public TimeSpan PollInterval { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>How many mountpoints are worked on at the same time; the rest waits its turn.</summary>
    public int MountpointsAtOnceMax { get; init; } = 256;

    /// <summary>How many steps one turn of work on a mountpoint may take before it queues again.</summary>
    public int StepsPerTurnMax { get; init; } = 16;
}

/// <summary>
/// Turns what the ledger wants into what the kernel has. Whatever wakes it says only which mountpoint to look at: it folds the current
/// state, asks <see cref="MountFlow.NextAction"/>, and does that; so a lost, doubled or reordered wake-up changes
/// nothing. Work on one mountpoint and its relatives is serial (<see cref="PathGate"/>), everything else is parallel.
/// </summary>
public sealed class MountExecutor : IAsyncDisposable
{
    /// <summary>When a turn broke off because the ledger was away (or by a bug), it is taken up again after this.</summary>
    private static readonly TimeSpan AfterErrorDelay = TimeSpan.FromSeconds(1);

    private readonly AgentIdentity _agent;
    private readonly IEventStore _store;
    private readonly LiveStates _live;
    private readonly MountJournal _journal;
    private readonly MountOperator _operator;
    private readonly DriftCheck _drift;
    private readonly RepairOrder _order;
    private readonly TimeProvider _time;
    private readonly ExecutorOptions _options;
    private readonly ILogger _logger;
    private readonly SemaphoreSlim _turns;
    private readonly CancellationTokenSource _stop = new();
    private readonly ConcurrentDictionary<string, Look> _queued = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, ImmutableHashSet<string>> _waiting = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, ITimer> _timers = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<long, Task> _running = new();
    private long _turnNumber;
    private Task _poll = Task.CompletedTask;
    private volatile bool _started;

    public MountExecutor(
        AgentIdentity agent, IEventStore store, LiveStates live, MountJournal journal, MountOperator @operator, DriftCheck drift,
        RepairOrder order, TimeProvider time, ExecutorOptions options, ILogger logger)
    {
        (_agent, _store, _live, _journal, _operator, _drift, _order, _time, _options, _logger) =
            (agent, store, live, journal, @operator, drift, order, time, options, logger);
        Gate = new PathGate(time);
        _turns = new SemaphoreSlim(options.MountpointsAtOnceMax);
    }

    public PathGate Gate { get; }

    /// <inheritdoc cref="RepairOrder.WaitsForAsync"/>
    public Task<MountState?> WaitsForAsync(MountState state) => _order.WaitsForAsync(state, CancellationToken.None);

    /// <summary>What else is read at each poll, as it may have changed without word.</summary>
    public Func<CancellationToken, Task>? Polling { get; set; }

    /// <summary>How many turns of work there have been; an idle executor adds none.</summary>
    public long Turns => Interlocked.Read(ref _turnNumber);

    /// <summary>How many turns of work are running or waiting for their mountpoint.</summary>
    public int Running => _running.Count;

    /// <summary>Begins to act. Until then wake-ups are only collected: nothing is touched before the reconciler is done.</summary>
    public void Start()
    {
        _started = true;
        // One that needs nothing is not woken: thousands of turns for nothing would come before the first command's.
        foreach (var state in _live.Present().Where(state => state.Phase == Phase.Absent || MountFlow.NextAction(state).Kind != ActionKind.None))
            Wake(state.Mountpoint);
        if (_options.PollInterval != Timeout.InfiniteTimeSpan) _poll = PollAsync();
    }

    /// <summary>
    /// Asks for a look at a mountpoint. Asking twice before the look is one look; <paramref name="reload"/>: somebody
    /// else appended, so the ledger is to be read. Never blocks.
    /// </summary>
    public void Wake(string mountpoint, bool reload = false) => Wake(mountpoint, reload ? Look.Reload : Look.Plain);

    /// <summary>
    /// Asks for a look at the kernel too: something may have happened to this mountpoint that nobody asked for. The look is part of a
    /// turn, so that it never sees an operation of ours half done.
    /// </summary>
    public void Examine(string mountpoint) => Wake(mountpoint, Look.Kernel);

    /// <summary>An operator asks for the repair of this mountpoint, now and in their name: a next try is not waited for.</summary>
    public void RepairNow(string mountpoint, AppendOrigin origin)
    {
        _operator.ActFor(mountpoint, origin);
        Wake(mountpoint, Look.Kernel | Look.Now);
    }

    private void Wake(string mountpoint, Look look)
    {
        if (!_started || _stop.IsCancellationRequested) return;
        while (!_queued.TryAdd(mountpoint, look))
        {
            // A turn waits for the mountpoint already: it does this one's part too.
            if (_queued.TryGetValue(mountpoint, out var known) && _queued.TryUpdate(mountpoint, known | look, known)) return;
        }
        Track(mountpoint, TurnAsync(mountpoint));
    }

    /// <summary>
    /// Goes on with a mountpoint that the caller holds. The pass is given back at the end of the turn. <paramref name="isStarted"/>: the
    /// caller has recorded the start of the operation that <paramref name="state"/> shows; one that somebody else has left behind is settled.
    /// </summary>
    public void Continue(PathGate.Pass pass, MountState state, bool isStarted, PreparedMount? prepared, AppendOrigin origin) =>
        Track(pass.Path, ContinueAsync(pass, state, isStarted, prepared, origin));

    /// <summary>Lets running operations finish within the deadline; what still runs then is settled by the next start.</summary>
    public async Task StopAsync(TimeSpan deadline)
    {
        _started = false;
        foreach (var timer in _timers.Values) await timer.DisposeAsync();
        _operator.Stop();
        var all = Task.WhenAll(_operator.Running());
        try
        {
            await all.WaitAsync(deadline, _time);
        }
        catch (TimeoutException)
        {
            _logger.LeftRunning(_operator.Running().Count);
        }
        _stop.Cancel();
    }

    public async ValueTask DisposeAsync()
    {
        _stop.Cancel();
        foreach (var timer in _timers.Values) await timer.DisposeAsync();
        try
        {
            await _poll;
        }
        catch (OperationCanceledException)
        {
            // That is how it ends.
        }
    }

    private async Task TurnAsync(string mountpoint)
    {
        await Task.Yield();
        bool mayConcernRelatives;
        using (await Gate.EnterAsync(mountpoint, _stop.Token))
        {
            // From here on a new wake-up means another look: this one may have read the state already.
            _queued.TryRemove(mountpoint, out var look);
            await _turns.WaitAsync(_stop.Token);
            try
            {
                mayConcernRelatives = await StepsAsync(mountpoint, look, _operator.CauseOf(mountpoint));
            }
            finally
            {
                _turns.Release();
            }
        }
        if (mayConcernRelatives) WakeRelatives(mountpoint);
    }

    private async Task ContinueAsync(
        PathGate.Pass pass, MountState state, bool isStarted, PreparedMount? prepared, AppendOrigin origin)
    {
        using (pass)
        {
            var next = !isStarted || state.Operation is null ? state : await _operator.FinishAsync(state, prepared, origin);
            if (next is not null) await StepsAsync(state.Mountpoint, Look.Plain, origin);
        }
        WakeRelatives(state.Mountpoint);
    }

    /// <summary>Steps until nothing is due; the caller holds the mountpoint.</summary>
    /// <returns>
    /// Whether anything was done, or there is nothing to do. A turn that could not begin leaves its relatives in peace: two
    /// that wait for each other would wake each other for ever.
    /// </returns>
    private async Task<bool> StepsAsync(string mountpoint, Look look, AppendOrigin origin)
    {
        var acted = false;
        for (var step = 0; step < _options.StepsPerTurnMax; step++)
        {
            if (_stop.IsCancellationRequested || _journal.IsFenced) return false;
            var state = await _journal.StateAsync(mountpoint, look.HasFlag(Look.Reload), _stop.Token);
            if (step == 0 && look.HasFlag(Look.Kernel)) state = await _drift.LookAsync(state, _stop.Token) ?? state;
            var next = MountFlow.NextAction(state);
            if (next.Kind == ActionKind.None)
            {
                _operator.Forget(mountpoint);
                await _operator.SweepAsync(state);
                return true;
            }
            if (!next.IsDue(_time.GetUtcNow()) && !look.HasFlag(Look.Now))
            {
                WakeAt(mountpoint, next.DueAt!.Value);
                return acted;
            }
            look = Look.Plain;
            if (next.Kind == ActionKind.Mount && await _order.WaitsForAsync(state, _stop.Token) is { } first)
            {
                _waiting.AddOrUpdate(first.Mountpoint, [mountpoint], (_, others) => others.Add(mountpoint));
                // What is known to be missing is on its way, or may not be repaired.
                if (first.Kernel is not null) Examine(first.Mountpoint);
                // It may have come between the look and the note: then nobody wakes this one.
                else if (_live.PresentAt(first.Mountpoint) is not { } now || now.Version != first.Version) Wake(mountpoint);
                return acted;
            }
            if (!await _operator.StepAsync(next.Kind, state, origin)) return acted;
            acted = true;
        }
        Wake(mountpoint);
        return acted;
    }

    /// <summary>
    /// Those above and below may have waited for this one: parents first on the way up, children first on the way down. An
    /// ancestor that failed because of what is below it does not sit out its delay once that is gone: others wait for it.
    /// </summary>
    private void WakeRelatives(string mountpoint)
    {
        // Those that it is the source of are no relatives by path.
        if (_waiting.TryRemove(mountpoint, out var dependents))
        {
            foreach (var dependent in dependents) Wake(dependent);
        }
        foreach (var below in _live.DescendantsOf(mountpoint))
        {
            if (MountFlow.NextAction(below).IsDue(_time.GetUtcNow())) Wake(below.Mountpoint);
        }
        foreach (var above in _live.AncestorsOf(mountpoint))
        {
            var next = MountFlow.NextAction(above).Kind;
            if (next is ActionKind.Mount or ActionKind.Unmount && _operator.MayBegin(next, above)) Wake(above.Mountpoint, Look.Now);
            else if (next is not (ActionKind.None or ActionKind.Mount or ActionKind.Unmount)) Wake(above.Mountpoint);
        }
    }

    /// <summary>Asks for a look in a moment: an append may or may not have been committed.</summary>
    public void WakeSoon(string mountpoint) => WakeAt(mountpoint, _time.GetUtcNow() + AfterErrorDelay);

    private void WakeAt(string mountpoint, DateTimeOffset dueAt)
    {
        var delay = dueAt - _time.GetUtcNow();
        var timer = _time.CreateTimer(
            _ =>
            {
                if (_timers.TryRemove(mountpoint, out var fired)) fired.Dispose();
                Wake(mountpoint);
            },
            null, delay > TimeSpan.Zero ? delay : TimeSpan.Zero, Timeout.InfiniteTimeSpan);
        _timers.AddOrUpdate(mountpoint, timer, (_, earlier) =>
        {
            earlier.Dispose();
            return timer;
        });
    }

    /// <summary>How a turn looks at its mountpoint.</summary>
    [Flags]
    private enum Look
    {
        Plain = 0,

        /// <summary>The ledger is to be read: somebody else appended.</summary>
        Reload = 1,

        /// <summary>The next try is not waited for: what it failed of has changed.</summary>
        Now = 2,

        /// <summary>The kernel is to be looked at: it may have changed without us.</summary>
        Kernel = 4,
    }

    private async Task PollAsync()
    {
        using var timer = new PeriodicTimer(_options.PollInterval, _time);
        while (await timer.WaitForNextTickAsync(_stop.Token))
        {
            try
            {
                if (Polling is { } polling) await polling(_stop.Token);
                foreach (var stream in await _store.ReadWorkListAsync(_agent.Host, _time.GetUtcNow(), _stop.Token))
                    Wake(stream.Id, reload: true);
            }
            catch (LedgerUnavailableException e)
            {
                _logger.WorkListUnreadable(e.Message);
            }
        }
    }

    /// <summary>Keeps a turn until it ends. An error in it is logged, and the mountpoint is looked at again soon.</summary>
    private void Track(string what, Task turn)
    {
        if (turn.IsCompletedSuccessfully) return;
        var number = Interlocked.Increment(ref _turnNumber);
        var watch = WatchAsync();
        _running[number] = watch;
        if (watch.IsCompleted) _running.TryRemove(number, out _);

        async Task WatchAsync()
        {
            try
            {
                await turn;
            }
            catch (OperationCanceledException) when (_stop.IsCancellationRequested)
            {
                // The agent stops.
            }
            catch (LedgerUnavailableException e)
            {
                _logger.WorkUnreadable(what, e.Message);
                WakeAt(what, _time.GetUtcNow() + AfterErrorDelay);
            }
#pragma warning disable CA1031 // One mountpoint's bug must not end the work on the others.
            catch (Exception e)
#pragma warning restore CA1031
            {
                _logger.DriveFailed(what, e);
                WakeAt(what, _time.GetUtcNow() + AfterErrorDelay);
            }
            finally
            {
                _running.TryRemove(number, out _);
            }
        }
    }
}
