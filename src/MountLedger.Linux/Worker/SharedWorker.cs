namespace MountLedger.Linux;

/// <summary>What a worker is for.</summary>
internal enum WorkerKind
{
    /// <summary>Everything on filesystems of this kernel alone: long-lived, shared by all.</summary>
    Local,

    /// <summary>Looking where something may block: changes nothing, so threads of it may hang without harm.</summary>
    Looks,

    /// <summary>One operation at a time on what may block: it can be lost, and takes nothing else with it.</summary>
    Spare,
}

/// <summary>One worker that many calls share; replaced when it has died or been written off.</summary>
internal sealed class SharedWorker(WorkerSupervisor supervisor, WorkerKind kind) : IDisposable
{
    private readonly SemaphoreSlim starting = new(1, 1);
    private volatile WorkerLink? current;

    public int? Pid => current is { IsUsable: true } link ? link.Pid : null;

    /// <summary>The worker that new requests go to; starts one when there is none.</summary>
    /// <exception cref="WorkerUnavailableException">It does not start, or too many are stuck.</exception>
    public ValueTask<WorkerLink> GetAsync(CancellationToken cancellationToken) =>
        current is { IsUsable: true } link ? new(link) : new(ReplaceAsync(cancellationToken));

    public void Dispose() => starting.Dispose();

    private async Task<WorkerLink> ReplaceAsync(CancellationToken cancellationToken)
    {
        await starting.WaitAsync(cancellationToken);
        try
        {
            if (current is { IsUsable: true } made) return made;
            return current = await supervisor.StartAsync(kind, cancellationToken);
        }
        finally
        {
            starting.Release();
        }
    }
}
