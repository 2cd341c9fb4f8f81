using System.Collections.Immutable;
using Microsoft.Extensions.Logging;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// The kernel as the agent reaches it: every operation goes to a worker process, so that nothing the kernel does can hold up
/// the agent. Only the mount table itself, which touches no filesystem, is read here.
/// </summary>
public sealed class WorkerMountHost : IMountHost, IAsyncDisposable
{
    private readonly WorkerOptions options;
    private readonly WorkerSupervisor supervisor;

    public WorkerMountHost(WorkerOptions options)
    {
        this.options = options;
        supervisor = new WorkerSupervisor(options);
        Identity = KernelIdentityReader.Read();
    }

    public KernelIdentity Identity { get; }

    public WorkerCounters Counters => supervisor.Counters;

    /// <summary>Starts the first worker, so that the first command need not wait for it.</summary>
    /// <exception cref="WorkerUnavailableException">It does not start.</exception>
    public async Task StartAsync(CancellationToken cancellationToken)
    {
        // All of these are dead: none of ours has been started.
        var dead = Staging.WorkersIn(options.StagingDirectory);
        await supervisor.GetAsync(cancellationToken);
        if (dead.Count > 0) _ = SweepAsync(dead);
    }

    /// <summary>
    /// Kills the workers that earlier agents left in this run directory. Call it with the host's lock held, before the first
    /// operation.
    /// </summary>
    /// <returns>Pids of those that the kernel does not let go of; <see cref="QuiesceAsync"/> waits for them.</returns>
    public Task<IReadOnlyList<int>> KillEarlierWorkersAsync(CancellationToken cancellationToken) =>
        supervisor.KillEarlierAsync(cancellationToken);

    /// <summary>The pid of the worker that takes requests now, or null: for diagnosis.</summary>
    public int? WorkerPid => supervisor.CurrentPid;

    public async Task<Observation> ObserveAsync(string mountpoint, MountSpec? wanted, CancellationToken cancellationToken)
    {
        const int AttemptsMax = 2;
        for (var attempt = 1; attempt <= AttemptsMax; attempt++)
        {
            var (end, answer, _) = await CallAsync(
                new WorkerRequest(0, WorkerVerb.Observe, 0, mountpoint, wanted, null, null), cancellationToken);
            if (answer?.Observation is { } observation) return observation;
            if (end == CallEnd.TimedOut) break;
        }
        // The table tells what is mounted, if not whether an empty path exists; a bind mount's source cannot be compared
        // without touching it, so it counts as different.
        var mounts = await Task.Run(() => MountTable.ByPath(mountpoint), cancellationToken);
        return new Observation(
            [.. mounts.Select(found => wanted is null ? found.Mount : found.Mount with
            {
                Differences = wanted.FsType == "bind" ? ["source"] : MountComparison.Differences(wanted, found),
            })],
            mounts.Count > 0);
    }

    public Task<ImmutableArray<ObservedMount>> ListAsync(CancellationToken cancellationToken) =>
        Task.Run(
            () =>
            {
                var entries = MountInfoReader.Read(out var oddLines);
                foreach (var line in oddLines) options.Logger.LogWarning("The mount table has a line that cannot be read: {Line}", line);
                return entries.Select(entry => entry.Mount).ToImmutableArray();
            },
            cancellationToken);

    public IAsyncEnumerable<MountTableChange> WatchAsync(CancellationToken cancellationToken)
    {
        var watch = MountTableWatch.Start(options.Roots, options.Logger);
        cancellationToken.UnsafeRegister(static watch => ((MountTableWatch)watch!).Dispose(), watch);
        return watch.ReadAllAsync(cancellationToken);
    }

    public async Task<ObservedMount?> FindAsync(ulong mountId, CancellationToken cancellationToken) =>
        MountTable.TryFind(mountId, out var mount)
            ? mount
            : (await ListAsync(cancellationToken)).FirstOrDefault(candidate => candidate.MountId == mountId);

    public async Task<bool?> HasEntriesAsync(string mountpoint, CancellationToken cancellationToken) =>
        (await CallAsync(new WorkerRequest(0, WorkerVerb.HasEntries, 0, mountpoint, null, null, null), cancellationToken)).Answer?.Flag;

    public async Task<PrepareResult> PrepareAsync(string mountpoint, MountSpec spec, CancellationToken cancellationToken)
    {
        var (end, answer, why) = await CallAsync(
            new WorkerRequest(0, WorkerVerb.Prepare, 0, mountpoint, spec, null, null), cancellationToken);
        return answer switch
        {
            { Outcome: WorkerOutcome.Ready } => new PrepareResult.Ready(
                new PreparedMount(answer.Token, mountpoint, spec, answer.MountId, answer.Directories ?? [])),
            { Outcome: WorkerOutcome.Occupied, Observation: { } found } => new PrepareResult.Occupied(found),
            { Outcome: WorkerOutcome.Failed, Error: { } error } => new PrepareResult.Failed(error),
            // Whatever became of it, a mount that is attached nowhere has no effect.
            _ => new PrepareResult.Failed(NoAnswer(OperationKind.Mount, MountPlan.Of(spec).Describe(mountpoint), end, why ?? answer?.Reason)),
        };
    }

    public async Task<AttachResult> AttachAsync(PreparedMount prepared, CancellationToken cancellationToken)
    {
        var tried = MountPlan.Of(prepared.Spec).Describe(prepared.Mountpoint);
        // Nothing was attached then, but that is for the settling to say: it looks, and the mount is made again by another worker,
        // while a failure would be told to callers who did nothing wrong.
        if (supervisor.Find(prepared.Token) is not { } link)
            return new AttachResult.Unknown($"{tried}: the worker that prepared it is gone");
        var (end, answer) = await link.CallAsync(
            new WorkerRequest(0, WorkerVerb.Attach, prepared.Token, null, null, prepared, null), options.OperationDeadline, cancellationToken);
        if (end == CallEnd.TimedOut) supervisor.WriteOff(link);
        return answer switch
        {
            { Outcome: WorkerOutcome.Attached } => new AttachResult.Attached(answer.MountId, answer.Directories ?? [], answer.Flag == true),
            { Outcome: WorkerOutcome.Failed, Error: { } error } => new AttachResult.Failed(error),
            _ => new AttachResult.Unknown(answer?.Reason ?? Unknown(tried, end)),
        };
    }

    public Task DiscardAsync(PreparedMount prepared)
    {
        // The mount of a worker that is gone went with it.
        supervisor.Find(prepared.Token)?.Post(new WorkerRequest(0, WorkerVerb.Discard, prepared.Token, null, null, null, null));
        return Task.CompletedTask;
    }

    public async Task<UnmountResult> UnmountAsync(UnmountOrder order, CancellationToken cancellationToken)
    {
        var tried = $"unmount {order.Mountpoint}";
        var (end, answer, why) = await CallAsync(
            new WorkerRequest(0, WorkerVerb.Unmount, 0, null, null, null, order), cancellationToken);
        return answer switch
        {
            { Outcome: WorkerOutcome.Unmounted } => new UnmountResult.Unmounted(answer.Directories ?? []),
            { Outcome: WorkerOutcome.NotMounted } => new UnmountResult.NotMounted(answer.Directories ?? []),
            { Outcome: WorkerOutcome.Failed, Error: { } error } => new UnmountResult.Failed(error),
            _ when end == CallEnd.NotSent => new UnmountResult.Failed(NoAnswer(OperationKind.Unmount, tried, end, why)),
            _ => new UnmountResult.Unknown(answer?.Reason ?? Unknown(tried, end)),
        };
    }

    /// <inheritdoc/>
    /// <exception cref="TimeoutException">A killed worker is not dead after the operation deadline.</exception>
    public Task QuiesceAsync(string mountpoint, CancellationToken cancellationToken) =>
        supervisor.QuiesceAsync(mountpoint, cancellationToken);

    public ValueTask DisposeAsync() => supervisor.DisposeAsync();

    /// <summary>
    /// Undoes what helpers of dead workers have left in staging. Nobody waits for it: it is at no mountpoint, and who mounts there
    /// again does so in a place of his own.
    /// </summary>
    private async Task SweepAsync(IEnumerable<string> dead)
    {
        try
        {
            var (_, answer, why) = await CallAsync(
                new WorkerRequest(0, WorkerVerb.Sweep, 0, null, null, null, null) { Dead = [.. dead] }, CancellationToken.None);
            if (answer?.Outcome != WorkerOutcome.Swept)
                options.Logger.LogWarning("What dead workers left below {Directory} was not undone: {Why}", options.StagingDirectory, why ?? answer?.Reason ?? "no answer");
            foreach (var path in answer?.Directories ?? [])
                options.Logger.LogInformation("A helper's mount that was never put into place was undone: {Path}", path);
        }
        catch (ObjectDisposedException)
        {
            // The agent stops; the next one does it.
        }
    }

    private async ValueTask<(CallEnd End, WorkerAnswer? Answer, string? Why)> CallAsync(
        WorkerRequest request, CancellationToken cancellationToken)
    {
        WorkerLink link;
        try
        {
            link = await supervisor.GetAsync(cancellationToken);
        }
        catch (WorkerUnavailableException unavailable)
        {
            return (CallEnd.NotSent, null, unavailable.Message);
        }
        if (request.Verb == WorkerVerb.Prepare) request = request with { Token = link.NextToken() };
        var (end, answer) = await link.CallAsync(request, options.OperationDeadline, cancellationToken);
        if (end == CallEnd.TimedOut) supervisor.WriteOff(link);
        return (end, answer is null ? null : answer with { Token = request.Token }, null);
    }

    private string Unknown(string tried, CallEnd end) =>
        end == CallEnd.TimedOut
            ? $"{tried}: no answer from the worker within {options.OperationDeadline.TotalSeconds:0.###} s"
            : $"{tried}: the worker died while it was at it";

    private KernelError NoAnswer(OperationKind operation, string tried, CallEnd end, string? why) => end switch
    {
        CallEnd.TimedOut => KernelFailure.Error(
            operation, Errno.ETIMEDOUT, tried, $"no answer from the worker within {options.OperationDeadline.TotalSeconds:0.###} s"),
        CallEnd.NotSent => KernelFailure.Error(operation, Errno.EAGAIN, tried, why ?? "the worker has no free thread"),
        CallEnd.Gone => KernelFailure.Error(operation, Errno.ECONNRESET, tried, "the worker died while it was at it"),
        _ => KernelFailure.Error(operation, Errno.EIO, tried, why ?? "the worker failed"),
    };
}
