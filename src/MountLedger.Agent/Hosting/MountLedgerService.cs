using System.Diagnostics;
using MountLedger.Linux;
using MountLedger.Postgres;

namespace MountLedger.Agent;

/// <summary>
/// The life of an agent: starts in the order of section 6 of the contract, keeps lease and wake-ups going, stops cleanly.
/// <see cref="Ready"/> completes when commands are taken, or fails with what kept the agent from starting.
/// </summary>
public sealed class MountLedgerService(
    AgentSettings settings, NodeAccess access, LedgerAccess ledger, WorkerOptions workerOptions, TimeProvider time, IHostApplicationLifetime lifetime,
    ILoggerFactory loggers) : IHostedService, IAsyncDisposable
{
    /// <summary>How long a ledger that cannot be reached is waited for between tries.</summary>
    private const double HurrySeconds = 2;
    private static readonly TimeSpan LedgerRetryDelay = TimeSpan.FromSeconds(1);

    private const int HostAttemptsMax = 20;

    private static readonly TimeSpan PostgresStopDeadline = TimeSpan.FromSeconds(15);

    private static readonly TimeSpan RequestPurgeInterval = TimeSpan.FromMinutes(30);

    private readonly ILogger _logger = loggers.CreateLogger("mountledgerd");
    private readonly CancellationTokenSource _stop = new();
    private readonly TaskCompletionSource _ready = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly string _agentId = Guid.CreateVersion7().ToString();
    private readonly List<Task> _upkeep = [];
    private HostLock? _lock;
    private EmbeddedPostgres? _postgres;
    private WorkerMountHost? _host;
    private HostNode? _node;
    private Task _starting = Task.CompletedTask;
    private bool _hasLease;

    /// <summary>Commands are taken from now on.</summary>
    public Task Ready => _ready.Task;

    /// <summary>The process's exit code when starting failed: 1; 0 otherwise.</summary>
    public int ExitCode { get; private set; }

    /// <summary>The kernel as this agent reaches it; null before its workers may start, and after its end.</summary>
    public WorkerMountHost? MountHost => _host;

    public Task StartAsync(CancellationToken cancellationToken)
    {
        lifetime.ApplicationStopping.Register(() =>
        {
            // Who waits for an outcome gets it, if it comes in the time that running operations are given.
            access.Close("the agent is stopping");
            access.EndWaitsAfter(TimeSpan.FromSeconds(settings.ShutdownSeconds));
        });
        _starting = Task.Run(RunAsync, CancellationToken.None);
        return Task.CompletedTask;
    }

    public async Task StopAsync(CancellationToken cancellationToken)
    {
        _logger.Stopping();
        access.Close("the agent is stopping");
        _ready.TrySetCanceled(CancellationToken.None);
        await _stop.CancelAsync();
        await Quietly(_starting);
        // What hangs on somebody else's server is not waited for; the next start settles it.
        _host?.HurryAfter(TimeSpan.FromSeconds(Math.Min(HurrySeconds, settings.ShutdownSeconds)));
        if (_node is not null) await _node.StopAsync(TimeSpan.FromSeconds(settings.ShutdownSeconds));
        foreach (var task in _upkeep) await Quietly(task);
        await DisposeAsync();
    }

    public async ValueTask DisposeAsync()
    {
        if (_node is { } node)
        {
            _node = null;
            if (ledger.Database is { } database) await Quietly(ReleaseLeaseAsync(database, node.Agent));
            await node.DisposeAsync();
        }
        if (_host is not null) await _host.DisposeAsync();
        _host = null;
        await ledger.CloseAsync();
        if (_postgres is not null)
        {
            // A server that ran before us and a lease that is another's: it is that agent's server.
            var isOurs = _hasLease || !_postgres.WasRunning;
            if (isOurs && !await _postgres.StopAsync(PostgresStopDeadline, CancellationToken.None)) _logger.UpkeepFailed("PostgreSQL did not stop in time");
            await _postgres.DisposeAsync();
            _postgres = null;
        }
        _lock?.Dispose();
        _lock = null;
    }

    private async Task RunAsync()
    {
        try
        {
            await StartInOrderAsync(_stop.Token);
            _ready.TrySetResult();
        }
        catch (OperationCanceledException) when (_stop.IsCancellationRequested)
        {
            _ready.TrySetCanceled();
        }
#pragma warning disable CA1031 // Whatever keeps the agent from starting is said in one line, and ends it.
        catch (Exception e)
#pragma warning restore CA1031
        {
            var reason = e is SettingException or SchemaException or LedgerUnavailableException or EmbeddedPostgresException or InvalidOperationException or IOException
                ? e.Message : e.ToString();
            _logger.CannotStart(reason);
            access.Close(reason);
            ExitCode = 1;
            _ready.TrySetException(e);
            lifetime.StopApplication();
        }
    }

    private async Task StartInOrderAsync(CancellationToken cancellationToken)
    {
        var started = Stopwatch.GetTimestamp();
        var version = typeof(MountLedgerService).Assembly.GetName().Version?.ToString(3) ?? "0";
        _logger.Starting(_agentId, settings.Host!, version, string.Join(", ", settings.Roots));
        Directory.CreateDirectory(settings.StateDir);
        foreach (var root in settings.Roots) Directory.CreateDirectory(root);

        // 1. One agent for each mount namespace of this machine.
        var identity = KernelIdentityReader.Read();
        _lock = TakeLock(identity);

        KillPoint.Reached("start-locked");
        // 2. The ledger, at the schema of this program.
        access.Close("the agent is starting: it waits for its ledger");
        var database = await OpenLedgerAsync(cancellationToken);

        KillPoint.Reached("start-ledger-open");
        // 3. The lease, with an epoch that neither the ledger nor this machine has seen before.
        var (agent, lease) = await TakeLeaseAsync(database, identity, version, cancellationToken);
        _logger.LedgerReady(database.Description, agent.Epoch);

        KillPoint.Reached("start-recorded");
        // 4. Workers of earlier lives are dead before anything is believed of the mount table.
        _host = new WorkerMountHost(workerOptions);
        await _host.KillEarlierWorkersAsync(cancellationToken);
        KillPoint.Reached("start-workers-killed");
        await _host.StartAsync(cancellationToken);
        KillPoint.Reached("start-worker-ready");

        // 5. Compare, then open.
        access.Close("the agent is starting: it compares the ledger with the mount table");
        var store = ledger.Store;
        var hostState = await store.LoadHostStateAsync(agent.Host, cancellationToken);
        _node = new HostNode(
            agent, store, _host, hostState, settings.Roots, time, loggers.CreateLogger("mountledger"),
            new ExecutorOptions
            {
                PollInterval = settings.PollSeconds == 0 ? Timeout.InfiniteTimeSpan : TimeSpan.FromSeconds(settings.PollSeconds),
            },
            driftOptions: new DriftOptions
            {
                AuditInterval = settings.AuditSeconds == 0 ? Timeout.InfiniteTimeSpan : TimeSpan.FromSeconds(settings.AuditSeconds),
            },
            lease: lease);
        await _node.StartAsync(cancellationToken);
        var node = _node;
        _upkeep.Add(KeepUpAsync(() => ListenAsync(node, database)));
        _upkeep.Add(KeepUpAsync(() => RenewLeaseAsync(node, lease)));
        _upkeep.Add(KeepUpAsync(() => PurgeRequestsAsync(store)));
        KillPoint.Reached("start-before-open");
        access.Open(_node);
        _logger.Open(settings.Socket, (long)Stopwatch.GetElapsedTime(started).TotalMilliseconds);
    }

    private HostLock TakeLock(KernelIdentity identity) =>
        HostLock.TryTake(settings.LockDir, identity.MountNamespaceId, out var holder) ?? throw new InvalidOperationException(
            $"another agent{(holder is { } pid ? $" (pid {pid})" : "")} serves this mount namespace "
            + $"(lock {settings.LockDir}/{identity.MountNamespaceId}.lock): stop that one first");

    private async Task<LedgerDatabase> OpenLedgerAsync(CancellationToken cancellationToken)
    {
        var connection = settings.Postgres;
        if (connection is null)
        {
            _postgres = await EmbeddedPostgres.StartAsync(settings.StateDir, cancellationToken);
            connection = _postgres.ConnectionString;
        }
        var database = ledger.Open(connection);
        while (true)
        {
            try
            {
                await new Migrator(database).MigrateAsync(cancellationToken);
                return database;
            }
            catch (LedgerUnavailableException e)
            {
                _logger.LedgerAwaited(e.Message);
                access.Close($"the agent is starting: {e.Message}");
                await Task.Delay(LedgerRetryDelay, time, cancellationToken);
            }
        }
    }

    private async Task<(AgentIdentity, AgentLease)> TakeLeaseAsync(
        LedgerDatabase database, KernelIdentity identity, string version, CancellationToken cancellationToken)
    {
        var memory = new LocalMemory(settings.StateDir);
        var machineId = KernelIdentityReader.ReadMachineId();
        var asked = time.GetTimestamp();
        var result = await new HostLease(database).TakeAsync(
            settings.Host!, _agentId, machineId, $"{identity.BootId}/{identity.MountNamespaceId}", memory.ReadEpoch(), TimeSpan.FromSeconds(settings.LeaseSeconds),
            cancellationToken);
        if (result is LeaseResult.HeldBy held)
        {
            throw new InvalidOperationException(
                $"host {settings.Host} is served by agent {held.Agent} on machine {held.MachineId}"
                + (held.MachineId == machineId ? ", in another mount namespace of this machine" : "")
                + $" (epoch {held.Epoch}) until {held.ExpiresAt:O}: "
                + "stop that one, or give this host another name");
        }
        var epoch = ((LeaseResult.Taken)result).Epoch;
        _hasLease = true;
        KillPoint.Reached("start-lease-taken");
        memory.WriteEpoch(epoch);
        KillPoint.Reached("start-epoch-kept");
        var ttl = TimeSpan.FromSeconds(settings.LeaseSeconds);
        var lease = new AgentLease(
            time, ttl, async () => await new HostLease(database).RenewAsync(settings.Host!, epoch, _agentId, ttl, CancellationToken.None));
        lease.Taken(asked);

        var agent = new AgentIdentity(settings.Host!, _agentId, epoch);
        var change = new HostEvent.AgentStarted(
            epoch, _agentId, machineId, identity.BootId, KernelIdentityReader.ReadKernelRelease(), version);
        for (var attempt = 0; attempt < HostAttemptsMax; attempt++)
        {
            var state = await ledger.Store.LoadHostStateAsync(agent.Host, cancellationToken);
            switch (await HostHandler.AppendAsync(ledger.Store, agent.Own(), state, change))
            {
                case AppendResult.Appended: return (agent, lease);
                case AppendResult.StaleEpoch stale:
                    throw new InvalidOperationException($"host {agent.Host} was taken over by epoch {stale.CurrentEpoch} while this agent started");
            }
        }
        throw new InvalidOperationException(
            $"the row of host {agent.Host} does not fit its events: stop all agents of this ledger and run `mountledgerd rebuild`");
    }

    private async Task ListenAsync(HostNode node, LedgerDatabase database)
    {
        await foreach (var wakeUp in new WakeUps(database).ListenAsync(node.Agent.Host, _stop.Token))
        {
            await (wakeUp.StreamId is { } stream
                ? node.OnAppendedElsewhereAsync(stream, _stop.Token)
                : node.OnWakeUpsMissedAsync(_stop.Token));
        }
    }

    private async Task RenewLeaseAsync(HostNode node, AgentLease lease)
    {
        using var timer = new PeriodicTimer(TimeSpan.FromSeconds(settings.LeaseSeconds) / 3, time);
        while (await timer.WaitForNextTickAsync(_stop.Token))
        {
            try
            {
                if (await lease.RenewAsync()) continue;
                _logger.LeaseLost(node.Agent.Host);
                node.Journal.Fence();
                access.Close($"host {node.Agent.Host} is served by another agent now: this one was superseded");
                return;
            }
            catch (LedgerUnavailableException e)
            {
                // Every operation's start is an append that carries the epoch, so nothing is begun while the ledger is away.
                _logger.UpkeepFailed(e.Message);
                await RestartOwnPostgresAsync();
            }
        }
    }

    /// <summary>A server of our own that has died is ours to start again; one that answers is left as it is.</summary>
    private async Task RestartOwnPostgresAsync()
    {
        if (_postgres is not { } dead) return;
        try
        {
            _postgres = await EmbeddedPostgres.StartAsync(settings.StateDir, _stop.Token);
            await dead.DisposeAsync();
        }
#pragma warning disable CA1031 // Whatever keeps it from starting now, it is tried again; the lease has to be renewed meanwhile.
        catch (Exception e) when (e is not OperationCanceledException)
#pragma warning restore CA1031
        {
            _logger.UpkeepFailed(e.Message);
        }
    }

    private async Task PurgeRequestsAsync(PostgresEventStore store)
    {
        using var timer = new PeriodicTimer(RequestPurgeInterval, time);
        while (await timer.WaitForNextTickAsync(_stop.Token))
        {
            try
            {
                await store.PurgeRequestsAsync(_stop.Token);
            }
            catch (LedgerUnavailableException e)
            {
                _logger.UpkeepFailed(e.Message);
            }
        }
    }

    private static async Task ReleaseLeaseAsync(LedgerDatabase database, AgentIdentity agent) =>
        await new HostLease(database).ReleaseAsync(agent.Host, agent.Epoch, agent.AgentId, CancellationToken.None);

    private async Task Quietly(Task task)
    {
        try
        {
            await task;
        }
        catch (OperationCanceledException)
        {
            // That is how upkeep ends.
        }
#pragma warning disable CA1031 // A stop goes on to its end.
        catch (Exception e)
#pragma warning restore CA1031
        {
            _logger.UpkeepFailed(e.Message);
        }
    }

    /// <summary>An upkeep task that fails by an error of the program is begun again: without it the agent would be half alive.</summary>
    private async Task KeepUpAsync(Func<Task> upkeep)
    {
        while (!_stop.IsCancellationRequested)
        {
            try
            {
                await upkeep();
                return;
            }
            catch (OperationCanceledException) when (_stop.IsCancellationRequested)
            {
                return;
            }
#pragma warning disable CA1031 // See above.
            catch (Exception e)
#pragma warning restore CA1031
            {
                _logger.UpkeepBroke(e);
                await Task.Delay(LedgerRetryDelay, time, CancellationToken.None);
            }
        }
    }
}
