using System.Diagnostics;
using System.Globalization;
using System.Text;
using System.Text.Json;

namespace MountLedger.Bench;

/// <summary>
/// The state at a time, of a host whose mountpoints have been mounted and unmounted again and again: when nothing has changed since then, and when each of them has, half of the events.
/// </summary>
internal static class PastMeasures
{
    private const string Target = "≤ 0.25 s";
    private const double SecondsMax = 0.25;
    private const int PageItems = 1_000;

    private static readonly TimeSpan MarkedMax = TimeSpan.FromMinutes(2);

    /// <summary>An unmount and a mount.</summary>
    private const int EventsOfCycle = 8;

    /// <summary>What a mountpoint that was mounted once has.</summary>
    private const int EventsBefore = 4;

    public static IReadOnlyList<Row> Run(MeasureContext context, AgentUnderTest agent, int size)
    {
        var cycles = context.Options.Size(12, 2);
        var last = EventsBefore + (cycles * EventsOfCycle);
        var start = agent.Query(context, "select max(timestamp) from mountledger.mt_events");
        Fill(context, agent, last, start);
        WaitUntilMarked(context, agent);
        var events = long.Parse(agent.Query(context, "select count(*) from mountledger.mt_events"), CultureInfo.InvariantCulture);
        var of = $"{size} mountpoints, {events} events";
        return
        [
            Measure(context, agent, size, $"state --at T, {of}, none of them since T", TimeAfter(last)),
            Measure(context, agent, size, $"state --at T, {of}, half of them since T", TimeAfter(EventsBefore + (cycles / 2 * EventsOfCycle))),
        ];

        string TimeAfter(int version) => agent.Query(
            context, $"select to_char(('{start}'::timestamptz + interval '{version}.5 milliseconds') at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    }

    private static Row Measure(MeasureContext context, AgentUnderTest agent, int size, string name, string at)
    {
        using var caller = new Caller(agent) { Patience = Caller.Unmeasured };
        var times = new List<double>();
        for (var round = 0; round <= context.Options.Rounds; round++)
        {
            var begun = Stopwatch.GetTimestamp();
            var items = 0;
            for (string? cursor = ""; cursor is not null;)
            {
                var (status, body) = caller.Send(
                    "GET", $"/v1/state?at={Uri.EscapeDataString(at)}&limit={PageItems}{(cursor.Length > 0 ? $"&cursor={Uri.EscapeDataString(cursor)}" : "")}", null);
                if (status != 200) throw new InvalidOperationException($"{name}: {status} {Encoding.UTF8.GetString(body.Span)}");
                (var some, cursor) = Read(body.Span);
                items += some;
            }
            if (items != size) throw new InvalidOperationException($"{name}: {items} mountpoints instead of {size}");
            // The first compiles.
            if (round > 0) times.Add(Stopwatch.GetElapsedTime(begun).TotalSeconds);
        }
        var figure = Figure.Of(times, "s");
        return new Row(name, null, figure, Target: Target, Met: figure.Median <= SecondsMax);
    }

    /// <summary>How many items there are in a page, and the cursor of the next one, without making objects of them: this process shares the processors.</summary>
    private static (int Items, string? Next) Read(ReadOnlySpan<byte> page)
    {
        var items = 0;
        var reader = new Utf8JsonReader(page);
        while (reader.Read())
        {
            if (reader.TokenType == JsonTokenType.StartObject && reader.CurrentDepth == 2) items++;
            if (reader.CurrentDepth != 1 || reader.TokenType != JsonTokenType.PropertyName || !reader.ValueTextEquals("next"u8)) continue;
            reader.Read();
            return (items, reader.GetString());
        }
        throw new InvalidOperationException("a page without next");
    }

    /// <summary>The agent looks through what is new after its own appends; here a million events came at once, and not by it.</summary>
    private static void WaitUntilMarked(MeasureContext context, AgentUnderTest agent)
    {
        using var caller = new Caller(agent) { Patience = Caller.Unmeasured };
        MountMeasures.UnmeasuredPairs(caller, "nudge", 1);
        var waited = Stopwatch.StartNew();
        while (agent.Query(context, "select exists (select from mountledger.clean_slate_progress where seq_id >= (select max(seq_id) from mountledger.mt_events))") != "t")
        {
            if (waited.Elapsed > MarkedMax) throw new InvalidOperationException("the agent has not looked through its new events in time");
            Thread.Sleep(200);
        }
        agent.Query(context, "vacuum analyze mountledger.clean_slate");
    }

    /// <summary>
    /// Cycles of each mountpoint, one millisecond and one event of all of them after the other, as the agent stores them; what an append checks is left out,
    /// which would only take time.
    /// </summary>
    private static void Fill(MeasureContext context, AgentUnderTest agent, int last, string start)
    {
        agent.Query(context, string.Create(CultureInfo.InvariantCulture, $"""
            set session_replication_role = replica;
            create temporary table life as
              select r.stream_id, r.data as requested, a.data as added, s.data as started, m.data as mounted
              from mountledger.mt_events r
              join mountledger.mt_events a on a.tenant_id = r.tenant_id and a.stream_id = r.stream_id and a.version = 2
              join mountledger.mt_events s on s.tenant_id = r.tenant_id and s.stream_id = r.stream_id and s.version = 3
              join mountledger.mt_events m on m.tenant_id = r.tenant_id and m.stream_id = r.stream_id and m.version = 4
              where r.tenant_id = 'bench' and r.version = 1 and m.type = 'mounted';
            delete from mountledger.mt_events where tenant_id = 'bench' and version > {EventsBefore} and stream_id <> '@host';
            insert into mountledger.mt_events (seq_id, id, stream_id, version, data, type, timestamp, tenant_id, mt_dotnet_type, correlation_id, headers, user_name)
              select nextval('mountledger.mt_events_sequence'), gen_random_uuid(), stream_id, v,
                case (v - 5) % 8
                  when 0 then added - 'onFailure' || '{"{"}"reason": "detached"{"}"}'
                  when 1 then '{"{"}"mode": "normal"{"}"}'
                  when 2 then started - 'generation' - 'directoriesToCreate' || '{"{"}"mode": "normal"{"}"}'
                  when 3 then '{"{"}"released": false, "directoriesRemoved": []{"}"}'
                  when 4 then requested || jsonb_build_object('generation', v / 8 + 1)
                  when 5 then added
                  when 6 then started || jsonb_build_object('generation', v / 8 + 1)
                  else mounted end,
                (array['attachment_removed', 'unmount_requested', 'unmount_started', 'unmounted', 'mount_requested', 'attachment_added', 'mount_started', 'mounted'])[(v - 5) % 8 + 1],
                '{start}'::timestamptz + v * interval '1 millisecond', 'bench', 'MountLedger.MountEvent, MountLedger', gen_random_uuid()::text,
                jsonb_build_object('prev', repeat('0', 64), 'hash', encode(sha256((stream_id || v)::bytea), 'hex')), 'bench'
              from generate_series({EventsBefore + 1}, {last}) v, life
              order by v;
            update mountledger.mt_streams set version = {last} where tenant_id = 'bench' and id <> '@host';
            update mountledger.mountpoint set version = {last}, updated_at = '{start}'::timestamptz + {last} * interval '1 millisecond' where host = 'bench';
            """));
        agent.Query(context, "analyze mountledger.mt_streams; analyze mountledger.mt_events; analyze mountledger.mountpoint; analyze mountledger.attachment; checkpoint");
    }
}
