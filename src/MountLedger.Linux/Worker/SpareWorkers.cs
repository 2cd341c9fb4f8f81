namespace MountLedger.Linux;

/// <summary>
/// Workers that are lent to one operation at a time, from the preparation of a mount to its attachment. One that misses its deadline
/// is written off alone; one that comes back is lent again.
/// </summary>
internal sealed class SpareWorkers(WorkerSupervisor supervisor, WorkerOptions options) : IDisposable
{
    private readonly SemaphoreSlim places = new(options.SparesMax, options.SparesMax);
    private readonly Stack<WorkerLink> idle = new();

    /// <summary>How many are lent out now.</summary>
    public int Lent => options.SparesMax - places.CurrentCount;

    /// <summary>A worker for the caller alone, who gives it back exactly once.</summary>
    /// <exception cref="WorkerUnavailableException">None starts, none becomes free in time, or too many are stuck in the kernel.</exception>
    public async Task<WorkerLink> RentAsync(TimeSpan patience, CancellationToken cancellationToken)
    {
        if (!await places.WaitAsync(patience, cancellationToken))
            throw new WorkerUnavailableException($"all {options.SparesMax} workers for filesystems that may block are busy");
        try
        {
            while (TakeIdle() is { } link)
                if (link.IsUsable) return link;
            return await supervisor.StartAsync(WorkerKind.Spare, cancellationToken);
        }
        catch
        {
            Release();
            throw;
        }
    }

    public void Return(WorkerLink link)
    {
        if (link.IsUsable)
        {
            bool kept;
            lock (idle)
            {
                kept = idle.Count < options.IdleSparesMax;
                if (kept) idle.Push(link);
            }
            if (!kept) supervisor.Retire(link);
        }
        Release();
    }

    public void Dispose() => places.Dispose();

    private void Release()
    {
        try
        {
            places.Release();
        }
        catch (ObjectDisposedException)
        {
            // All has ended, and nobody waits for a place: what came of the call must not be lost for that.
        }
    }

    private WorkerLink? TakeIdle()
    {
        lock (idle) return idle.TryPop(out var link) ? link : null;
    }
}
