using System.Diagnostics;
using MountLedger.Linux;
using MountLedger.Postgres;

namespace MountLedger.Agent;

/// <summary>Why a stretch of serving ended by itself. <paramref name="Superseded"/>: another agent serves the host; else the ledger turned out to be old.</summary>
internal sealed record EndOfServing(bool Superseded, string Why);

/// <summary>
/// One stretch of serving a host, from its lease to its end: steps 3 to 5 of a start (section 6 of the contract), and what keeps it going. It ends with
/// the agent, when another agent takes the host over, or when the ledger is found to be older than it was: then the next stretch begins from the lease.
/// </summary>
internal sealed class Serving(
    AgentSettings settings, NodeAccess access, LedgerAccess ledger, LedgerDatabase database, WorkerOptions workerOptions, HeadsMemory heads,
    KernelIdentity identity, string agentId, string version, Func<Task> onLedgerAway, TimeProvider time, ILoggerFactory loggers) : IAsyncDisposable
{
    private const int HostAttemptsMax = 20;
    private const double HurrySeconds = 2;

    /// <summary>Fewer appends of this host than this, within a second: nobody is in a hurry.</summary>
    private const int QuietAppends = 25;

    private static readonly TimeSpan RequestPurgeInterval = TimeSpan.FromMinutes(30);
    private static readonly TimeSpan CleanSlatesInterval = TimeSpan.FromSeconds(1);

    /// <summary>Often, so that little is flushed at a time: while megabytes are, the ledger's own flushes wait.</summary>
    private static readonly TimeSpan HeadsUpkeepInterval = TimeSpan.FromMilliseconds(200);

    private static readonly TimeSpan AfterErrorDelay = TimeSpan.FromSeconds(1);

    private readonly ILogger _logger = loggers.CreateLogger("mountledgerd");
    private readonly TaskCompletionSource<EndOfServing> _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly CancellationTokenSource _stop = new();
    private readonly List<Task> _upkeep = [];
    private WorkerMountHost? _host;
    private HostNode? _node;

    /// <summary>Completes when it has to end by itself.</summary>
    public Task<EndOfServing> Ended => _ended.Task;

    public bool HasLease { get; private set; }

    public WorkerMountHost? MountHost => _host;

    /// <exception cref="InvalidOperationException">Another agent serves the host: the message names it.</exception>
    /// <exception cref="LedgerUnavailableException">The ledger went away meanwhile.</exception>
    public async Task StartAsync(long started, CancellationToken cancellationToken)
    {
        KillPoint.Reached("start-ledger-open");
        // 3. The lease, with an epoch that neither the ledger nor this machine has seen before.
        var memory = new LocalMemory(settings.StateDir);
        var (epochHere, epochThere) = (memory.ReadEpoch(), await new LedgerPast(database).ReadEpochAsync(settings.Host!, cancellationToken));
        var (agent, lease) = await TakeLeaseAsync(memory, epochHere, cancellationToken);
        // From here on nobody else appends outcomes for this host, so all of it can be read while the rest is done.
        var desired = ledger.Store.LoadHostAsync(agent.Host, cancellationToken);
        // 4. Workers of earlier lives are dead before anything is believed of the mount table.
        _host = new WorkerMountHost(workerOptions);
        await Task.WhenAll(KillEarlierAsync(_host, cancellationToken), RecordStartAsync(agent, epochHere, epochThere, cancellationToken));
        var worker = StartWorkerAsync(_host, cancellationToken);

        // 5. Compare, then open.
        access.Close("the agent is starting: it compares the ledger with the mount table");
        var store = new RememberingStore(ledger.Store, heads, LedgerIsOlder, desired);
        var hostState = await store.LoadHostStateAsync(agent.Host, cancellationToken);
        var node = _node = new HostNode(
            agent, store, _host, hostState, settings.Roots, time, loggers.CreateLogger("mountledger"),
            new ExecutorOptions { PollInterval = IntervalOf(settings.PollSeconds) },
            driftOptions: new DriftOptions { AuditInterval = IntervalOf(settings.AuditSeconds) }, lease: lease, heads: heads);
        node.Journal.OnFenced = () => _ = SupersededAsync(agent);
        await node.StartAsync(worker, cancellationToken);
        _upkeep.Add(KeepUpAsync(() => ListenAsync(node)));
        _upkeep.Add(KeepUpAsync(() => RenewLeaseAsync(node, lease)));
        _upkeep.Add(KeepUpAsync(() => EveryAsync(RequestPurgeInterval, token => ledger.Store.PurgeRequestsAsync(token))));
        _upkeep.Add(KeepUpAsync(() => MarkCleanSlatesAsync(agent.Host)));
        _upkeep.Add(KeepUpAsync(() => Task.Run(KeepHeadsAsync)));
        KillPoint.Reached("start-before-open");
        access.Open(node);
        _logger.Open(settings.Socket, (long)Stopwatch.GetElapsedTime(started).TotalMilliseconds);
    }

    /// <summary>The agent stops: running operations may finish within the deadline, then the lease is given back.</summary>
    public async Task StopAsync(TimeSpan deadline)
    {
        await _stop.CancelAsync();
        // What hangs on somebody else's server is not waited for; the next start settles it.
        _host?.HurryAfter(TimeSpan.FromSeconds(Math.Min(HurrySeconds, deadline.TotalSeconds)));
        if (_node is not null) await _node.StopAsync(deadline);
        foreach (var task in _upkeep) await Quietly(task);
        if (_node is { } node) await Quietly(ReleaseLeaseAsync(node.Agent));
        await DisposeAsync();
    }

    /// <summary>It has ended by itself: what is under way is not ours to finish, so the workers end first.</summary>
    public async Task EndAsync()
    {
        _node?.Journal.Fence();
        await _stop.CancelAsync();
        if (_host is { } host)
        {
            _host = null;
            await host.DisposeAsync();
        }
        if (_node is { } node) await node.StopAsync(TimeSpan.FromSeconds(HurrySeconds));
        foreach (var task in _upkeep) await Quietly(task);
        await DisposeAsync();
    }

    /// <summary>Lets go of node and workers, also of a start that broke off and is begun again.</summary>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _node, null) is { } node) await node.DisposeAsync();
        if (Interlocked.Exchange(ref _host, null) is { } host) await host.DisposeAsync();
    }

    private static TimeSpan IntervalOf(double seconds) => seconds == 0 ? Timeout.InfiniteTimeSpan : TimeSpan.FromSeconds(seconds);

    private async Task<(AgentIdentity, AgentLease)> TakeLeaseAsync(LocalMemory memory, long epochHere, CancellationToken cancellationToken)
    {
        var machineId = KernelIdentityReader.ReadMachineId();
        var ttl = TimeSpan.FromSeconds(settings.LeaseSeconds);
        var asked = time.GetTimestamp();
        var result = await new HostLease(database).TakeAsync(
            settings.Host!, agentId, machineId, $"{identity.BootId}/{identity.MountNamespaceId}", epochHere, ttl, cancellationToken);
        if (result is LeaseResult.HeldBy held)
        {
            throw new InvalidOperationException(
                $"host {settings.Host} is served by agent {held.Agent} on machine {held.MachineId}"
                + (held.MachineId == machineId ? ", in another mount namespace of this machine" : "")
                + $" (epoch {held.Epoch}) until {held.ExpiresAt:O}: "
                + "stop that one, or give this host another name");
        }
        var epoch = ((LeaseResult.Taken)result).Epoch;
        HasLease = true;
        KillPoint.Reached("start-lease-taken");
        memory.WriteEpoch(epoch);
        KillPoint.Reached("start-epoch-kept");
        var lease = new AgentLease(
            time, ttl, async () => await new HostLease(database).RenewAsync(settings.Host!, epoch, agentId, ttl, CancellationToken.None));
        lease.Taken(asked);

        return (new AgentIdentity(settings.Host!, agentId, epoch), lease);
    }

    /// <summary>Once it is recorded the ledger is known to take this agent's appends, and is compared with what the agent remembers.</summary>
    private async Task RecordStartAsync(AgentIdentity agent, long epochHere, long epochThere, CancellationToken cancellationToken)
    {
        await AppendStartAsync(agent, cancellationToken);
        _logger.LedgerReady(database.Description, agent.Epoch);
        await CompareWithMemoryAsync(epochHere, epochThere, cancellationToken);
        KillPoint.Reached("start-recorded");
    }

    private static async Task KillEarlierAsync(WorkerMountHost host, CancellationToken cancellationToken)
    {
        await host.KillEarlierWorkersAsync(cancellationToken);
        KillPoint.Reached("start-workers-killed");
    }

    private static async Task StartWorkerAsync(WorkerMountHost host, CancellationToken cancellationToken)
    {
        await host.StartAsync(cancellationToken);
        KillPoint.Reached("start-worker-ready");
    }

    private async Task AppendStartAsync(AgentIdentity agent, CancellationToken cancellationToken)
    {
        var change = new HostEvent.AgentStarted(
            agent.Epoch, agentId, KernelIdentityReader.ReadMachineId(), identity.BootId, KernelIdentityReader.ReadKernelRelease(), version);
        for (var attempt = 0; attempt < HostAttemptsMax; attempt++)
        {
            var state = await ledger.Store.LoadHostStateAsync(agent.Host, cancellationToken);
            switch (await HostHandler.AppendAsync(ledger.Store, agent.Own(), state, change))
            {
                case AppendResult.Appended: return;
                case AppendResult.StaleEpoch stale:
                    throw new InvalidOperationException($"host {agent.Host} was taken over by epoch {stale.CurrentEpoch} while this agent started");
            }
        }
        throw new InvalidOperationException(
            $"the row of host {agent.Host} does not fit its events: stop all agents of this ledger and run `mountledgerd rebuild`");
    }

    /// <summary>
    /// A ledger that does not have the newest event that this agent has seen, or whose epoch has gone back, was restored from a backup.
    /// </summary>
    private async Task CompareWithMemoryAsync(long epochHere, long epochThere, CancellationToken cancellationToken)
    {
        var past = new LedgerPast(database);
        var sign = heads.Newest is { } newest && !await past.HasEventAsync(settings.Host!, newest.Seq, newest.Hash, cancellationToken)
            ? $"it has no event {newest.Seq} of that hash"
            : epochThere < epochHere && heads.MayBeOfThisHost ? $"its epoch is {epochThere}, and was {epochHere}" : null;
        if (sign is null) return;
        _logger.LedgerOlder(sign);
        var present = (await ledger.Store.LoadHostAsync(settings.Host!, cancellationToken)).Where(state => state.Phase != Phase.Absent).Select(state => state.Mountpoint);
        await heads.FoundBehindAsync(known => past.LostAsync(settings.Host!, known, cancellationToken), present);
    }

    private void LedgerIsOlder(string sign)
    {
        if (!_ended.TrySetResult(new EndOfServing(Superseded: false, $"the ledger is older than what this agent has recorded ({sign}): the agent compares"))) return;
        _logger.LedgerOlder(sign);
        access.Close("the ledger is older than what this agent has recorded: the agent compares");
        _node?.Journal.Fence();
    }

    /// <summary>Says who serves the host, as far as the ledger can tell.</summary>
    private async Task SupersededAsync(AgentIdentity agent)
    {
        if (_ended.Task.IsCompleted) return;
        var holder = "another agent";
        access.Close($"host {agent.Host} is served by {holder} now: this one was superseded");
        try
        {
            if (await new HostLease(database).ReadAsync(agent.Host, CancellationToken.None) is { } lease)
                holder = $"another agent, {lease.Agent} on machine {lease.MachineId} (epoch {lease.Epoch}),";
        }
        catch (LedgerUnavailableException e)
        {
            _logger.UpkeepFailed(e.Message);
        }
        if (!_ended.TrySetResult(new EndOfServing(
            Superseded: true, $"host {agent.Host} is served by {holder} now: this one was superseded, and does nothing any more; stop one of the two"))) return;
        _logger.Superseded(agent.Host, holder);
    }

    private async Task ListenAsync(HostNode node)
    {
        await foreach (var wakeUp in new WakeUps(database).ListenAsync(node.Agent.Host, _stop.Token))
        {
            if (wakeUp.StreamId is { } stream)
            {
                await node.OnAppendedElsewhereAsync(stream, _stop.Token);
                continue;
            }
            await LookBackAsync(node.Agent.Host);
            await node.OnWakeUpsMissedAsync(_stop.Token);
        }
    }

    /// <summary>The connection is new: the server may be another one than before, or the same with an older ledger.</summary>
    private async Task LookBackAsync(string host)
    {
        try
        {
            if (heads.Newest is { } newest && !await new LedgerPast(database).HasEventAsync(host, newest.Seq, newest.Hash, _stop.Token))
                LedgerIsOlder($"it has no event {newest.Seq} of that hash");
        }
        catch (LedgerUnavailableException e)
        {
            _logger.UpkeepFailed(e.Message);
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
                if (await new LedgerPast(database).ReadEpochAsync(node.Agent.Host, _stop.Token) is var epoch && epoch < node.Agent.Epoch)
                {
                    LedgerIsOlder($"its epoch is {epoch}, and was {node.Agent.Epoch}");
                    return;
                }
                node.Journal.Fence();
                return;
            }
            catch (LedgerUnavailableException e)
            {
                // Every operation's start is an append that carries the epoch, so nothing is begun while the ledger is away.
                _logger.UpkeepFailed(e.Message);
                await onLedgerAway();
            }
        }
    }

    /// <summary>What the ledger needs now and then, and can wait for while it is away.</summary>
    private async Task EveryAsync(TimeSpan interval, Func<CancellationToken, Task> upkeep)
    {
        using var timer = new PeriodicTimer(interval, time);
        while (await timer.WaitForNextTickAsync(_stop.Token))
        {
            try
            {
                await upkeep(_stop.Token);
            }
            catch (LedgerUnavailableException e)
            {
                _logger.UpkeepFailed(e.Message);
            }
        }
    }

    /// <summary>Only while this host has few appends, and something new: nobody waits for it, and who appends wants the processors.</summary>
    private Task MarkCleanSlatesAsync(string host)
    {
        var (seen, marked) = (0L, -1L);
        return EveryAsync(CleanSlatesInterval, async token =>
        {
            var before = seen;
            seen = heads.Appends;
            if (seen == marked || !IsQuietSince(before) || access.Ledger.Away is not null) return;
            await ledger.Past.MarkAsync(host, () => IsQuietSince(seen), token);
            marked = seen;
        });

        bool IsQuietSince(long appends) => heads.Appends - appends < QuietAppends;
    }

    private async Task KeepHeadsAsync()
    {
        using var timer = new PeriodicTimer(HeadsUpkeepInterval, time);
        do heads.Upkeep();
        while (await timer.WaitForNextTickAsync(_stop.Token));
    }

    private async Task ReleaseLeaseAsync(AgentIdentity agent) =>
        await new HostLease(database).ReleaseAsync(agent.Host, agent.Epoch, agent.AgentId, CancellationToken.None);

    private Task Quietly(Task task) => MountLedgerService.QuietlyAsync(task, _logger);

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
                await Task.Delay(AfterErrorDelay, time, CancellationToken.None);
            }
        }
    }
}
