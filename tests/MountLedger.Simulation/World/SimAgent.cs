using System.Collections.Immutable;
using Microsoft.Extensions.Logging;

namespace MountLedger.Simulation;

/// <summary>
/// One life of an agent: the order of the real one's start (lock, lease, <c>agent_started</c>, old workers, compare, open) around the
/// real <see cref="HostNode"/>, then its upkeep. It ends by being killed, by a clean stop, or because it may not start.
/// </summary>
internal sealed class SimAgent : ILogger
{
    private static readonly TimeSpan LeaseTtl = TimeSpan.FromSeconds(15);
    private static readonly TimeSpan RetryDelay = TimeSpan.FromSeconds(1);
    private const int StartAttemptsMax = 20;

    private readonly World _world;
    private readonly Machine _machine;
    private readonly SimStore _store;
    private readonly SimTime _time;
    private readonly CancellationTokenSource _stop = new();
    private readonly AgentLease _lease;
    private HostNode? _node;

    public SimAgent(World world, Machine machine, string name)
    {
        (_world, _machine) = (world, machine);
        Life = new Life(world.Scheduler, name);
        _store = new SimStore(world, Life);
        _time = new SimTime(world.Scheduler, Life, () => machine.ClockOffset);
        _lease = new AgentLease(_time, LeaseTtl, () => _store.RenewLeaseAsync(Life.Name, _node!.Agent.Epoch, LeaseTtl));
        Host = new SimHost(world, machine, Life);
    }

    public Life Life { get; }

    public SimHost Host { get; }

    /// <summary>Takes commands: as <c>NodeAccess</c> would.</summary>
    public bool IsOpen { get; private set; }

    public HostNode? Node => _node;

    public void Start()
    {
        _world.Trace($"{Life.Name}: starts on {_machine.Name} ({_machine.Kernel.BootId})");
        Run(async () =>
        {
            if (await StartInOrderAsync()) return;
            Life.Kill();
        });
    }

    /// <summary>A clean stop, as on SIGTERM.</summary>
    public void Stop() => Run(async () =>
    {
        _world.Trace($"{Life.Name}: stops");
        IsOpen = false;
        _stop.Cancel();
        if (_node is { } node)
        {
            await node.StopAsync(TimeSpan.FromSeconds(20));
            await node.DisposeAsync();
        }
        Life.Kill();
    });

    /// <summary>Handles a command; a caller whose agent dies has a broken connection.</summary>
    public Task<CommandResult> HandleAsync(MountCommand command)
    {
        var answer = new TaskCompletionSource<CommandResult>();
        Life.OnDeath(() => _world.Outside.Do(() => answer.TrySetResult(new CommandResult.Unavailable("the connection broke"))));
        Run(async () =>
        {
            try
            {
                if (!IsOpen || _node is not { } node) answer.TrySetResult(new CommandResult.Unavailable("not open"));
                else answer.TrySetResult(await node.HandleAsync(command, CancellationToken.None));
            }
            catch (LedgerUnavailableException e)
            {
                answer.TrySetResult(new CommandResult.Unavailable(e.Message));
            }
        });
        return answer.Task;
    }

    public void Handle(HostCommand command) => Run(async () =>
    {
        try
        {
            if (IsOpen && _node is { } node) await node.HandleAsync(command);
        }
        catch (LedgerUnavailableException)
        {
            // The operator would try again.
        }
    });

    /// <summary>An operator pauses or resumes the repair of a mountpoint.</summary>
    public void Pause(string mountpoint, bool paused, string id) => Run(async () =>
    {
        try
        {
            if (IsOpen && _node is { } node) await node.Repairs.SetPausedAsync(mountpoint, paused, paused ? "work on it" : null, expected: null, "operator", id);
        }
        catch (LedgerUnavailableException)
        {
            // The operator would try again.
        }
    });

    /// <summary>Lets go what everybody held until <paramref name="asOf"/> who is not alive; <paramref name="done"/>, when that has ended, in whatever way.</summary>
    public void Sync(IReadOnlySet<string> alive, DateTimeOffset asOf, string id, Action done)
    {
        var isOver = false;
        void End()
        {
            if (isOver) return;
            isOver = true;
            done();
        }
        Life.OnDeath(End);
        Run(async () =>
        {
            try
            {
                if (IsOpen && _node is { } node) await node.Consumers.RunAsync(alive, asOf, "operator", id, CancellationToken.None);
            }
            catch (LedgerUnavailableException)
            {
                // The orchestrator would give its list again.
            }
            finally
            {
                End();
            }
        });
    }

    private async Task<bool> StartInOrderAsync()
    {
        if (_machine.LockHolder is { IsDead: false } && _machine.LockHolder != Life) return false;
        _machine.LockHolder = Life;
        if (await TakeLeaseAsync() is not { } agent) return false;
        Host.KillEarlierWorkers();
        var hostState = await TryAsync(() => _store.LoadHostStateAsync(World.Host, CancellationToken.None).AsTask());
        if (hostState is null) return false;
        var node = _node = new HostNode(
            agent, _store, Host, hostState, [World.Root], _time, this,
            new ExecutorOptions { PollInterval = TimeSpan.FromSeconds(30) },
            driftOptions: _world.IsWatched ? new DriftOptions { AuditInterval = World.AuditInterval } : null, lease: _lease);
        // What the table is compared with is what it is now.
        _machine.WasDisturbed = false;
        if (await TryAsync(() => node.StartAsync(Task.CompletedTask, CancellationToken.None)) is null) return false;
        Listen(node);
        Run(() => RenewAsync(node));
        IsOpen = true;
        _world.Trace($"{Life.Name}: open, epoch {agent.Epoch}");
        return true;
    }

    private async Task<AgentIdentity?> TakeLeaseAsync()
    {
        var agent = default(AgentIdentity);
        for (var attempt = 0; attempt < StartAttemptsMax; attempt++)
        {
            try
            {
                if (agent is null)
                {
                    var asked = _time.GetTimestamp();
                    var (taken, holder) = await _store.TakeLeaseAsync(Life.Name, _machine.Name, _machine.LocalEpoch, LeaseTtl);
                    if (!taken) return null;
                    _lease.Taken(asked);
                    _machine.LocalEpoch = holder.Epoch;
                    agent = new AgentIdentity(World.Host, Life.Name, holder.Epoch);
                }
                var state = await _store.LoadHostStateAsync(World.Host, CancellationToken.None);
                var started = new HostEvent.AgentStarted(agent.Epoch, Life.Name, _machine.Name, _machine.Kernel.BootId, "6", "1");
                switch (await HostHandler.AppendAsync(_store, agent.Own(), state, started))
                {
                    case AppendResult.Appended: return agent;
                    case AppendResult.StaleEpoch: return null;
                }
            }
            catch (LedgerUnavailableException)
            {
                await Task.Delay(RetryDelay, _time);
            }
        }
        return null;
    }

    private async Task RenewAsync(HostNode node)
    {
        using var timer = new PeriodicTimer(LeaseTtl / 3, _time);
        while (await timer.WaitForNextTickAsync(_stop.Token))
        {
            try
            {
                if (await _lease.RenewAsync()) continue;
                _world.Trace($"{Life.Name}: has lost the lease");
                node.Journal.Fence();
                IsOpen = false;
                return;
            }
            catch (LedgerUnavailableException)
            {
                // The next tick tries again.
            }
        }
    }

    /// <summary>Notifications come late, twice, or never; a lost connection makes the listener look at everything.</summary>
    private void Listen(HostNode node)
    {
        _world.Ledger.Listen(Life, stream =>
        {
            var copies = _world.Dice.Percent(_world.Faults.LostNotifyPercent) ? 0 : _world.Dice.Percent(20) ? 2 : 1;
            for (var copy = 0; copy < copies; copy++)
            {
                _world.Scheduler.After(Life, _world.Dice.Latency(10), () =>
                {
                    if (!_stop.IsCancellationRequested) Run(() => node.OnAppendedElsewhereAsync(stream, CancellationToken.None));
                });
            }
        });
    }

    private async Task<T?> TryAsync<T>(Func<Task<T>> call) where T : class
    {
        for (var attempt = 0; attempt < StartAttemptsMax; attempt++)
        {
            try
            {
                return await call();
            }
            catch (LedgerUnavailableException)
            {
                await Task.Delay(RetryDelay, _time);
            }
        }
        return null;
    }

    /// <summary>Begins something in this life; an exception of it that nobody expects ends the run.</summary>
    private void Run(Func<Task> work) => Life.Do(async () =>
    {
        try
        {
            await work();
        }
        catch (OperationCanceledException) when (_stop.IsCancellationRequested)
        {
            // It stops.
        }
    });

    // ---- the agent's log ----

    public IDisposable? BeginScope<TState>(TState state) where TState : notnull => null;

    public bool IsEnabled(LogLevel logLevel) => logLevel == LogLevel.Error || _world.IsTraced;

    public void Log<TState>(
        LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
    {
        if (_world.IsTraced) _world.Trace($"{Life.Name}: {formatter(state, exception)}");
        // Only an error of the program is logged as one.
        if (logLevel == LogLevel.Error) _world.Fail($"{formatter(state, exception)}: {exception}");
    }
}
