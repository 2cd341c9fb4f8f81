using System.Collections.Concurrent;
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
    private readonly TimeProvider _time;
    private readonly ExecutorOptions _options;
    private readonly ILogger _logger;
    private readonly SemaphoreSlim _turns;
    private readonly CancellationTokenSource _stop = new();
    private readonly ConcurrentDictionary<string, bool> _queued = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, ITimer> _timers = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<long, Task> _running = new();
    private long _turnNumber;
    private Task _poll = Task.CompletedTask;
    private volatile bool _started;

    public MountExecutor(
        AgentIdentity agent, IEventStore store, LiveStates live, MountJournal journal, MountOperator @operator, TimeProvider time,
        ExecutorOptions options, ILogger logger)
    {
        (_agent, _store, _live, _journal, _operator, _time, _options, _logger) =
            (agent, store, live, journal, @operator, time, options, logger);
        _turns = new SemaphoreSlim(options.MountpointsAtOnceMax);
    }

    public PathGate Gate { get; } = new();

    /// <summary>How many turns of work are running or waiting for their mountpoint.</summary>
    public int Running => _running.Count;

    /// <summary>Begins to act. Until then wake-ups are only collected: nothing is touched before the reconciler is done.</summary>
    public void Start()
    {
        _started = true;
        foreach (var state in _live.Present()) Wake(state.Mountpoint);
        if (_options.PollInterval != Timeout.InfiniteTimeSpan) _poll = PollAsync();
    }

    /// <summary>
    /// Asks for a look at a mountpoint. Asking twice before the look is one look; <paramref name="reload"/>: somebody
    /// else appended, so the ledger is to be read. Never blocks.
    /// </summary>
    public void Wake(string mountpoint, bool reload = false)
    {
        if (!_started || _stop.IsCancellationRequested) return;
        if (_queued.TryAdd(mountpoint, reload)) Track(mountpoint, TurnAsync(mountpoint));
        else if (reload) _queued.TryUpdate(mountpoint, true, false);
    }

    /// <summary>
    /// Goes on with a mountpoint that the caller holds. The pass is given back at the end of the turn.
    /// </summary>
    public void Continue(PathGate.Pass pass, MountState state, PreparedMount? prepared, AppendOrigin origin) =>
        Track(pass.Path, ContinueAsync(pass, state, prepared, origin));

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
        await _stop.CancelAsync();
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
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
        using (await Gate.EnterAsync(mountpoint, _stop.Token))
        {
            // From here on a new wake-up means another look: this one may have read the state already.
            _queued.TryRemove(mountpoint, out var reload);
            await _turns.WaitAsync(_stop.Token);
            try
            {
                await StepsAsync(mountpoint, reload, _operator.CauseOf(mountpoint));
            }
            finally
            {
                _turns.Release();
            }
        }
        WakeRelatives(mountpoint);
    }

    private async Task ContinueAsync(PathGate.Pass pass, MountState state, PreparedMount? prepared, AppendOrigin origin)
    {
        using (pass)
        {
            var next = state.Operation is null ? state : await _operator.FinishAsync(state, prepared, origin);
            if (next is not null) await StepsAsync(state.Mountpoint, reload: false, origin);
        }
        WakeRelatives(state.Mountpoint);
    }

    /// <summary>Steps until nothing is due; the caller holds the mountpoint.</summary>
    private async Task StepsAsync(string mountpoint, bool reload, AppendOrigin origin)
    {
        for (var step = 0; step < _options.StepsPerTurnMax; step++)
        {
            if (_stop.IsCancellationRequested || _journal.IsFenced) return;
            var state = await _journal.StateAsync(mountpoint, reload, _stop.Token);
            reload = false;
            var next = MountFlow.NextAction(state);
            if (next.Kind == ActionKind.None)
            {
                await _operator.SweepAsync(state);
                return;
            }
            if (!next.IsDue(_time.GetUtcNow()))
            {
                WakeAt(mountpoint, next.DueAt!.Value);
                return;
            }
            if (!await _operator.StepAsync(next.Kind, state, origin)) return;
        }
        Wake(mountpoint);
    }

    /// <summary>Those above and below may have waited for this one: parents first on the way up, children first on the way down.</summary>
    private void WakeRelatives(string mountpoint)
    {
        foreach (var relative in _live.AncestorsOf(mountpoint).Concat(_live.DescendantsOf(mountpoint)))
        {
            if (MountFlow.NextAction(relative).IsDue(_time.GetUtcNow())) Wake(relative.Mountpoint);
        }
    }

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

    private async Task PollAsync()
    {
        using var timer = new PeriodicTimer(_options.PollInterval, _time);
        while (await timer.WaitForNextTickAsync(_stop.Token))
        {
            try
            {
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
