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
    ILoggerFactory loggers, Task<RunningPostgres?>? search = null) : IHostedService, IAsyncDisposable
{
    /// <summary>How long a ledger that cannot be reached is waited for between tries.</summary>
    private static readonly TimeSpan LedgerRetryDelay = TimeSpan.FromSeconds(1);

    private readonly ILogger _logger = loggers.CreateLogger("mountledgerd");
    private readonly CancellationTokenSource _stop = new();
    private readonly TaskCompletionSource _ready = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly string _agentId = Guid.CreateVersion7().ToString();
    private HostLock? _lock;
    private OwnPostgres? _postgres;
    private HeadsMemory? _heads;
    private Serving? _serving;
    private Task _starting = Task.CompletedTask;
    private Task _pulse = Task.CompletedTask;
    private bool _hasLease;
    private bool _begun;
    private bool _startedPostgres;

    /// <summary>Commands are taken from now on.</summary>
    public Task Ready => _ready.Task;

    /// <summary>The process's exit code when starting failed: 1; 0 otherwise.</summary>
    public int ExitCode { get; private set; }

    /// <summary>The kernel as this agent reaches it; null before its workers may start, and after its end.</summary>
    public WorkerMountHost? MountHost => _serving?.MountHost;

    /// <summary>Another agent serves the host; this one does nothing any more.</summary>
    public bool IsSuperseded { get; private set; }

    /// <summary>Why what the agent has seen of its ledger cannot be kept in the state directory; null when it can.</summary>
    public string? HeadsProblem => _heads?.Problem;

    /// <summary>Begins at once with what the host would begin with when it starts.</summary>
    public void Begin()
    {
        if (Interlocked.Exchange(ref _begun, true)) return;
        lifetime.ApplicationStopping.Register(() =>
        {
            // Who waits for an outcome gets it, if it comes in the time that running operations are given.
            access.Close("the agent is stopping");
            access.EndWaitsAfter(TimeSpan.FromSeconds(settings.ShutdownSeconds));
        });
        _starting = Task.Run(RunAsync, CancellationToken.None);
    }

    public Task StartAsync(CancellationToken cancellationToken)
    {
        Begin();
        return Task.CompletedTask;
    }

    public async Task StopAsync(CancellationToken cancellationToken)
    {
        _logger.Stopping();
        access.Close("the agent is stopping");
        _ready.TrySetCanceled(CancellationToken.None);
        await _stop.CancelAsync();
        await Quietly(_starting);
        if (_serving is { } serving) await serving.StopAsync(TimeSpan.FromSeconds(settings.ShutdownSeconds));
        await DisposeAsync();
    }

    public async ValueTask DisposeAsync()
    {
        // Also after a host that could not start: then nobody has stopped what was begun.
        await _stop.CancelAsync();
        await Quietly(_starting);
        if (Interlocked.Exchange(ref _serving, null) is { } serving)
        {
            _hasLease = serving.HasLease;
            await serving.StopAsync(TimeSpan.Zero);
        }
        await Quietly(_pulse);
        _heads?.Dispose();
        _heads = null;
        await ledger.CloseAsync();
        if (_postgres is not null)
        {
            // A server that ran before us and a lease that is another's: it is that agent's server.
            var isOurs = _hasLease || _startedPostgres;
            if (isOurs && !await _postgres.StopAsync(CancellationToken.None)) _logger.UpkeepFailed("PostgreSQL did not stop in time");
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
            await ServeAsync(_stop.Token);
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

    private async Task ServeAsync(CancellationToken cancellationToken)
    {
        var started = Stopwatch.GetTimestamp();
        var version = typeof(MountLedgerService).Assembly.GetName().Version?.ToString(3) ?? "0";
        _logger.Starting(_agentId, settings.Host!, version, string.Join(", ", settings.Roots));
        Directory.CreateDirectory(settings.StateDir);
        // A launcher has made the roots: they may be on a filesystem that hangs, and the agent keeps away from all of these.
        if (workerOptions.Launcher is { } launcher) _ = EndWithAsync(launcher);
        else foreach (var root in settings.Roots) Directory.CreateDirectory(root);

        // 1. One agent for each mount namespace of this machine.
        var identity = KernelIdentityReader.Read();
        _lock = TakeLock(identity);

        KillPoint.Reached("start-locked");
        // 2. The ledger, at the schema of this program.
        access.Close("the agent is starting: it waits for its ledger");
        var remembered = Task.Run(() => HeadsMemory.Open(settings.StateDir, settings.Host!, _logger), CancellationToken.None);
        LedgerDatabase database;
        try
        {
            database = await OpenLedgerAsync(cancellationToken);
        }
        finally
        {
            _heads = await remembered;
        }

        _pulse = Task.Run(() => new LedgerPulse(database, access.Ledger, time).RunAsync(_stop.Token), CancellationToken.None);
        while (true)
        {
            var serving = new Serving(
                settings, access, ledger, database, workerOptions, _heads!, identity, _agentId, version, RestartOwnPostgresAsync, time, loggers);
            _serving = serving;
            await StartWithLedgerAsync(serving, started, cancellationToken);
            _ready.TrySetResult();
            var end = await serving.Ended.WaitAsync(cancellationToken);
            access.Close(end.Why);
            await serving.EndAsync();
            if (IsSuperseded = end.Superseded) return; // It goes on to say so.
            started = Stopwatch.GetTimestamp();
        }
    }

    /// <summary>From the lease on; a ledger that goes away meanwhile is waited for, and it begins with the lease again.</summary>
    private async Task StartWithLedgerAsync(Serving serving, long started, CancellationToken cancellationToken)
    {
        while (true)
        {
            try
            {
                await serving.StartAsync(started, cancellationToken);
                return;
            }
            catch (LedgerUnavailableException e)
            {
                _logger.LedgerAwaited(e.Message);
                access.Close($"the agent is starting: {e.Message}");
                await serving.DisposeAsync();
                await Task.Delay(LedgerRetryDelay, time, cancellationToken);
                await RestartOwnPostgresAsync();
            }
        }
    }

    /// <summary>Without its launcher an agent can start no worker, and cannot get another launcher: the service's manager can start both again.</summary>
    private async Task EndWithAsync(Launcher launcher)
    {
        await launcher.Ended;
        if (_stop.IsCancellationRequested) return;
        _logger.LauncherGone(launcher.Pid);
        ExitCode = 1;
        lifetime.StopApplication();
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
            _postgres = await OwnPostgres.StartAsync(settings.StateDir, workerOptions.Launcher, search, cancellationToken);
            _startedPostgres |= !_postgres.WasRunning;
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
            _postgres = await OwnPostgres.StartAsync(settings.StateDir, workerOptions.Launcher, search: null, _stop.Token);
            _startedPostgres |= !_postgres.WasRunning;
            await dead.DisposeAsync();
        }
#pragma warning disable CA1031 // Whatever keeps it from starting now, it is tried again; the lease has to be renewed meanwhile.
        catch (Exception e) when (e is not OperationCanceledException)
#pragma warning restore CA1031
        {
            _logger.UpkeepFailed(e.Message);
        }
    }

    private Task Quietly(Task task) => QuietlyAsync(task, _logger);

    /// <summary>Awaits it; how it ended is logged and stops nothing.</summary>
    internal static async Task QuietlyAsync(Task task, ILogger logger)
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
            logger.UpkeepFailed(e.Message);
        }
    }
}
