using System.Globalization;
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
/// at a deadline; <paramref name="Stuck"/>: killed, and still held by the kernel now.
/// </summary>
public readonly record struct WorkerCounters(long Started, long Died, long WrittenOff, int Stuck);

/// <summary>
/// Keeps one worker ready for the agent: starts it, replaces it when it dies or is written off at a deadline, and proves
/// dead what may no longer act.
/// </summary>
internal sealed class WorkerSupervisor(WorkerOptions options) : IAsyncDisposable
{
    private const int ChannelInChild = 3;
    private static readonly TimeSpan LookAgain = TimeSpan.FromMilliseconds(2);
    private static readonly TimeSpan HealthyLife = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan RestartDelayMax = TimeSpan.FromSeconds(5);

    private readonly WorkerRecords records = new(options.RunDirectory);
    private readonly SemaphoreSlim starting = new(1, 1);
    private readonly Lock gate = new();
    private readonly List<WorkerLink> links = [];
    private readonly List<(int Pid, Descriptor Process)> earlier = [];
    private volatile WorkerLink? current;
    private int lastNumber;
    private int earlyDeaths;
    private long startedCount;
    private long diedCount;
    private long writtenOffCount;
    private volatile bool disposed;

    public int? CurrentPid => current is { IsUsable: true } link ? link.Pid : null;

    public WorkerCounters Counters
    {
        get
        {
            lock (gate) return new(startedCount, diedCount, writtenOffCount, links.Count(link => link.IsWrittenOff) + earlier.Count);
        }
    }

    /// <summary>The worker that new requests go to; starts one when there is none.</summary>
    /// <exception cref="WorkerUnavailableException">It does not start, or too many are stuck.</exception>
    public ValueTask<WorkerLink> GetAsync(CancellationToken cancellationToken) =>
        current is { IsUsable: true } link ? new(link) : new(ReplaceAsync(cancellationToken));

    /// <summary>The usable worker that gave out this token, or null.</summary>
    public WorkerLink? Find(long token) =>
        current is { IsUsable: true } link && link.Number == WorkerLink.NumberOf(token) ? link : null;

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
            "Worker {Pid} did not answer within {Deadline}: it is written off and replaced", link.Pid, options.OperationDeadline);
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
                stuck = acting.Count > 0 ? $"worker {acting[0].Pid}" : earlier.Count > 0 ? $"worker {earlier[0].Pid} of an earlier agent" : null;
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
        var stuck = await records.KillAllAsync(options.DeathDeadline, cancellationToken);
        lock (gate) earlier.AddRange(stuck);
        foreach (var (pid, _) in stuck)
            options.Logger.LogError("Worker {Pid} of an earlier agent was killed and the kernel does not let it go", pid);
        return [.. stuck.Select(worker => worker.Pid)];
    }

    /// <summary>Kills all workers and waits for their end, bounded; the records of those that are stuck stay for the next agent.</summary>
    public async ValueTask DisposeAsync()
    {
        disposed = true;
        // A start that is under way ends first, so that its worker is among those that are killed.
        await starting.WaitAsync();
        starting.Release();
        List<WorkerLink> all;
        lock (gate) all = [.. links];
        foreach (var link in all) link.Kill();
        // Their own threads bury them.
        var until = Environment.TickCount64 + (long)options.DeathDeadline.TotalMilliseconds;
        while (Environment.TickCount64 < until)
        {
            lock (gate)
            {
                if (links.Count == 0) return;
            }
            await Task.Delay(LookAgain);
        }
    }

    private async Task<WorkerLink> ReplaceAsync(CancellationToken cancellationToken)
    {
        await starting.WaitAsync(cancellationToken);
        try
        {
            ObjectDisposedException.ThrowIf(disposed, this);
            if (current is { IsUsable: true } made) return made;
            var stuck = Counters.Stuck;
            if (stuck >= options.WrittenOffMax)
                throw new WorkerUnavailableException(
                    $"{stuck} workers are stuck in the kernel: free the filesystems that they wait for");
            // One that dies at once is not started again and again without a pause.
            if (earlyDeaths > 0)
                await Task.Delay(TimeSpan.FromMilliseconds(Math.Min(50 << Math.Min(earlyDeaths, 7), RestartDelayMax.TotalMilliseconds)), cancellationToken);
            var link = Start();
            bool answered;
            try
            {
                answered = await link.Ready.WaitAsync(options.StartDeadline, cancellationToken);
            }
            catch (Exception notReady) when (notReady is TimeoutException or OperationCanceledException)
            {
                link.Kill();
                earlyDeaths++;
                if (notReady is OperationCanceledException) throw;
                answered = false;
            }
            if (!answered)
                throw new WorkerUnavailableException($"the worker {options.FileName} did not start: see its messages in the agent's log");
            current = link;
            return link;
        }
        finally
        {
            starting.Release();
        }
    }

    private WorkerLink Start()
    {
        var errno = SocketCalls.Pair(out var ours, out var theirs);
        if (errno != 0 || ours is null || theirs is null) throw new WorkerUnavailableException($"socketpair: {Errno.Name(errno)}");
        using (theirs)
        {
            List<string> arguments = [.. options.PrefixArguments, WorkerEntry.ChannelFlag, ChannelInChild.ToString(CultureInfo.InvariantCulture)];
            foreach (var root in options.Roots) arguments.AddRange([WorkerEntry.RootFlag, root]);
            arguments.AddRange([WorkerEntry.DirectoryModeFlag, Convert.ToString(options.Directories.Mode, 8)]);
            if (options.Directories.Owner is { } owner) arguments.AddRange([WorkerEntry.DirectoryOwnerFlag, $"{owner.Uid}:{owner.Gid}"]);
            arguments.AddRange([WorkerEntry.StagingFlag, options.StagingDirectory]);
            arguments.AddRange([WorkerEntry.HelperDeadlineFlag, HelperMs().ToString(CultureInfo.InvariantCulture)]);
            foreach (var directory in options.HelperDirectories) arguments.AddRange([WorkerEntry.HelperDirectoryFlag, directory]);
            errno = ProcessCalls.Spawn(options.FileName, arguments, CleanEnvironment(), theirs.Number, ChannelInChild, out var pid);
            if (errno != 0)
            {
                ours.Dispose();
                throw new WorkerUnavailableException($"start {options.FileName}: {Errno.Name(errno)}: is MountLedger installed completely?");
            }
            // Before the first request is sent: a worker that no record knows of could outlive us unseen.
            try
            {
                records.Add(pid);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                ours.Dispose(); // Its channel ends, and so does it.
                ReapSoon(pid);
                throw new WorkerUnavailableException($"the record of worker {pid} cannot be written: {e.Message}");
            }
            var process = ProcessCalls.OpenProcess(pid, out errno);
            if (process < 0)
            {
                ours.Dispose();
                throw new WorkerUnavailableException($"pidfd_open of worker {pid}: {Errno.Name(errno)}");
            }
            var link = new WorkerLink(++lastNumber, pid, new Descriptor(process), ours, OnEnd);
            lock (gate)
            {
                links.Add(link);
                startedCount++;
            }
            options.Logger.LogInformation("Worker {Pid} started", pid);
            return link;
        }
    }

    /// <summary>The answer that a helper took too long has to come before the worker itself has taken too long.</summary>
    private long HelperMs() => (long)Math.Min(options.HelperDeadline.TotalMilliseconds, options.OperationDeadline.TotalMilliseconds * 0.8);

    private static void ReapSoon(int pid)
    {
        var number = ProcessCalls.OpenProcess(pid, out _);
        if (number < 0) return;
        using var process = new Descriptor(number);
        ProcessCalls.Signal(number, ProcessCalls.SIGKILL);
        for (var wait = 0; wait < 100 && !ProcessCalls.HasExited(number); wait++) Thread.Sleep(LookAgain);
        ProcessCalls.Reap(number);
    }

    /// <summary>A worker needs neither the agent's secrets nor a socket for diagnosis.</summary>
    private static List<string> CleanEnvironment()
    {
        string[] kept = ["PATH", "LANG", "TZ", "HOME", "TMPDIR"];
        var environment = new List<string> { "DOTNET_EnableDiagnostics=0" };
        foreach (System.Collections.DictionaryEntry pair in Environment.GetEnvironmentVariables())
        {
            var name = (string)pair.Key;
            if (kept.Contains(name) || (name.StartsWith("DOTNET_", StringComparison.Ordinal) && name != "DOTNET_EnableDiagnostics"))
                environment.Add($"{name}={pair.Value}");
        }
        return environment;
    }

    /// <summary>On the link's own thread, when its channel has ended.</summary>
    private void OnEnd(WorkerLink link, string? problem)
    {
        if (!link.IsWrittenOff && !disposed)
        {
            Interlocked.Increment(ref diedCount);
            earlyDeaths = Environment.TickCount64 - link.StartedAtMs < HealthyLife.TotalMilliseconds ? earlyDeaths + 1 : 0;
            options.Logger.LogWarning("Worker {Pid} is gone{Problem}: it is replaced", link.Pid, problem is null ? "" : $" ({problem})");
        }
        // Without its channel it can be of no use, but might still act.
        link.Kill();
        // A thread of its own and in the background: it may wait as long as the kernel holds on to the worker.
        while (!link.HasExited) Thread.Sleep(LookAgain);
        link.Reap();
        records.Remove(link.Pid);
        lock (gate) links.Remove(link);
        link.Dispose();
    }

    private void BuryEarlier()
    {
        foreach (var (pid, process) in earlier.Where(worker => ProcessCalls.HasExited(worker.Process.Number)).ToList())
        {
            earlier.Remove((pid, process));
            process.Dispose();
            records.Remove(pid);
        }
    }
}
