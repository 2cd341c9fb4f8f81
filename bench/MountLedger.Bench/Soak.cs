using System.Globalization;

namespace MountLedger.Bench;

/// <summary>
/// The agent under a steady load for a long time: 32 callers at 80 % of what they can do. Nothing may grow that the events do not need (memory,
/// descriptors, threads, tables), nothing may be lost, and the latency may not fray.
/// </summary>
internal static class Soak
{
    private const double Share = 0.8;
    private const double LatencyMax = 3;
    private const int ThroughputRounds = 3;

    /// <returns>Whether nothing was lost and nothing grew; in a smoke run whether nothing was lost.</returns>
    public static async Task<bool> RunAsync(MeasureContext context, Report report)
    {
        var smoke = context.Options.Smoke;
        var duration = smoke ? TimeSpan.FromSeconds(15) : TimeSpan.FromMinutes(context.Options.Minutes);
        var agent = await AgentUnderTest.StartAsync(context);

        Say("how much 32 callers can do");
        MountMeasures.PairsPerSecond(agent, MountMeasures.Callers, context.Options.Size(5, 1), Caller.Unmeasured);
        var rounds = Enumerable.Range(0, smoke ? 1 : ThroughputRounds)
            .Select(_ => MountMeasures.PairsPerSecond(agent, MountMeasures.Callers, context.Options.Size(5, 1))).ToList();
        var most = Figure.Of(rounds, "pairs/s");
        var load = new PacedLoad(agent, MountMeasures.Callers, most.Median * Share, duration);
        Say($"{Figure.Text(most.Median)} pairs/s; for {duration.TotalMinutes:0.##} min now {Figure.Text(most.Median * Share)}");

        var before = Counts(context, agent);
        var running = load.RunAsync();
        // Often in a smoke run, whose periods last a few seconds: on a loaded machine a sample takes its time, and each period needs one.
        var samples = await SoakSample.TakeAsync(context, agent, TimeSpan.FromSeconds(smoke ? 0.2 : 5), running);
        var pairs = await running;
        var after = Counts(context, agent);

        var verdicts = new SoakVerdicts(duration, smoke ? duration / 4 : TimeSpan.FromMinutes(1), pairs, samples);
        report.Add([new Row($"{MountMeasures.Callers} callers, as fast as they can", null, most)]);
        report.Add([verdicts.Latency(LatencyMax), Held(load, pairs, most.Median * Share, duration)]);
        var losses = Losses(agent, load, pairs.Count, before, after);
        report.Add([losses]);
        var growth = verdicts.Growth().Append(EventsDense(context, agent, samples[^1])).ToList();
        report.Add(growth);
        report.Details = new { periods = verdicts.Periods, samples };
        await agent.StopAsync();
        verdicts.PrintPeriods(Console.Out);
        return losses.Met == true && (smoke || growth.TrueForAll(row => row.Met != false));
    }

    private static void Say(string what) => Console.Error.WriteLine($"soak: {what}");

    /// <summary>How many outcomes of each kind the ledger has, counted row by row, and what it believes to be there.</summary>
    private static (long Mounted, long Unmounted, long Present) Counts(MeasureContext context, AgentUnderTest agent)
    {
        var numbers = agent.Query(context, """
            select count(*) filter (where type = 'mounted'), count(*) filter (where type = 'unmounted'),
              (select count(*) from mountledger.attachment) + (select count(*) from mountledger.mountpoint where phase <> 'absent')
            from mountledger.mt_events
            """).Split('|').Select(text => long.Parse(text, CultureInfo.InvariantCulture)).ToArray();
        return (numbers[0], numbers[1], numbers[2]);
    }

    private static Row Held(PacedLoad load, IReadOnlyList<Pair> pairs, double rate, TimeSpan duration)
    {
        var late = pairs.Select(pair => (double)pair.LateMs).Order().ToArray();
        return new Row(
            $"the load: {Figure.Text(rate)} pairs/s", $"{pairs.Count} of {load.Due} pairs; they began late by {Figure.Text(Figure.Quantile(late, 0.5))} ms (p50), {Figure.Text(Figure.Quantile(late, 0.99))} ms (p99)",
            Figure.Of([pairs.Count / duration.TotalSeconds], "pairs/s"), Target: "all that are due", Met: pairs.Count == load.Due);
    }

    /// <summary>Every pair was answered with success, has its two outcomes in the ledger, and left nothing behind there or in the kernel.</summary>
    private static Row Losses(
        AgentUnderTest agent, PacedLoad load, int pairs, (long Mounted, long Unmounted, long Present) before, (long Mounted, long Unmounted, long Present) after)
    {
        var inKernel = File.ReadLines("/proc/self/mountinfo").Count(line => line.Split(' ')[4].StartsWith(agent.Root + "/", StringComparison.Ordinal));
        var (mounted, unmounted) = (after.Mounted - before.Mounted, after.Unmounted - before.Unmounted);
        var isWhole = pairs > 0 && load.Failures == 0 && mounted == pairs && unmounted == pairs && after.Present == 0 && inKernel == 0;
        var note = $"{mounted} mounts and {unmounted} unmounts recorded for {pairs} pairs; left: {after.Present} in the ledger, {inKernel} in the kernel"
            + (load.FirstFailure is { } failure ? $"; the first that failed: {failure}" : "");
        return new Row("pairs that failed", note, Figure.Of([load.Failures], ""), Target: "0, nothing lost, nothing left", Met: isWhole);
    }

    /// <summary>The table of events beside the same events written into an empty table with the same indexes: what they need.</summary>
    private static Row EventsDense(MeasureContext context, AgentUnderTest agent, SoakSample last)
    {
        const int Copied = 100_000;
        const double DenseMax = 1.25;
        var dense = double.Parse(
            agent.Query(context, $"""
                create temporary table dense (like mountledger.mt_events including all);
                insert into dense select * from (select * from mountledger.mt_events order by seq_id desc limit {Copied}) newest order by seq_id;
                select pg_total_relation_size('dense')::float8 / count(*) from dense;
                """),
            CultureInfo.InvariantCulture);
        var ratio = last.BytesPerEvent / dense;
        return new Row(
            $"{SoakSample.EventTable}, for each event", null, Figure.Of([last.BytesPerEvent], "bytes"), "the newest in an empty table", Figure.Of([dense], "bytes"), ratio,
            $"≤ {Figure.Text(DenseMax)} ×", ratio <= DenseMax);
    }
}
