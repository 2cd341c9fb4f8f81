namespace MountLedger.Simulation;

/// <summary>Many seeds, some at a time, each on a thread of its own.</summary>
internal static class Sweep
{
    public sealed record Sum(long Seeds, long Steps, long Answers, long Commits, ulong Digest, IReadOnlyList<RunResult> Failures);

    public static Sum Run(ulong from, long seeds, int failuresMax, int workers)
    {
        var failures = new List<RunResult>();
        var (next, done, steps, answers, commits, digest) = (-1L, 0L, 0L, 0L, 0L, 0UL);
        var gate = new Lock();
        void Work()
        {
            while (true)
            {
                var number = Interlocked.Increment(ref next);
                if (number >= seeds) return;
                var run = World.Run(from + (ulong)number);
                lock (gate)
                {
                    done++;
                    steps += run.Steps;
                    answers += run.Answered;
                    commits += run.Commits;
                    digest ^= run.Digest * (run.Seed * 2 + 1);
                    if (run.Violation is not null) failures.Add(run);
                    if (failures.Count >= failuresMax) next = seeds;
                }
            }
        }
        var threads = Enumerable.Range(0, workers).Select(_ => new Thread(Work, 4 << 20)).ToList();
        threads.ForEach(thread => thread.Start());
        threads.ForEach(thread => thread.Join());
        failures.Sort((a, b) => a.Seed.CompareTo(b.Seed));
        return new Sum(done, steps, answers, commits, digest, failures);
    }
}
