using System.Diagnostics;
using System.Globalization;

namespace MountLedger.Bench;

/// <summary>What a process has at a moment.</summary>
internal readonly record struct ProcessSample(double ResidentMb, int Descriptors, int Threads)
{
    public static ProcessSample Of(int pid) => new(ProcessFigures.ResidentKb(pid) / 1024, ProcessFigures.Descriptors(pid), ProcessFigures.Threads(pid));
}

/// <summary>A table with its indexes and its TOAST, and how many of its rows are dead and not yet cleared away.</summary>
internal readonly record struct TableSample(long Bytes, long Dead);

/// <summary>
/// Agent, worker and ledger at a moment. <paramref name="HeapMb"/>: what the agent's collector kept when it ran last. <paramref name="PostgresMb"/>: of all
/// processes of the server, what they share counted once. <paramref name="Events"/>: all that the ledger has.
/// </summary>
internal sealed record SoakSample(
    double AtSeconds, ProcessSample Agent, double HeapMb, ProcessSample Worker, int PostgresProcesses, double PostgresMb, long Events,
    IReadOnlyDictionary<string, TableSample> Tables)
{
    /// <summary>The one table that has a row for each event.</summary>
    public const string EventTable = "mt_events";

    /// <summary>Grows with the events: that table, and the one of clean slates, which is written when nobody appends much, so hardly during a soak.</summary>
    public static bool IsOfEvents(string table) => table is EventTable or "clean_slate";

    public double BytesPerEvent => Events == 0 ? 0 : (double)Tables[EventTable].Bytes / Events;

    public static SoakSample Take(MeasureContext context, AgentUnderTest agent, double atSeconds)
    {
        var heap = Metric(agent, "process_managed_heap_bytes");
        var servers = agent.PostgresPids;
        // The sequence is drawn from only for events that are inserted: counting a million rows every few seconds would be a load of its own.
        var lines = agent.Query(context, """
            select 'events', last_value, 0 from mountledger.mt_events_sequence
            union all
            select c.relname, pg_total_relation_size(c.oid), coalesce(s.n_dead_tup, 0)
            from pg_class c left join pg_stat_user_tables s on s.relid = c.oid
            where c.relnamespace = 'mountledger'::regnamespace and c.relkind = 'r'
            """).Split('\n').Select(line => line.Split('|')).ToDictionary(
                line => line[0], line => new TableSample(long.Parse(line[1], CultureInfo.InvariantCulture), long.Parse(line[2], CultureInfo.InvariantCulture)));
        lines.Remove("events", out var events);
        return new SoakSample(
            atSeconds, ProcessSample.Of(agent.Pid), heap / (1 << 20), ProcessSample.Of(agent.WorkerPid), servers.Count,
            servers.Sum(ProcessFigures.ProportionalKb) / 1024, events.Bytes, lines);
    }

    /// <summary>Takes samples until <paramref name="until"/> is done; their time begins now.</summary>
    public static async Task<IReadOnlyList<SoakSample>> TakeAsync(MeasureContext context, AgentUnderTest agent, TimeSpan interval, Task until)
    {
        var since = Stopwatch.GetTimestamp();
        var samples = new List<SoakSample>();
        do
        {
            samples.Add(Take(context, agent, Stopwatch.GetElapsedTime(since).TotalSeconds));
        }
        while (await Task.WhenAny(until, Task.Delay(interval)) != until);
        return samples;
    }

    private static double Metric(AgentUnderTest agent, string name)
    {
        using var caller = new Caller(agent);
        var line = System.Text.Encoding.UTF8.GetString(caller.Send("GET", "/metrics", null).Body.Span).Split('\n').FirstOrDefault(line => line.StartsWith(name + " ", StringComparison.Ordinal));
        return line is null ? 0 : double.Parse(line.Split(' ')[1], CultureInfo.InvariantCulture);
    }
}
