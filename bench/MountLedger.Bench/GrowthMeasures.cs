using System.Globalization;

namespace MountLedger.Bench;

/// <summary>
/// How the latency of one mount and unmount grows with what is there already: mountpoints, events, attachments. Each range is walked upwards once,
/// and at each size as many rounds are measured as anywhere.
/// </summary>
internal static class GrowthMeasures
{
    private const double GrowthMax = 1.5;
    private const string Target = "grows ≤ 1.5 ×";

    public static async Task<IReadOnlyList<Row>> MountsAsync(MeasureContext context)
    {
        var agent = await AgentUnderTest.StartAsync(context);
        using var caller = new Caller(agent);
        MountMeasures.UnmeasuredPairs(caller, "warm", context.Options.Size(300, 2));
        var elsewhere = context.Workplace.NewDirectory("m");
        var present = 0;
        return Growth(context, "mountpoints present", context.Options.Smoke ? [10, 100] : [10, 1_000, 10_000, 50_000], caller, size =>
        {
            for (; present < size; present++)
            {
                Directory.CreateDirectory($"{elsewhere}/{present}");
                Kernel.MountTmpfs($"{elsewhere}/{present}");
            }
        }, async () =>
        {
            await agent.StopAsync();
            for (; present > 0; present--) Kernel.Unmount($"{elsewhere}/{present - 1}");
        });
    }

    public static async Task<IReadOnlyList<Row>> EventsAsync(MeasureContext context)
    {
        var agent = await AgentUnderTest.StartAsync(context);
        using var caller = new Caller(agent);
        MountMeasures.UnmeasuredPairs(caller, "warm", context.Options.Size(300, 2));
        return Growth(context, "events in the ledger", context.Options.Smoke ? [1_000, 2_000] : [1_000, 100_000, 1_000_000], caller, size =>
        {
            var there = long.Parse(agent.Query(context, "select count(*) from mountledger.mt_events"), CultureInfo.InvariantCulture);
            // A hundred events for each stream, as the agent stores them; the checks of foreign keys are left out, which would only take time.
            agent.Query(context, string.Create(CultureInfo.InvariantCulture, $"""
                set session_replication_role = replica;
                insert into mountledger.mt_streams (tenant_id, id, version)
                  select 'bench', '/srv/old/' || {there} || '/' || i, 100 from generate_series(1, {(size - there) / 100}) i;
                insert into mountledger.mt_events (seq_id, id, stream_id, version, data, type, timestamp, tenant_id, mt_dotnet_type, correlation_id, headers, user_name)
                  select nextval('mountledger.mt_events_sequence'), gen_random_uuid(), '/srv/old/' || {there} || '/' || i, v,
                    jsonb_build_object('volume', 'vol-' || i, 'consumer', 'vm-' || v, 'onFailure', 'forget'), 'attachment_added', now(), 'bench',
                    'MountLedger.MountEvent+AttachmentAdded, MountLedger', gen_random_uuid()::text,
                    jsonb_build_object('prev', repeat('0', 64), 'hash', encode(sha256((i * 100 + v)::text::bytea), 'hex')), 'bench'
                  from generate_series(1, {(size - there) / 100}) i, generate_series(1, 100) v;
                """));
            agent.Query(context, "analyze mountledger.mt_streams; analyze mountledger.mt_events; checkpoint");
        }, agent.StopAsync);
    }

    public static async Task<IReadOnlyList<Row>> AttachmentsAsync(MeasureContext context)
    {
        var agent = await AgentUnderTest.StartAsync(context);
        using var caller = new Caller(agent);
        MountMeasures.UnmeasuredPairs(caller, "warm", context.Options.Size(300, 2));
        var present = 0;
        var rows = Growth(context, "attachments on one mountpoint", context.Options.Smoke ? [1, 20] : [1, 100, 1_000, 10_000], caller, size =>
        {
            // A pair's own is one more, at the last size the last one that a mountpoint can have.
            size = Math.Min(size, MountDecider.AttachmentsMax - 1);
            // Many at once: they share commits.
            var parallel = new ParallelOptions { MaxDegreeOfParallelism = 16 };
            Parallel.For(present, size, parallel, () => new Caller(agent) { Patience = Caller.Unmeasured }, (number, _, own) =>
            {
                own.Mount("shared", consumer: $"vm-{number}");
                return own;
            }, own => own.Dispose());
            present = size;
        }, agent.StopAsync, pair: number =>
        {
            caller.Mount("shared", consumer: $"one-more-{number}");
            caller.Unmount("shared", consumer: $"one-more-{number}");
        });
        return rows;
    }

    private static List<Row> Growth(
        MeasureContext context, string of, int[] sizes, Caller caller, Action<int> fill, Func<ValueTask> end, Action<int>? pair = null)
    {
        var pairs = context.Options.Size(60, 3);
        var rows = new List<Row>();
        var smallest = 0.0;
        foreach (var size in sizes)
        {
            fill(size);
            MountMeasures.UnmeasuredPairs(caller, "settle", Math.Min(pairs, 20));
            var rounds = new List<double>();
            for (var round = 0; round < context.Options.Rounds; round++)
            {
                rounds.Add(pair is null ? Figure.Quantile(MountMeasures.Pairs(caller, "grow", pairs), 0.5) : MedianOf(pair, pairs));
            }
            var figure = Figure.Of(rounds, "ms");
            if (rows.Count == 0) smallest = figure.Median;
            var growth = figure.Median / smallest;
            rows.Add(rows.Count == 0
                ? new Row($"mount + unmount, {size} {of}", null, figure)
                : new Row($"mount + unmount, {size} {of}", null, figure, Ratio: growth, Target: Target, Met: growth <= GrowthMax));
        }
        end().AsTask().GetAwaiter().GetResult();
        return rows;
    }

    private static double MedianOf(Action<int> pair, int count)
    {
        var times = new List<double>(count);
        for (var i = 0; i < count; i++)
        {
            var start = System.Diagnostics.Stopwatch.GetTimestamp();
            pair(i);
            times.Add(System.Diagnostics.Stopwatch.GetElapsedTime(start).TotalMilliseconds);
        }
        times.Sort();
        return Figure.Quantile(times, 0.5);
    }
}
