using System.Globalization;

namespace MountLedger.Bench;

/// <summary>A minute of a soak: its pairs, and the medians of its samples.</summary>
internal sealed record SoakPeriod(
    int Number, int Pairs, double P50Ms, double P99Ms, double MaxMs, double AgentMb, double HeapMb, double WorkerMb, int AgentDescriptors, int WorkerDescriptors, int AgentThreads,
    int WorkerThreads, int PostgresProcesses, double PostgresMb, long Events, double BytesPerEvent, double OtherTablesMb, long DeadRows);

/// <summary>
/// What a soak shows. Growth is judged by the medians of the second and of the last quarter of the time: the first quarter is for caches and the compiler
/// to fill. What is allowed is a share and a fixed amount, which absorbs what a collector or a vacuum makes of the moment of a sample; a leak of
/// fifty bytes for each pair would show in ten minutes at some hundred pairs a second.
/// </summary>
internal sealed class SoakVerdicts(TimeSpan duration, TimeSpan period, IReadOnlyList<Pair> pairs, IReadOnlyList<SoakSample> samples)
{
    private const double MemoryShare = 1.05;
    private const double MemoryMb = 4;
    private const double TableShare = 1.1;
    private const double TableMb = 0.5;
    private const double DenseShare = 1.05;

    /// <summary>A connection or a thread of the pool that happens to be there.</summary>
    private const int FewMore = 3;

    public IReadOnlyList<SoakPeriod> Periods { get; } = PeriodsOf(duration, period, pairs, samples);

    /// <summary>The greatest p99 of a period of the last quarter, beside the p50 of the first one; latency counts from when a pair was due.</summary>
    public Row Latency(double ratioMax)
    {
        var last = Periods.Skip(Periods.Count - Math.Max(1, (int)Math.Round(Periods.Count / 4.0))).Select(one => one.P99Ms).ToList();
        var ratio = last.Max() / Periods[0].P50Ms;
        return new Row(
            "p99 of the last minutes, the greatest judged", $"greatest p99 of any minute: {Figure.Text(Periods.Max(one => one.P99Ms))} ms", Figure.Of(last, "ms"),
            "p50 of the first minute", Figure.Of([Periods[0].P50Ms], "ms"), ratio, $"≤ {ratioMax:0} ×", ratio <= ratioMax);
    }

    public IEnumerable<Row> Growth()
    {
        yield return Growth("agent, resident", "MB", sample => sample.Agent.ResidentMb, MemoryShare, MemoryMb);
        yield return Growth("agent, managed heap after a collection", "MB", sample => sample.HeapMb, MemoryShare, MemoryMb);
        yield return Growth("worker, resident", "MB", sample => sample.Worker.ResidentMb, MemoryShare, MemoryMb);
        yield return Growth("PostgreSQL, all its processes, shared memory once", "MB", sample => sample.PostgresMb, MemoryShare, MemoryMb);
        yield return Growth("agent, descriptors", "", sample => sample.Agent.Descriptors, 1, FewMore);
        yield return Growth("worker, descriptors", "", sample => sample.Worker.Descriptors, 1, FewMore);
        yield return Growth("agent, threads", "", sample => sample.Agent.Threads, 1, FewMore);
        yield return Growth("worker, threads", "", sample => sample.Worker.Threads, 1, FewMore);
        yield return Growth("PostgreSQL, processes", "", sample => sample.PostgresProcesses, 1, FewMore);
        yield return Growth($"{SoakSample.EventTable}, for each event", "bytes", sample => sample.BytesPerEvent, DenseShare, 0);
        // They have a row for each mountpoint, attachment or host, not for each event: what they gain would be dead rows that nobody clears away.
        foreach (var table in samples[^1].Tables.Keys.Where(name => !SoakSample.IsOfEvents(name) && samples[^1].Tables[name].Bytes > 0).Order(StringComparer.Ordinal))
        {
            yield return Growth($"table {table}", "MB", sample => Mb(sample.Tables[table].Bytes), TableShare, TableMb)
                with
            { Note = $"dead rows: {Figure.Of(samples.Select(sample => (double)sample.Tables[table].Dead), "")}" };
        }
    }

    public void PrintPeriods(TextWriter output)
    {
        output.WriteLine($"each period is {period.TotalSeconds:0} s; latency of a pair counts from when it was due; the rest are medians of the period's samples");
        output.WriteLine();
        output.WriteLine("| period | pairs | p50 ms | p99 ms | max ms | agent MB | heap MB | worker MB | descriptors: agent, worker | threads: agent, worker | PostgreSQL | its MB | events | bytes/event | other tables MB | dead rows |");
        output.WriteLine("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
        foreach (var one in Periods)
        {
            output.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"| {one.Number} | {one.Pairs} | {Figure.Text(one.P50Ms)} | {Figure.Text(one.P99Ms)} | {Figure.Text(one.MaxMs)} | {one.AgentMb:0.0} | {one.HeapMb:0.0} | {one.WorkerMb:0.0} | {one.AgentDescriptors}, {one.WorkerDescriptors} | {one.AgentThreads}, {one.WorkerThreads} | {one.PostgresProcesses} | {one.PostgresMb:0.0} | {one.Events} | {one.BytesPerEvent:0} | {one.OtherTablesMb:0.00} | {one.DeadRows} |"));
        }
        output.WriteLine();
    }

    private Row Growth(string what, string unit, Func<SoakSample, double> of, double share, double more)
    {
        var second = Figure.Of(Quarter(1).Select(of), unit);
        var last = Figure.Of(Quarter(3).Select(of), unit);
        var target = (share, more) switch
        {
            (1, _) => $"≤ + {more:0}",
            (_, 0) => $"≤ {Figure.Text(share)} ×",
            _ => $"≤ {Figure.Text(share)} × + {more:0.#} {unit}",
        };
        double? ratio = second.Median == 0 ? null : last.Median / second.Median;
        return new Row(what, null, last, "second quarter", second, ratio, target, last.Median <= (second.Median * share) + more);
    }

    private List<SoakSample> Quarter(int number)
    {
        var quarter = duration.TotalSeconds / 4;
        // At the end a sample may come late, when there is a backlog.
        var within = samples.Where(sample => Math.Min(3, (int)(sample.AtSeconds / quarter)) == number).ToList();
        return within.Count > 0 ? within : throw new InvalidOperationException($"no sample in quarter {number + 1} of the time");
    }

    private static List<SoakPeriod> PeriodsOf(TimeSpan duration, TimeSpan period, IReadOnlyList<Pair> pairs, IReadOnlyList<SoakSample> samples)
    {
        var count = Math.Max(1, (int)Math.Round(duration / period));
        var pairsOf = pairs.ToLookup(pair => PeriodOf(pair.DueSeconds));
        var samplesOf = samples.ToLookup(sample => PeriodOf(sample.AtSeconds));
        var periods = new List<SoakPeriod>();
        for (var number = 0; number < count; number++)
        {
            var times = pairsOf[number].Select(pair => (double)pair.LatencyMs).Order().ToArray();
            var taken = samplesOf[number].ToList();
            if (times.Length == 0 || taken.Count == 0) throw new InvalidOperationException($"nothing was done, or nothing sampled, in period {number + 1}");
            double Median(Func<SoakSample, double> of) => Figure.Of(taken.Select(of), "").Median;
            periods.Add(new SoakPeriod(
                number + 1, times.Length, Figure.Quantile(times, 0.5), Figure.Quantile(times, 0.99), times[^1],
                Median(one => one.Agent.ResidentMb), Median(one => one.HeapMb), Median(one => one.Worker.ResidentMb),
                (int)Median(one => one.Agent.Descriptors), (int)Median(one => one.Worker.Descriptors), (int)Median(one => one.Agent.Threads), (int)Median(one => one.Worker.Threads),
                (int)Median(one => one.PostgresProcesses), Median(one => one.PostgresMb), taken[^1].Events, taken[^1].BytesPerEvent,
                Median(one => Mb(one.Tables.Where(table => !SoakSample.IsOfEvents(table.Key)).Sum(table => table.Value.Bytes))),
                (long)Median(one => one.Tables.Sum(table => table.Value.Dead))));
        }
        return periods;

        int PeriodOf(double atSeconds) => Math.Min(count - 1, (int)(atSeconds / period.TotalSeconds));
    }

    private static double Mb(long bytes) => bytes / (double)(1 << 20);
}
