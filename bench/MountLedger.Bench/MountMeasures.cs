using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;

namespace MountLedger.Bench;

/// <summary>What callers over the socket see, beside the programs <c>mount</c> and <c>umount</c>.</summary>
internal static class MountMeasures
{
    public const int Callers = 32;
    private const int ProgramWorkers = 8;
    private const int CommitsOfPair = 4;

    public static async Task<IReadOnlyList<Row>> OneCallerAsync(MeasureContext context)
    {
        var agent = await AgentUnderTest.StartAsync(context);
        var pairs = context.Options.Size(300, 5);
        using var caller = new Caller(agent);
        agent.MakeDirectory("one");
        UnmeasuredPairs(caller, "one", context.Options.Size(300, 2));

        var pgbench = Pgbench.Prepare(context, agent.PostgresSocket);
        var (ours, tail, programs, raw, floor) = (new List<double>(), new List<double>(), new List<double>(), new List<double>(), new List<double>());
        var directory = context.Workplace.NewDirectory("p");
        for (var round = 0; round < context.Options.Rounds; round++)
        {
            var times = Pairs(caller, "one", pairs);
            ours.Add(Figure.Quantile(times, 0.5));
            tail.Add(Figure.Quantile(times, 0.99));
            programs.Add(ProgramPairs(directory, workers: 1, context.Options.Size(150, 5)) is var perSecond ? 1000 / perSecond : 0);
            raw.Add(RawPairs(directory, context.Options.Size(1000, 20)));
            floor.Add(CommitsOfPair * 1000 / pgbench.InsertsPerSecond(clients: 1, context.Options.Size(2, 1)));
        }
        await agent.StopAsync();
        return
        [
            Row.Against("one caller: mount + unmount of a tmpfs", "ms", ours, "mount + umount as programs", programs, "≤ 0.5 × (0.35 wanted)", ratio => ratio <= 0.5)
                with { Note = $"p99 {Figure.Of(tail, "ms")}" },
            Row.Against("the same", "ms", ours, "four one-row inserts by pgbench -c 1: the floor", floor, "", _ => true) with { Met = null },
            Row.Against("the same", "ms", ours, "raw syscalls", raw, "", _ => true) with { Met = null },
        ];
    }

    public static async Task<IReadOnlyList<Row>> ManyCallersAsync(MeasureContext context)
    {
        var agent = await AgentUnderTest.StartAsync(context);
        var seconds = context.Options.Smoke ? 0.5 : 4;
        PairsPerSecond(agent, Callers, seconds, Caller.Unmeasured);
        var (ours, programs) = (new List<double>(), new List<double>());
        var directory = context.Workplace.NewDirectory("p");
        for (var round = 0; round < context.Options.Rounds; round++)
        {
            ours.Add(PairsPerSecond(agent, Callers, seconds));
            programs.Add(ProgramPairs(directory, ProgramWorkers, context.Options.Size(100, 3)));
        }
        await agent.StopAsync();
        return [Row.Against($"{Callers} callers, distinct mountpoints", "pairs/s", ours, $"mount + umount as programs, {ProgramWorkers} workers", programs, "≥ 3 × (5 wanted)", ratio => ratio >= 3)];
    }

    /// <summary>
    /// Transactions that wrote, by the numbers that the server gives to those alone. What the agent writes besides (its lease) is measured first, in
    /// the same time, and is too little to make one in ten.
    /// </summary>
    public static async Task<IReadOnlyList<Row>> CommitsAsync(MeasureContext context)
    {
        var agent = await AgentUnderTest.StartAsync(context);
        var count = context.Options.Size(100, 10);
        using var caller = new Caller(agent);
        var before = Transactions();
        for (var i = 0; i < count; i++) caller.Mount($"m{i}");
        var between = Transactions();
        for (var i = 0; i < count; i++) caller.Unmount($"m{i}");
        var after = Transactions();
        await agent.StopAsync();
        return [Commits("a mount", between - before), Commits("an unmount", after - between)];

        Row Commits(string what, long transactions)
        {
            var each = Math.Round((double)transactions / count, 1);
            return new Row($"durable commits of {what}", null, Figure.Of([each], ""), Target: "2", Met: Math.Round(each) == 2);
        }

        long Transactions() => long.Parse(agent.Query(context, "select pg_snapshot_xmax(pg_current_snapshot())::text::bigint"), CultureInfo.InvariantCulture);
    }

    /// <returns>Milliseconds of each pair, in ascending order.</returns>
    public static List<double> Pairs(Caller caller, string name, int count)
    {
        var times = new List<double>(count);
        for (var i = 0; i < count; i++)
        {
            var start = Stopwatch.GetTimestamp();
            caller.Mount(name);
            caller.Unmount(name);
            times.Add(Stopwatch.GetElapsedTime(start).TotalMilliseconds);
        }
        times.Sort();
        return times;
    }

    /// <summary>Before it is measured, so that what is done only once has been done.</summary>
    public static void UnmeasuredPairs(Caller caller, string name, int count)
    {
        caller.Patience = Caller.Unmeasured;
        Pairs(caller, name, count);
        caller.Patience = TimeSpan.Zero;
    }

    /// <param name="agent">Who is asked.</param>
    /// <param name="callers">How many at the same time.</param>
    /// <param name="seconds">For how long.</param>
    /// <param name="patience">Of each caller; none when it is measured.</param>
    /// <exception cref="AggregateException">A call of a caller failed; the others stop at once.</exception>
    public static double PairsPerSecond(AgentUnderTest agent, int callers, double seconds, TimeSpan patience = default)
    {
        for (var number = 0; number < callers; number++) agent.MakeDirectory($"c{number}");
        var done = 0;
        var start = Stopwatch.GetTimestamp();
        var failures = new ConcurrentQueue<Exception>();
        var threads = Enumerable.Range(0, callers).Select(number =>
        {
            var thread = new Thread(() =>
            {
                try
                {
                    using var caller = new Caller(agent) { Patience = patience };
                    while (Stopwatch.GetElapsedTime(start).TotalSeconds < seconds && failures.IsEmpty)
                    {
                        caller.Mount($"c{number}");
                        caller.Unmount($"c{number}");
                        Interlocked.Increment(ref done);
                    }
                }
#pragma warning disable CA1031 // Nothing may leave a thread: it would end the process, and nobody would clean up.
                catch (Exception failure)
#pragma warning restore CA1031
                {
                    failures.Enqueue(failure);
                }
            });
            thread.Start();
            return thread;
        }).ToList();
        foreach (var thread in threads) thread.Join();
        if (!failures.IsEmpty) throw new AggregateException(failures.First().Message, failures);
        return done / Stopwatch.GetElapsedTime(start).TotalSeconds;
    }

    /// <summary>
    /// Pairs per second of the programs. A shell's loop starts them, as nothing that is at hand starts a program with less ado; its own start is not counted.
    /// </summary>
    private static double ProgramPairs(string directory, int workers, int pairsEach)
    {
        for (var worker = 0; worker < workers; worker++) Directory.CreateDirectory($"{directory}/{worker}");
        // The shells say that they run, and begin when they are told to.
        var script = $"echo; read go; i=0; while [ $i -lt {pairsEach} ]; do mount -t tmpfs -o nosuid,nodev tmpfs \"$1\" && umount \"$1\" || exit 1; i=$((i+1)); done";
        var shells = Enumerable.Range(0, workers).Select(worker => Process.Start(new ProcessStartInfo("/bin/sh", ["-c", script, "sh", $"{directory}/{worker}"])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
        })!).ToList();
        foreach (var shell in shells) shell.StandardOutput.ReadLine();
        var start = Stopwatch.GetTimestamp();
        foreach (var shell in shells) shell.StandardInput.WriteLine();
        foreach (var shell in shells)
        {
            shell.WaitForExit();
            if (shell.ExitCode != 0) throw new InvalidOperationException("mount or umount failed");
        }
        var elapsed = Stopwatch.GetElapsedTime(start).TotalSeconds;
        foreach (var shell in shells) shell.Dispose();
        return workers * pairsEach / elapsed;
    }

    private static double RawPairs(string directory, int count)
    {
        Directory.CreateDirectory($"{directory}/0");
        var start = Stopwatch.GetTimestamp();
        for (var i = 0; i < count; i++)
        {
            Kernel.MountTmpfs($"{directory}/0");
            Kernel.Unmount($"{directory}/0");
        }
        return Stopwatch.GetElapsedTime(start).TotalMilliseconds / count;
    }
}
