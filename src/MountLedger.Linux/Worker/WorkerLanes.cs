using System.Collections.Concurrent;

namespace MountLedger.Linux;

/// <summary>
/// Which worker a request goes to. What stays in this kernel shares one; what may block (helpers, network and FUSE filesystems, paths
/// and sources that lead through one) gets a worker of its own, which it alone loses; looks at such places share a third, whose
/// threads may hang without harm.
/// </summary>
internal sealed class WorkerLanes(WorkerSupervisor supervisor, WorkerOptions options) : IDisposable
{
    private readonly SharedWorker local = new(supervisor, WorkerKind.Local);
    private readonly SharedWorker looks = new(supervisor, WorkerKind.Looks);
    private readonly SpareWorkers spares = new(supervisor, options);
    private readonly ConcurrentDictionary<long, WorkerLink> reserved = new();
    private readonly BlockingMounts blocking = new();
    private readonly CancellationTokenSource hurry = new();
    private volatile WorkerLink? looking;

    public int? LocalPid => local.Pid;

    /// <summary>Starts the worker for what is local, and reads which mounts are not.</summary>
    public async Task StartAsync(CancellationToken cancellationToken)
    {
        var reading = Task.Run(() => blocking.AtOrAbove("/"), cancellationToken);
        await local.GetAsync(cancellationToken);
        await reading;
    }

    public void HurryAfter(TimeSpan patience) => hurry.CancelAfter(patience);

    /// <summary>The mount that may hold up whoever goes to this path; null: none.</summary>
    public string? WhatMayBlock(string path) => blocking.AtOrAbove(path);

    public bool IsProbing(string mountpoint, long mark) => looking is { IsUsable: true } link && link.IsProbing(mountpoint, mark);

    /// <summary>Probes that were sent and not answered, those that nobody waits for any more included.</summary>
    public int Probes => looking is { IsUsable: true } link ? link.Probes : 0;

    /// <summary>Sends a request to the worker that it belongs to. <c>Why</c>: of a call that was not answered.</summary>
    public async ValueTask<(CallEnd End, WorkerAnswer? Answer, string? Why)> CallAsync(
        WorkerRequest request, CancellationToken cancellationToken)
    {
        var blocker = BlockerOf(request);
        try
        {
            return (blocker, request.Verb) switch
            {
                (null, _) => await OnLocalAsync(request, cancellationToken),
                (_, WorkerVerb.Observe or WorkerVerb.Probe or WorkerVerb.HasEntries) => await OnLooksAsync(request, cancellationToken),
                _ => await OnSpareAsync(request, blocker, cancellationToken),
            };
        }
        catch (WorkerUnavailableException unavailable)
        {
            return (CallEnd.NotSent, null, unavailable.Message);
        }
    }

    /// <summary>Attaches a prepared mount with the worker that has it, which is free for others afterwards.</summary>
    public async ValueTask<(CallEnd End, WorkerAnswer? Answer, string? Why)> AttachAsync(
        WorkerLink link, PreparedMount prepared, CancellationToken cancellationToken)
    {
        var request = new WorkerRequest(0, WorkerVerb.Attach, prepared.Token, null, null, prepared, null);
        if (!reserved.ContainsKey(prepared.Token))
        {
            var (localEnd, localAnswer) = await link.CallAsync(request, options.OperationDeadline, cancellationToken);
            if (localEnd == CallEnd.TimedOut) supervisor.WriteOff(link);
            return (localEnd, localAnswer, localEnd == CallEnd.TimedOut ? Late(options.OperationDeadline, null) : null);
        }
        try
        {
            supervisor.NoteActing(link, prepared.Mountpoint);
            var (end, answer) = await link.CallAsync(request, options.OperationDeadline, cancellationToken, hurry.Token);
            if (end == CallEnd.TimedOut) supervisor.WriteOff(link);
            if (answer?.Outcome == WorkerOutcome.Attached) blocking.Add(answer.MountId);
            return (end, answer, end == CallEnd.TimedOut ? Late(options.OperationDeadline, blocking.AtOrAbove(prepared.Mountpoint)) : null);
        }
        catch (WorkerUnavailableException unavailable)
        {
            return (CallEnd.NotSent, null, unavailable.Message);
        }
        finally
        {
            Forget(prepared.Token);
        }
    }

    /// <summary>A prepared mount is no longer waited for: its worker is free for others.</summary>
    public void Forget(long token)
    {
        if (reserved.TryRemove(token, out var link)) spares.Return(link);
    }

    public void Dispose()
    {
        local.Dispose();
        looks.Dispose();
        spares.Dispose();
        hurry.Dispose();
    }

    private async ValueTask<(CallEnd End, WorkerAnswer? Answer, string? Why)> OnLocalAsync(WorkerRequest request, CancellationToken cancellationToken)
    {
        var link = await local.GetAsync(cancellationToken);
        if (request.Verb == WorkerVerb.Prepare) request = request with { Token = link.NextToken() };
        var (end, answer) = await link.CallAsync(request, options.OperationDeadline, cancellationToken);
        if (end == CallEnd.TimedOut) supervisor.WriteOff(link);
        return (end, answer is null ? null : answer with { Token = request.Token }, end == CallEnd.TimedOut ? Late(options.OperationDeadline, null) : null);
    }

    /// <summary>Never written off: what hangs here keeps one of its threads, until all of them hang and looks are done without it.</summary>
    private async ValueTask<(CallEnd End, WorkerAnswer? Answer, string? Why)> OnLooksAsync(WorkerRequest request, CancellationToken cancellationToken)
    {
        var link = looking = await looks.GetAsync(cancellationToken);
        var (end, answer) = await link.CallAsync(request, options.LookDeadline, cancellationToken);
        return (end, answer, end == CallEnd.TimedOut ? Late(options.LookDeadline, null) : null);
    }

    private async ValueTask<(CallEnd End, WorkerAnswer? Answer, string? Why)> OnSpareAsync(
        WorkerRequest request, string? blocker, CancellationToken cancellationToken)
    {
        var began = Environment.TickCount64;
        var link = await spares.RentAsync(options.OperationDeadline, cancellationToken);
        var keep = false;
        try
        {
            if (request.Verb == WorkerVerb.Prepare) request = request with { Token = link.NextToken() };
            else if (MountpointOf(request) is { } mountpoint) supervisor.NoteActing(link, mountpoint);
            var left = options.OperationDeadline - TimeSpan.FromMilliseconds(Environment.TickCount64 - began);
            var (end, answer) = await link.CallAsync(request, left > TimeSpan.Zero ? left : TimeSpan.Zero, CancellationToken.None, hurry.Token);
            if (end == CallEnd.TimedOut) supervisor.WriteOff(link);
            keep = request.Verb == WorkerVerb.Prepare && answer?.Outcome == WorkerOutcome.Ready && reserved.TryAdd(request.Token, link);
            return (end, answer is null ? null : answer with { Token = request.Token }, end == CallEnd.TimedOut ? Late(options.OperationDeadline, blocker) : null);
        }
        finally
        {
            if (!keep) spares.Return(link);
        }
    }

    /// <summary>Why a request may take as long as somebody outside this kernel likes; null: it does not.</summary>
    private string? BlockerOf(WorkerRequest request)
    {
        if (request.Verb == WorkerVerb.Sweep) return "what helpers left";
        if (MountpointOf(request) is { } mountpoint)
        {
            if (blocking.AtOrAbove(mountpoint) is { } above) return above;
            // What a recursive bind brought along goes with it.
            if (request.Order is { RecursiveSource: not null } && blocking.AnyBelow(mountpoint)) return $"a mount below {mountpoint}";
        }
        return request is { Verb: WorkerVerb.Prepare or WorkerVerb.Observe, Spec: { } spec } ? BlockerOf(spec, request.Verb) : null;
    }

    private string? BlockerOf(MountSpec spec, WorkerVerb verb)
    {
        if (!MountPlan.IsKernelType(spec.FsType)) return verb == WorkerVerb.Prepare ? $"the mount helper of {spec.FsType}" : null;
        if (spec.FsType == "overlay")
        {
            foreach (var (key, value) in MountPlan.Of(spec).Parameters)
            {
                if (!Overlay.IsLayerKey(key) || value is null) continue;
                foreach (var layer in key.StartsWith("lowerdir", StringComparison.Ordinal) ? Overlay.SplitLower(value) : [value])
                    if (layer.StartsWith('/') && blocking.AtOrAbove(layer) is { } below) return below;
            }
            return null;
        }
        return spec.Source.StartsWith('/') ? blocking.AtOrAbove(spec.Source) : null;
    }

    private static string? MountpointOf(WorkerRequest request) =>
        request.Mountpoint ?? request.Order?.Mountpoint ?? request.Prepared?.Mountpoint;

    private static string Late(TimeSpan deadline, string? blocker) =>
        $"no answer from the worker within {deadline.TotalSeconds:0.###} s"
        + (blocker is null ? "" : $"; it may wait for {blocker}: let its server answer, or end it (kill it, or write 1 to its abort file below /sys/fs/fuse/connections)");
}
