using System.Collections.Concurrent;
using System.Collections.Immutable;
using Microsoft.Extensions.Logging;
using MountLedger.Linux.Interop;
using MountLedger.Wire;

namespace MountLedger.Linux;

/// <summary>
/// The kernel as the agent reaches it: every operation goes to a worker process, so that nothing the kernel does can hold up
/// the agent. Only the mount table itself, which touches no filesystem, is read here.
/// </summary>
public sealed class WorkerMountHost : IMountHost, IAsyncDisposable
{
    /// <summary>Probes that may hang at the same time: fewer than the worker has threads, so that looks at others still find one.</summary>
    private const int ProbesMax = 12;

    private const string Ended = "the agent has stopped acting on the kernel";

    private readonly ConcurrentDictionary<(string Mountpoint, ulong MountId), Lazy<Task<string?>>> probes = new();
    private readonly WorkerOptions options;
    private readonly WorkerSupervisor supervisor;
    private readonly WorkerLanes lanes;

    public WorkerMountHost(WorkerOptions options)
    {
        this.options = options;
        supervisor = new WorkerSupervisor(options);
        lanes = new WorkerLanes(supervisor, options);
        supervisor.Ended += SweepAfter;
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
        await lanes.StartAsync(cancellationToken);
        if (dead.Count > 0) _ = SweepAsync(dead);
    }

    /// <summary>
    /// Kills the workers that earlier agents left in this run directory. Call it with the host's lock held, before the first
    /// operation.
    /// </summary>
    /// <returns>Pids of those that the kernel does not let go of; <see cref="QuiesceAsync"/> waits for them.</returns>
    public Task<IReadOnlyList<int>> KillEarlierWorkersAsync(CancellationToken cancellationToken) =>
        supervisor.KillEarlierAsync(cancellationToken);

    /// <summary>The pid of the worker that takes requests for local filesystems now, or null: for diagnosis.</summary>
    public int? WorkerPid => lanes.LocalPid;

    /// <summary>
    /// The agent stops: operations on filesystems that may block are waited for no longer than this, and are left to the next start.
    /// </summary>
    public void HurryAfter(TimeSpan patience) => lanes.HurryAfter(patience);

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

    /// <summary>What <c>doctor</c> can find out about the kernel and the directories, looked at by the worker. Takes as long as an operation may.</summary>
    public async Task<ImmutableArray<DoctorFinding>> ExamineAsync(CancellationToken cancellationToken)
    {
        var (end, answer, why) = await CallAsync(new WorkerRequest(0, WorkerVerb.Examine, 0, null, null, null, null), cancellationToken);
        return answer?.Findings ?? [DoctorFinding.Shortfall(
            "worker", "answer", $"the worker does not answer: {why ?? answer?.Reason ?? end.ToString()}",
            "see its messages in the agent's log; if it hangs, free the filesystem that it waits for")];
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
        var watch = MountTableWatch.Start(options.Roots, options.Logger, OpenMountEvents);
        cancellationToken.UnsafeRegister(static watch => ((MountTableWatch)watch!).Dispose(), watch);
        return watch.ReadAllAsync(cancellationToken);
    }

    /// <summary>What is watched is the namespace, not the process: whoever opened the group, it can be read here.</summary>
    private (Descriptor? Group, int Errno) OpenMountEvents()
    {
        if (options.Launcher is { } launcher) return launcher.MountEventsAsync(options.StartDeadline).GetAwaiter().GetResult();
        var number = PathCalls.OpenAt(PathCalls.AT_FDCWD, "/proc/self/ns/mnt", PathCalls.O_RDONLY, 0, out var errno);
        if (number < 0) return (null, errno);
        using var ns = new Descriptor(number);
        return (FanotifyCalls.WatchMounts(number, out errno), errno);
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
        {
            lanes.Forget(prepared.Token);
            return new AttachResult.Unknown($"{tried}: the worker that prepared it is gone");
        }
        var (end, answer, why) = await UnlessEndedAsync(lanes.AttachAsync(link, prepared, cancellationToken));
        return answer switch
        {
            { Outcome: WorkerOutcome.Attached } => new AttachResult.Attached(answer.MountId, answer.Directories ?? [], answer.Flag == true),
            { Outcome: WorkerOutcome.Failed, Error: { } error } => new AttachResult.Failed(error),
            _ when end == CallEnd.NotSent => new AttachResult.Unknown($"{tried}: {why ?? "the worker that prepared it is gone"}"),
            _ => new AttachResult.Unknown(answer?.Reason ?? Unknown(tried, end, why)),
        };
    }

    public Task DiscardAsync(PreparedMount prepared)
    {
        // The mount of a worker that is gone went with it.
        supervisor.Find(prepared.Token)?.Post(new WorkerRequest(0, WorkerVerb.Discard, prepared.Token, null, null, null, null));
        lanes.Forget(prepared.Token);
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
            _ => new UnmountResult.Unknown(answer?.Reason ?? Unknown(tried, end, why)),
        };
    }

    public async Task<RemountResult> RemountAsync(RemountOrder order, CancellationToken cancellationToken)
    {
        var tried = $"remount {order.Mountpoint}";
        var (end, answer, why) = await CallAsync(
            new WorkerRequest(0, WorkerVerb.Remount, 0, order.Mountpoint, null, null, null) { Change = order }, cancellationToken);
        return answer switch
        {
            { Outcome: WorkerOutcome.Remounted } => new RemountResult.Remounted(),
            { Outcome: WorkerOutcome.Failed, Error: { } error } => new RemountResult.Failed(error),
            _ when end == CallEnd.NotSent => new RemountResult.Failed(NoAnswer(OperationKind.Remount, tried, end, why)),
            _ => new RemountResult.Unknown(answer?.Reason ?? Unknown(tried, end, why)),
        };
    }

    /// <inheritdoc/>
    /// <exception cref="TimeoutException">A killed worker is not dead after the operation deadline.</exception>
    public Task QuiesceAsync(string mountpoint, CancellationToken cancellationToken) =>
        supervisor.QuiesceAsync(mountpoint, cancellationToken);

    public async Task<string?> ProbeAsync(string mountpoint, ulong? mountId, CancellationToken cancellationToken)
    {
        if (lanes.WhatMayBlock(mountpoint) is null) return null;
        // Who asks while somebody else does gets that answer.
        var key = (mountpoint, mountId ?? 0);
        return await probes.GetOrAdd(key, asked => new Lazy<Task<string?>>(() => ProbeOnceAsync(asked))).Value.WaitAsync(cancellationToken);
    }

    private async Task<string?> ProbeOnceAsync((string Mountpoint, ulong MountId) asked)
    {
        try
        {
            return await ProbeAsync(asked.Mountpoint, unchecked((long)asked.MountId));
        }
        finally
        {
            probes.TryRemove(asked, out _);
        }
    }

    private async Task<string?> ProbeAsync(string mountpoint, long mark)
    {
        // One that hangs still is not asked again; another mount that took its place is.
        if (lanes.IsProbing(mountpoint, mark)) return Errno.Name(Errno.ETIMEDOUT);
        if (lanes.Probes >= ProbesMax) return Errno.Name(Errno.EAGAIN);
        var (end, answer, _) = await CallAsync(
            new WorkerRequest(0, WorkerVerb.Probe, mark, mountpoint, null, null, null), CancellationToken.None);
        return end switch
        {
            CallEnd.Answered => answer?.Reason,
            CallEnd.TimedOut => Errno.Name(Errno.ETIMEDOUT),
            // A worker that died or is full says nothing about the filesystem.
            _ => Errno.Name(Errno.EAGAIN),
        };
    }

    public async ValueTask DisposeAsync()
    {
        await supervisor.DisposeAsync();
        lanes.Dispose();
    }

    private void SweepAfter(int pid)
    {
        var name = pid.ToString(System.Globalization.CultureInfo.InvariantCulture);
        if (Directory.Exists(Path.Combine(options.StagingDirectory, name))) _ = SweepAsync([name]);
    }

    /// <summary>
    /// Undoes what helpers of dead workers have left in staging. Nobody waits for it: it is at no mountpoint, and who mounts there
    /// again does so in a place of his own.
    /// </summary>
    private async Task SweepAsync(IEnumerable<string> dead)
    {
        var (_, answer, why) = await CallAsync(
            new WorkerRequest(0, WorkerVerb.Sweep, 0, null, null, null, null) { Dead = [.. dead] }, CancellationToken.None);
        if (why == Ended) return; // The next agent does it.
        if (answer?.Outcome != WorkerOutcome.Swept)
            options.Logger.LogWarning("What dead workers left below {Directory} was not undone: {Why}", options.StagingDirectory, why ?? answer?.Reason ?? "no answer");
        foreach (var path in answer?.Directories ?? [])
            options.Logger.LogInformation("A helper's mount that was never put into place was undone: {Path}", path);
    }

    private ValueTask<(CallEnd End, WorkerAnswer? Answer, string? Why)> CallAsync(WorkerRequest request, CancellationToken cancellationToken) =>
        UnlessEndedAsync(lanes.CallAsync(request, cancellationToken));

    /// <summary>A command can be on its way when the agent stops acting on the kernel: what it asks for is then not done, and its append says why.</summary>
    private static async ValueTask<(CallEnd End, WorkerAnswer? Answer, string? Why)> UnlessEndedAsync(
        ValueTask<(CallEnd End, WorkerAnswer? Answer, string? Why)> call)
    {
        try
        {
            return await call;
        }
        catch (ObjectDisposedException)
        {
            return (CallEnd.NotSent, null, Ended);
        }
    }

    private static string Unknown(string tried, CallEnd end, string? why) =>
        end == CallEnd.TimedOut ? $"{tried}: {why}" : $"{tried}: the worker died while it was at it";

    private static KernelError NoAnswer(OperationKind operation, string tried, CallEnd end, string? why) => end switch
    {
        CallEnd.TimedOut => KernelFailure.Error(operation, Errno.ETIMEDOUT, tried, why ?? "no answer from the worker"),
        CallEnd.NotSent => KernelFailure.Error(operation, Errno.EAGAIN, tried, why ?? "the worker has no free thread"),
        CallEnd.Gone => KernelFailure.Error(operation, Errno.ECONNRESET, tried, "the worker died while it was at it"),
        _ => KernelFailure.Error(operation, Errno.EIO, tried, why ?? "the worker failed"),
    };
}
