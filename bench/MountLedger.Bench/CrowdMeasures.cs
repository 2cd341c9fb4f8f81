using System.Diagnostics;
using System.Globalization;
using System.Text.RegularExpressions;

namespace MountLedger.Bench;

/// <summary>One agent with ten thousand mountpoints of its own: how it starts, what it notices, what it costs when nothing happens.</summary>
internal static partial class CrowdMeasures
{
    private const int Callers = 32;
    private static readonly TimeSpan NoticeMax = TimeSpan.FromSeconds(5);

    public static async Task<IReadOnlyList<Row>> RunAsync(MeasureContext context)
    {
        var size = context.Options.Size(10_000, 50);
        var directory = context.Workplace.NewDirectory("a");
        var agent = await AgentUnderTest.StartAsync(context, directory);
        var before = (Agent: Resident(agent.Pid), Worker: Resident(agent.WorkerPid));
        var parallel = new ParallelOptions { MaxDegreeOfParallelism = Callers };
        Parallel.For(0, size, parallel, () => new Caller(agent) { Patience = Caller.Unmeasured }, (number, _, own) =>
        {
            own.Mount($"n{number}");
            return own;
        }, own => own.Dispose());

        var rows = new List<Row>();
        rows.AddRange(await StartAsync(context, agent, size));
        rows.AddRange(await IdleAsync(context, agent, size, before));
        rows.Add(await VanishAsync(context, agent, size));
        rows.AddRange(PastMeasures.Run(context, agent, size));
        await agent.StopAsync();
        foreach (var number in Enumerable.Range(0, size)) Kernel.Unmount($"{agent.Root}/n{number}");
        return rows;
    }

    private static async Task<IReadOnlyList<Row>> StartAsync(MeasureContext context, AgentUnderTest agent, int size)
    {
        var (starts, compares) = (new List<double>(), new List<double>());
        for (var round = 0; round < context.Options.Rounds; round++)
        {
            await agent.KillAsync();
            var start = Stopwatch.GetTimestamp();
            await agent.LaunchAsync();
            starts.Add(Stopwatch.GetElapsedTime(start).TotalSeconds);
            var compared = agent.Log().Select(line => Compared().Match(line)).FirstOrDefault(match => match.Success);
            if (compared is not null) compares.Add(double.Parse(compared.Groups[1].Value, CultureInfo.InvariantCulture) / 1000);
        }
        var rows = new List<Row>
        {
            new($"start with {size} mountpoints, after kill -9: until commands are taken", null, Figure.Of(starts, "s"), Target: "≤ 2 s", Met: Figure.Of(starts, "s").Median <= 2),
        };
        rows.Add(compares.Count == 0
            ? new Row("of which to list the mounts and compare", "the agent does not say")
            : new Row("of which to list the mounts and compare", null, Figure.Of(compares, "s"), Target: "compare ≤ 0.15 s", Met: Figure.Of(compares, "s").Median <= 0.15));
        return rows;
    }

    private static async Task<IReadOnlyList<Row>> IdleAsync(MeasureContext context, AgentUnderTest agent, int size, (double Agent, double Worker) before)
    {
        var worker = agent.WorkerPid;
        var (shares, sizes) = (new List<double>(), new List<double>());
        await Task.Delay(TimeSpan.FromSeconds(context.Options.Size(3, 1)));
        for (var round = 0; round < context.Options.Rounds; round++)
        {
            var (start, used) = (Stopwatch.GetTimestamp(), ProcessFigures.ProcessorSeconds(agent.Pid) + ProcessFigures.ProcessorSeconds(worker));
            await Task.Delay(TimeSpan.FromSeconds(context.Options.Size(6, 1)));
            shares.Add((ProcessFigures.ProcessorSeconds(agent.Pid) + ProcessFigures.ProcessorSeconds(worker) - used) / Stopwatch.GetElapsedTime(start).TotalSeconds * 100);
            sizes.Add(Resident(agent.Pid) + Resident(worker));
        }
        var (share, resident) = (Figure.Of(shares, "% of a core"), Figure.Of(sizes, "MB"));
        var each = (resident.Median - before.Agent - before.Worker) * 1024 / size;
        return
        [
            new Row($"idle with {size} mountpoints, agent and worker", null, share, Target: "≤ 1 %", Met: share.Median <= 1),
            new Row("the same, resident", $"{Figure.Text(each)} KB for each mountpoint", resident, Target: "≤ 200 MB", Met: resident.Median <= 200),
        ];
    }

    /// <summary>From just before the unmount behind the agent's back to the time that the ledger gives the event: both are this machine's clock.</summary>
    private static async Task<Row> VanishAsync(MeasureContext context, AgentUnderTest agent, int size)
    {
        var name = $"a mount vanishes with {size} present: until drift_detected is committed";
        var times = new List<double>();
        for (var round = 0; round < Math.Max(context.Options.Rounds, 2); round++)
        {
            var path = $"{agent.Root}/n{round}";
            var at = DateTimeOffset.UtcNow;
            Kernel.Unmount(path);
            var waited = Stopwatch.StartNew();
            var found = "";
            while (found.Length == 0 && waited.Elapsed < NoticeMax)
            {
                await Task.Delay(20);
                found = agent.Query(context, string.Create(CultureInfo.InvariantCulture, $"""
                    select extract(epoch from timestamp) from mountledger.mt_events
                    where stream_id = '{path}' and type = 'drift_detected' and timestamp >= to_timestamp({at.ToUnixTimeMilliseconds() / 1000.0:F3}) limit 1
                    """));
            }
            if (found.Length == 0) return new Row(name, "not noticed within 5 s: nothing watches the mount table", Target: "≤ 10 ms");
            times.Add((double.Parse(found, CultureInfo.InvariantCulture) * 1000) - at.ToUnixTimeMilliseconds());
        }
        var figure = Figure.Of(times, "ms");
        return new Row(name, null, figure, Target: "≤ 10 ms", Met: figure.Median <= 10);
    }

    private static double Resident(int pid) => ProcessFigures.ResidentKb(pid) / 1024;

    [GeneratedRegex(@"compared them with \d+ mounts in (\d+) ms")]
    private static partial Regex Compared();
}
