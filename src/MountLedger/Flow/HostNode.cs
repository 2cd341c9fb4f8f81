using System.Collections.Immutable;
using Microsoft.Extensions.Logging;

namespace MountLedger;

/// <summary>
/// Everything that serves one host, put together over the three seams: commands, executor, reconciler. The life of an
/// agent without its database server, its sockets and its lock.
/// </summary>
public sealed class HostNode : IAsyncDisposable
{
    private readonly IEventStore _store;
    private readonly TimeProvider _time;
    private readonly ILogger _logger;
    private readonly IMountHost _host;
    private readonly CancellationTokenSource _stop = new();
    private Task _watching = Task.CompletedTask;
    private IReadOnlyDictionary<string, KernelMount?> _toRepair = new Dictionary<string, KernelMount?>();

    /// <param name="agent">Who serves the host, with the epoch that the ledger gave it.</param>
    /// <param name="store">The ledger.</param>
    /// <param name="host">The kernel.</param>
    /// <param name="hostState">The host's state as loaded from the ledger.</param>
    /// <param name="roots">The directories below which everything mounted is ours or foreign.</param>
    /// <param name="lease">What is asked right before each operation on the kernel; null: nobody else can reach this host.</param>
    /// <param name="heads">What is remembered of mountpoints where the ledger is behind; null: it is believed.</param>
    public HostNode(
        AgentIdentity agent, IEventStore store, IMountHost host, HostState hostState, ImmutableArray<string> roots, TimeProvider time,
        ILogger logger, ExecutorOptions? executorOptions = null, HandlerOptions? handlerOptions = null,
        DriftOptions? driftOptions = null, AgentLease? lease = null, IKeptHeads? heads = null)
    {
        (Agent, _store, _time, _logger) = (agent, store, time, logger);
        Live = new LiveStates();
        Host = new HostSwitch(hostState);
        Journal = new MountJournal(store, Live, agent, time, logger, lease);
        var @operator = new MountOperator(agent, host, Live, Journal, Host, time, logger);
        var servers = new ServerProbes(host, Live);
        var check = new DriftCheck(agent, host, Live, servers, Journal, roots, logger);
        Executor = new MountExecutor(agent, store, Live, Journal, @operator, check, new RepairOrder(host, Live), time, executorOptions ?? new(), logger);
        Commands = new CommandHandler(
            agent, host, Live, Journal, @operator, Executor, Host, new HoldCheck(agent, host, servers, Journal, time, logger), new RequestReplay(store, Live), time, handlerOptions ?? new());
        Executor.Polling = RefreshHostAsync;
        HostCommands = new HostHandler(agent, store, Host);
        Repairs = new Repairs(agent, host, Live, Journal, Executor, check, Host);
        Behind = new BehindDecisions(agent, host, Live, Journal, Executor, heads, logger);
        Consumers = new ConsumerSync(agent, store, Live, Commands, Host);
        Reconciler = new Reconciler(agent, store, host, Live, check, time, logger);
        _host = host;
        if (driftOptions is not null) Watch = new DriftWatch(host, Live, Executor, check, servers, time, driftOptions, logger);
    }

    public AgentIdentity Agent { get; }
    public LiveStates Live { get; }
    public HostSwitch Host { get; }
    public MountJournal Journal { get; }
    public MountExecutor Executor { get; }
    public CommandHandler Commands { get; }
    public HostHandler HostCommands { get; }
    public Reconciler Reconciler { get; }
    public Repairs Repairs { get; }
    public ConsumerSync Consumers { get; }
    public BehindDecisions Behind { get; }

    /// <summary>Null when nobody watches the mount table while this node runs.</summary>
    public DriftWatch? Watch { get; }

    /// <summary>Compares ledger and kernel, then begins to act. Commands may be given from then on.</summary>
    /// <param name="mayAct">Awaited before the first operation on the kernel: what carries them out is there.</param>
    /// <param name="cancellationToken">Ends it before anything was done.</param>
    public async Task<ReconcileReport> StartAsync(Task mayAct, CancellationToken cancellationToken)
    {
        // Watched before it is listed: what happens in between is told.
        var changes = Watch is null ? null : _host.WatchAsync(_stop.Token);
        var report = await Reconciler.RunAsync(cancellationToken);
        KillPoint.Reached("start-compared");
        await mayAct;
        await Behind.MarkAsync(cancellationToken);
        _toRepair = report.ToRepair;
        Executor.Start();
        KillPoint.Reached("start-acting");
        foreach (var mountpoint in report.Suspects) Executor.Examine(mountpoint);
        if (changes is not null) _watching = Watch!.RunAsync(changes, _stop.Token);
        return report;
    }

    /// <summary>How far the repair of what was missing at the start has come.</summary>
    public (int ToRepair, int Done, int Failed) Progress()
    {
        var (done, failed) = (0, 0);
        foreach (var (mountpoint, before) in _toRepair)
        {
            var state = Live.PresentAt(mountpoint);
            if (state is null || (state.Kernel is { } kernel && kernel != before)) done++; // Mounted again, or nobody needs it any more.
            else if (state.Error is not null || state.Drift.ContainsKey(DriftKind.ShadowedData)) failed++;
        }
        return (_toRepair.Count, done, failed);
    }

    /// <summary>Handles a command of a mountpoint.</summary>
    public Task<CommandResult> HandleAsync(MountCommand command, CancellationToken cancellationToken) =>
        Commands.HandleAsync(command, cancellationToken);

    /// <summary>Handles an operator's choice about the host; what waited for it goes on.</summary>
    public async Task<HostState> HandleAsync(HostCommand command)
    {
        var (state, changed) = await HostCommands.HandleAsync(command);
        if (changed) WakeAll();
        return state;
    }

    /// <summary>
    /// Somebody else appended to this stream. Only tells the executor where to look, so that a doubled or false call does no harm.
    /// </summary>
    public async Task OnAppendedElsewhereAsync(string streamId, CancellationToken cancellationToken)
    {
        if (streamId != HostEvent.StreamId)
        {
            Executor.Wake(streamId, reload: true);
            return;
        }
        try
        {
            Host.Publish(await _store.LoadHostStateAsync(Agent.Host, cancellationToken));
            WakeAll();
        }
        catch (LedgerUnavailableException e)
        {
            _logger.WorkListUnreadable(e.Message);
        }
    }

    /// <summary>Wake-ups may have been missed: looks at everything that waits for work.</summary>
    public async Task OnWakeUpsMissedAsync(CancellationToken cancellationToken)
    {
        await OnAppendedElsewhereAsync(HostEvent.StreamId, cancellationToken);
        try
        {
            foreach (var stream in await _store.ReadWorkListAsync(Agent.Host, _time.GetUtcNow(), cancellationToken))
                Executor.Wake(stream.Id, reload: true);
        }
        catch (LedgerUnavailableException e)
        {
            _logger.WorkListUnreadable(e.Message);
        }
    }

    /// <summary>Lets running operations finish within the deadline; mounts stay in place.</summary>
    public async Task StopAsync(TimeSpan deadline)
    {
        await EndWatchAsync();
        await Executor.StopAsync(deadline);
    }

    public async ValueTask DisposeAsync()
    {
        await EndWatchAsync();
        await Executor.DisposeAsync();
        _stop.Dispose();
    }

    private async Task EndWatchAsync()
    {
        _stop.Cancel();
        try
        {
            await _watching;
        }
        catch (OperationCanceledException)
        {
            // That is how it ends.
        }
#pragma warning disable CA1031 // A stop goes on to its end: operations, lease and database are still to be seen to.
        catch (Exception e)
#pragma warning restore CA1031
        {
            _logger.AuditFailed(e.Message);
        }
        _watching = Task.CompletedTask;
    }

    /// <summary>An operator's choice that was given up may be committed later, and this agent is told of nothing that it appended itself.</summary>
    private async Task RefreshHostAsync(CancellationToken cancellationToken)
    {
        var state = await _store.LoadHostStateAsync(Agent.Host, cancellationToken);
        if (state.Version <= Host.State.Version) return;
        Host.Publish(state);
        WakeAll();
    }

    private void WakeAll()
    {
        foreach (var state in Live.Present()) Executor.Wake(state.Mountpoint);
    }
}
