using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// The worker's threads. They take turns at the channel: one waits for a request, and executes it itself as soon as another
/// one has taken its place, so a request costs no hand-over between threads.
/// </summary>
internal sealed class WorkerService(WorkerChannel channel, MountOperations operations, string? stagingDirectory = null)
{
    private const int BrokenChannelExit = 3;
    private readonly Lock turn = new();

    public void Start(int threads)
    {
        channel.Send(new WorkerAnswer(0, WorkerOutcome.Hello), WorkerJson.Default.WorkerAnswer);
        for (var i = 0; i < threads; i++)
            new Thread(Serve) { IsBackground = true, Name = $"worker-{i}" }.Start();
    }

    private void Serve()
    {
        while (Next() is { } request)
        {
            var answer = Execute(request);
            if (answer is null) continue;
            // An answer that cannot be sent concerns nobody any more: the agent is gone.
            if (Send(answer) != 0) return;
        }
    }

    private WorkerRequest? Next()
    {
        try
        {
            lock (turn) return channel.Receive(WorkerJson.Default.WorkerRequest);
        }
        catch (InvalidDataException problem)
        {
            // Frames can no longer be told apart, so nothing that follows can be trusted.
            Console.Error.WriteLine($"worker: the channel carries {problem.Message}");
            ProcessCalls.ExitNow(BrokenChannelExit);
            return null;
        }
    }

    private int Send(WorkerAnswer answer)
    {
        try
        {
            return channel.Send(answer, WorkerJson.Default.WorkerAnswer);
        }
        catch (ArgumentException)
        {
            // Thousands of mounts stacked at one path, or the like: say that much.
            return channel.Send(
                new WorkerAnswer(answer.Id, WorkerOutcome.Unknown, Reason: "the answer is larger than a message may be"),
                WorkerJson.Default.WorkerAnswer);
        }
    }

    private WorkerAnswer? Execute(WorkerRequest request)
    {
        try
        {
            switch (request)
            {
                case { Verb: WorkerVerb.Observe, Mountpoint: { } mountpoint }:
                    return new WorkerAnswer(request.Id, WorkerOutcome.Observed, operations.Observe(mountpoint, request.Spec));
                case { Verb: WorkerVerb.Prepare, Mountpoint: { } mountpoint, Spec: { } spec }:
                    return Of(request.Id, operations.Prepare(request.Token, mountpoint, spec));
                case { Verb: WorkerVerb.Attach, Prepared: { } prepared }:
                    return Of(request.Id, operations.Attach(prepared));
                case { Verb: WorkerVerb.Unmount, Order: { } order }:
                    return Of(request.Id, operations.Unmount(order));
                case { Verb: WorkerVerb.HasEntries, Mountpoint: { } mountpoint }:
                    return new WorkerAnswer(request.Id, WorkerOutcome.Looked, Flag: operations.HasEntries(mountpoint));
                case { Verb: WorkerVerb.Sweep, Dead: { } dead }:
                    return new WorkerAnswer(
                        request.Id, WorkerOutcome.Swept, Directories: stagingDirectory is null ? [] : [.. Staging.Sweep(stagingDirectory, dead)]);
                case { Verb: WorkerVerb.Discard }:
                    operations.Discard(request.Token);
                    return null;
                default:
                    return new WorkerAnswer(request.Id, WorkerOutcome.Unknown, Reason: $"request {request.Verb} lacks a member");
            }
        }
#pragma warning disable CA1031 // A bug in one operation must not take the others with it; the agent records what it hears.
        catch (Exception bug)
#pragma warning restore CA1031
        {
            Console.Error.WriteLine($"worker: {request.Verb} {request.Mountpoint}: {bug}");
            return new WorkerAnswer(request.Id, WorkerOutcome.Unknown, Reason: $"the worker failed: {bug.GetType().Name}: {bug.Message}");
        }
    }

    private static WorkerAnswer Of(long id, PrepareResult result) => result switch
    {
        PrepareResult.Ready ready => new(
            id, WorkerOutcome.Ready, MountId: ready.Mount.MountId, Directories: ready.Mount.DirectoriesToCreate),
        PrepareResult.Occupied occupied => new(id, WorkerOutcome.Occupied, occupied.Found),
        PrepareResult.Failed failed => new(id, WorkerOutcome.Failed, Error: failed.Error),
        _ => throw new InvalidOperationException(result.GetType().Name),
    };

    private static WorkerAnswer Of(long id, AttachResult result) => result switch
    {
        AttachResult.Attached done => new(id, WorkerOutcome.Attached, MountId: done.MountId, Directories: done.DirectoriesCreated, Flag: done.OverEmptyDirectory),
        AttachResult.Failed failed => new(id, WorkerOutcome.Failed, Error: failed.Error),
        AttachResult.Unknown unknown => new(id, WorkerOutcome.Unknown, Reason: unknown.Reason),
        _ => throw new InvalidOperationException(result.GetType().Name),
    };

    private static WorkerAnswer Of(long id, UnmountResult result) => result switch
    {
        UnmountResult.Unmounted done => new(id, WorkerOutcome.Unmounted, Directories: done.DirectoriesRemoved),
        UnmountResult.NotMounted gone => new(id, WorkerOutcome.NotMounted, Directories: gone.DirectoriesRemoved),
        UnmountResult.Failed failed => new(id, WorkerOutcome.Failed, Error: failed.Error),
        UnmountResult.Unknown unknown => new(id, WorkerOutcome.Unknown, Reason: unknown.Reason),
        _ => throw new InvalidOperationException(result.GetType().Name),
    };
}
