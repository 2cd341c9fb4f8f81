using System.Diagnostics;

namespace MountLedger.Bench;

/// <summary>One mount and unmount: when it was due since the load began, how late a caller came to it, and how long it took from when it was due.</summary>
internal readonly record struct Pair(float DueSeconds, float LateMs, float LatencyMs);

/// <summary>
/// Mounts and unmounts that are due at a steady pace, whether those before are done or not (an open loop): when the agent is slow, what waits for a
/// caller counts as latency, instead of slowing down who asks. Each caller has a connection and a mountpoint of its own.
/// </summary>
internal sealed class PacedLoad(AgentUnderTest agent, int callers, double pairsPerSecond, TimeSpan duration)
{
    /// <summary>What is due and not begun this long after the end is left undone.</summary>
    private static readonly TimeSpan BacklogMax = TimeSpan.FromSeconds(30);

    private const int FailuresMax = 100;

    private readonly List<Pair>[] done = [.. Enumerable.Range(0, callers).Select(_ => new List<Pair>())];
    private long lastTicket = -1;
    private long failures;
    private long start;

    /// <summary>How many pairs are due in all.</summary>
    public long Due => (long)Math.Ceiling(pairsPerSecond * duration.TotalSeconds);

    public long Failures => Interlocked.Read(ref failures);

    /// <summary>What the first pair failed with that failed.</summary>
    public string? FirstFailure { get; private set; }

    /// <summary>Returns all pairs that succeeded, by when they were due.</summary>
    public Task<IReadOnlyList<Pair>> RunAsync() => Task.Run<IReadOnlyList<Pair>>(() =>
    {
        start = Stopwatch.GetTimestamp();
        var threads = Enumerable.Range(0, callers).Select(number => new Thread(() => Call(number)) { IsBackground = true }).ToList();
        foreach (var thread in threads) thread.Start();
        foreach (var thread in threads) thread.Join();
        return [.. done.SelectMany(pairs => pairs).OrderBy(pair => pair.DueSeconds)];
    });

    private double Now => Stopwatch.GetElapsedTime(start).TotalSeconds;

    private void Call(int number)
    {
        Caller? caller = null;
        while (Failures < FailuresMax && Interlocked.Increment(ref lastTicket) is var ticket && ticket < Due)
        {
            var due = ticket / pairsPerSecond;
            if (due - Now is > 0 and var ahead) Kernel.Sleep(ahead);
            if (Now > (duration + BacklogMax).TotalSeconds) break;
            var begun = Now;
            try
            {
                caller ??= new Caller(agent);
                caller.Mount($"c{number}");
                caller.Unmount($"c{number}");
                done[number].Add(new Pair((float)due, (float)((begun - due) * 1000), (float)((Now - due) * 1000)));
            }
#pragma warning disable CA1031 // Whatever it fails with, it is a pair that failed; and nothing may leave a thread.
            catch (Exception failure)
#pragma warning restore CA1031
            {
                if (Interlocked.Increment(ref failures) == 1) FirstFailure = failure.Message;
                caller?.Dispose();
                caller = null;
            }
        }
        caller?.Dispose();
    }
}
