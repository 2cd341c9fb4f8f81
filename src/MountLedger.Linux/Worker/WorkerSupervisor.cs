using Microsoft.Extensions.Logging;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>No worker can be had now; the message says why and what to do.</summary>
public sealed class WorkerUnavailableException : Exception
{
    public WorkerUnavailableException(string message, Exception? inner = null) : base(message, inner) { }
}

/// <summary>
/// Counts of this agent's life. <paramref name="Died"/>: ended without being asked to; <paramref name="WrittenOff"/>: given up
/// at a deadline; <paramref name="Stuck"/>: killed, and still held by the kernel now; <paramref name="Running"/>: processes now, those included.
/// </summary>
public readonly record struct WorkerCounters(long Started, long Died, long WrittenOff, int Stuck, int Running);

/// <summary>
/// The agent's worker processes, of whatever kind: starts them, gives up those that miss a deadline, buries the dead, and proves dead
/// what may no longer act.
/// </summary>
internal sealed class WorkerSupervisor(WorkerOptions options) : IAsyncDisposable
{
    private static readonly TimeSpan LookAgain = TimeSpan.FromMilliseconds(2);
    private static readonly TimeSpan HealthyLife = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan StuckPatience = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan RestartDelayMax = TimeSpan.FromSeconds(5);

    private readonly WorkerRecords records = new(options.RunDirectory);
    private readonly Lock gate = new();
    private readonly List<WorkerLink> links = [];
    private readonly HashSet<WorkerLink> retired = [];
    private readonly List<(int Pid, Descriptor Process, string? ActingOn)> earlier = [];
    private readonly int[] earlyDeaths = new int[Enum.GetValues<WorkerKind>().Length];
    private int starting;
    private int lastNumber;
    private long startedCount;
    private long diedCount;
    private long writtenOffCount;
    private volatile bool disposed;

    public WorkerCounters Counters
    {
        get
        {
            lock (gate)
            {
                BuryEarlier();
                return new(
                    startedCount, diedCount, writtenOffCount, links.Count(link => link.IsWrittenOff && !retired.Contains(link)) + earlier.Count, links.Count);
            }
        }
    }

    /// <summary>The usable worker that gave out this token, or null.</summary>
    public WorkerLink? Find(long token)
    {
        lock (gate) return links.Find(link => link.IsUsable && link.Number == WorkerLink.NumberOf(token));
    }

    /// <summary>Ends a worker that is idle and not needed; that is no death to be reported.</summary>
    public void Retire(WorkerLink link)
    {
        lock (gate) retired.Add(link);
        link.Kill();
    }

    /// <summary>Keeps in the record of a spare worker what it is about to change.</summary>
    /// <exception cref="WorkerUnavailableException">The record cannot be written.</exception>
    public void NoteActing(WorkerLink link, string mountpoint)
    {
        try
        {
            records.Note(link.Pid, mountpoint);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new WorkerUnavailableException($"the record of worker {link.Pid} cannot be written: {e.Message}");
        }
    }

    /// <summary>Called with the pid of each worker that has ended, on a thread that nobody waits for.</summary>
    public event Action<int>? Ended;

    /// <summary>Gives up a worker that missed a deadline: it finishes what it can, and is killed then.</summary>
    public void WriteOff(WorkerLink link)
    {
        lock (gate)
        {
            if (link.IsWrittenOff) return;
            link.WriteOff();
            writtenOffCount++;
        }
        options.Logger.LogWarning(
            "Worker {Pid} ({Kind}) did not answer in time: it is written off and replaced", link.Pid, link.Kind);
        // Each of its waiting calls has a deadline of its own, so this ends.
        _ = Task.Run(async () =>
        {
            while (link.HasWaitingCalls) await Task.Delay(LookAgain);
            link.Kill();
        });
    }

    /// <summary>
    /// Returns once no worker can act on this mountpoint any more, because of a call that was made before. Kills the worker
    /// when it does not answer soon.
    /// </summary>
    /// <exception cref="TimeoutException">The kernel does not let go of a killed worker.</exception>
    public async Task QuiesceAsync(string mountpoint, CancellationToken cancellationToken)
    {
        // Most calls are over within this; killing the worker would make the outcome of its other calls unknown.
        var graceUntil = Environment.TickCount64 + 200;
        var until = Environment.TickCount64 + (long)options.OperationDeadline.TotalMilliseconds;
        while (true)
        {
            List<WorkerLink> acting;
            string? stuck;
            lock (gate)
            {
                BuryEarlier();
                acting = [.. links.Where(link => !link.HasExited && link.IsActingOn(mountpoint))];
                stuck = acting.Count > 0 ? $"worker {acting[0].Pid}" : EarlierOn(mountpoint) is { } pid ? $"worker {pid} of an earlier agent" : null;
            }
            if (stuck is null) return;
            if (Environment.TickCount64 >= graceUntil)
                foreach (var link in acting) link.Kill();
            if (Environment.TickCount64 >= until)
                throw new TimeoutException($"{stuck} was killed and the kernel does not let it go; it may still act on {mountpoint}");
            await Task.Delay(LookAgain, cancellationToken);
        }
    }

    /// <summary>Kills the workers that earlier agents left, and waits for their end.</summary>
    /// <returns>Pids of those that the kernel does not let go of.</returns>
    public async Task<IReadOnlyList<int>> KillEarlierAsync(CancellationToken cancellationToken)
    {
        // Who is stuck holds up only what it was changing: nobody waits for it here.
        var patience = options.DeathDeadline < StuckPatience ? options.DeathDeadline : StuckPatience;
        var stuck = await records.KillAllAsync(patience, cancellationToken);
        lock (gate) earlier.AddRange(stuck);
        foreach (var (pid, _, actingOn) in stuck)
        {
            options.Logger.LogError(
                "Worker {Pid} of an earlier agent was killed and the kernel does not let it go{Where}", pid,
                actingOn is null ? "" : actingOn.Length == 0 ? ": it changes nothing" : $": it may still act on {actingOn}");
        }
        // A launcher ends with its agent, unless something holds it: then the next one finds it by this. It changes nothing.
        if (options.Launcher is { } launcher) records.Add(launcher.Pid, "");
        return [.. stuck.Select(worker => worker.Pid)];
    }

    /// <summary>Kills all workers and waits for their end, bounded; the records of those that are stuck stay for the next agent.</summary>
    public async ValueTask DisposeAsync()
    {
        disposed = true;
        if (options.Launcher is { } launcher) records.Remove(launcher.Pid);
        // A start that is under way ends first, so that its worker is among those that are killed.
        var until = Environment.TickCount64 + (long)options.DeathDeadline.TotalMilliseconds;
        while (Volatile.Read(ref starting) > 0 && Environment.TickCount64 < until) await Task.Delay(LookAgain);
        // Those that were given up before are stuck, and not waited for.
        List<WorkerLink> all;
        HashSet<WorkerLink> stuck;
        lock (gate) (all, stuck) = ([.. links], [.. links.Where(link => link.IsWrittenOff)]);
        foreach (var link in all) link.Kill();
        // Their own threads bury them.
        until = Math.Min(until, Environment.TickCount64 + (long)StuckPatience.TotalMilliseconds);
        while (Environment.TickCount64 < until)
        {
            lock (gate)
            {
                if (links.TrueForAll(stuck.Contains)) return;
            }
            await Task.Delay(LookAgain);
        }
    }

    /// <summary>Starts a worker and waits until it says hello.</summary>
    /// <exception cref="WorkerUnavailableException">It does not, or too many of its kind are stuck.</exception>
    public async Task<WorkerLink> StartAsync(WorkerKind kind, CancellationToken cancellationToken)
    {
        Interlocked.Increment(ref starting);
        try
        {
            ObjectDisposedException.ThrowIf(disposed, this);
            int stuck;
            lock (gate) stuck = links.Count(link => link.Kind == kind && link.IsWrittenOff && !retired.Contains(link));
            if (stuck >= options.WrittenOffMax)
                throw new WorkerUnavailableException(
                    $"{stuck} workers are stuck in the kernel: free the filesystems that they wait for");
            // One that dies at once is not started again and again without a pause.
            if (earlyDeaths[(int)kind] is > 0 and var deaths)
                await Task.Delay(TimeSpan.FromMilliseconds(Math.Min(50 << Math.Min(deaths, 7), RestartDelayMax.TotalMilliseconds)), cancellationToken);
            var link = await LaunchAsync(kind, cancellationToken);
            bool answered;
            try
            {
                answered = await link.Ready.WaitAsync(options.StartDeadline, cancellationToken);
            }
            catch (Exception notReady) when (notReady is TimeoutException or OperationCanceledException)
            {
                link.Kill();
                earlyDeaths[(int)kind]++;
                if (notReady is OperationCanceledException) throw;
                answered = false;
            }
            if (!answered)
                throw new WorkerUnavailableException($"the worker {options.FileName} did not start: see its messages in the agent's log");
            return link;
        }
        finally
        {
            Interlocked.Decrement(ref starting);
        }
    }

    private async Task<WorkerLink> LaunchAsync(WorkerKind kind, CancellationToken cancellationToken)
    {
        Launched? started;
        if (options.Launcher is { } launcher)
        {
            try
            {
                started = await launcher.StartAsync(LaunchVerb.Worker, options.StartDeadline, cancellationToken);
            }
            catch (IOException e)
            {
                throw new WorkerUnavailableException($"no worker can be started: {e.Message}", e);
            }
        }
        else if (ProgramStart.Run(options.FileName, options.Arguments(), out started) is var errno && started is null)
        {
            throw new WorkerUnavailableException($"start {options.FileName}: {Errno.Name(errno)}: is MountLedger installed completely?");
        }
        // Before the first request is sent: a worker that no record knows of could outlive us unseen.
        try
        {
            records.Add(started.Pid, kind == WorkerKind.Local ? null : "");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            Forget(started);
            throw new WorkerUnavailableException($"the record of worker {started.Pid} cannot be written: {e.Message}");
        }
        var link = new WorkerLink(kind, Interlocked.Increment(ref lastNumber), started.Pid, started.Process, started.Channel, OnEnd);
        lock (gate)
        {
            links.Add(link);
            startedCount++;
        }
        options.Logger.LogInformation("Worker {Pid} started", started.Pid);
        return link;
    }

    private static void Forget(Launched started)
    {
        using (started)
        {
            var number = started.Process.Number;
            ProcessCalls.Signal(number, ProcessCalls.SIGKILL);
            for (var wait = 0; wait < 100 && !ProcessCalls.HasExited(number); wait++) Thread.Sleep(LookAgain);
            ProcessCalls.Reap(number);
        }
    }

    /// <summary>On the link's own thread, when its channel has ended.</summary>
    private void OnEnd(WorkerLink link, string? problem)
    {
        if (!link.IsWrittenOff && !disposed)
        {
            Interlocked.Increment(ref diedCount);
            ref var deaths = ref earlyDeaths[(int)link.Kind];
            deaths = Environment.TickCount64 - link.StartedAtMs < HealthyLife.TotalMilliseconds ? deaths + 1 : 0;
            options.Logger.LogWarning("Worker {Pid} is gone{Problem}: it is replaced", link.Pid, problem is null ? "" : $" ({problem})");
        }
        // Without its channel it can be of no use, but might still act.
        link.Kill();
        // A thread of its own and in the background: it may wait as long as the kernel holds on to the worker.
        link.WaitForExit();
        link.Reap();
        records.Remove(link.Pid);
        lock (gate)
        {
            links.Remove(link);
            retired.Remove(link);
        }
        link.Dispose();
        if (!disposed) Ended?.Invoke(link.Pid);
    }

    /// <summary>A worker of an earlier agent that may still act on this mountpoint.</summary>
    private int? EarlierOn(string mountpoint) =>
        earlier.Where(worker => worker.ActingOn is null || worker.ActingOn == mountpoint).Select(worker => (int?)worker.Pid).FirstOrDefault();

    private void BuryEarlier()
    {
        foreach (var worker in earlier.Where(worker => ProcessCalls.HasExited(worker.Process.Number)).ToList())
        {
            earlier.Remove(worker);
            worker.Process.Dispose();
            records.Remove(worker.Pid);
        }
    }
}
