using System.Collections.Immutable;
using System.Diagnostics;
using System.Globalization;
using MountLedger.Agent;
using MountLedger.Postgres;

namespace MountLedger.Bench;

/// <summary>
/// Appends of 32 writers, one event each, to distinct streams, each acknowledged after its commit: gathered as the agent does it, each alone on a
/// connection of its own, and beside a plain one-row insert by <c>pgbench</c>. All three by turns on one server.
/// </summary>
internal static class AppendMeasures
{
    private const int Writers = 32;

    public static async Task<IReadOnlyList<Row>> RunAsync(MeasureContext context)
    {
        var server = await EmbeddedPostgres.StartAsync(context.Workplace.NewDirectory("l"), CancellationToken.None);
        context.Workplace.AtEnd(async () =>
        {
            await server.StopAsync(TimeSpan.FromSeconds(20), CancellationToken.None);
            await server.DisposeAsync();
        });
        await using var shared = LedgerDatabase.Open(server.ConnectionString);
        await new Migrator(shared).MigrateAsync(CancellationToken.None);
        var alone = Enumerable.Range(0, Writers).Select(_ => LedgerDatabase.Open(server.ConnectionString)).ToList();
        var pgbench = Pgbench.Prepare(context, server.SocketDirectory);

        var seconds = context.Options.Size(5, 1);
        var gathered = Enumerable.Repeat(new PostgresEventStore(shared), Writers).ToList();
        var ungathered = alone.Select(database => new PostgresEventStore(database)).ToList();
        await AppendsPerSecondAsync(gathered, 1);
        await AppendsPerSecondAsync(ungathered, 1);
        var (together, apart, inserts) = (new List<double>(), new List<double>(), new List<double>());
        for (var round = 0; round < context.Options.Rounds; round++)
        {
            together.Add(await AppendsPerSecondAsync(gathered, seconds));
            inserts.Add(pgbench.InsertsPerSecond(Writers, seconds));
            apart.Add(await AppendsPerSecondAsync(ungathered, seconds));
        }
        foreach (var database in alone) await database.DisposeAsync();
        return
        [
            Row.Against($"appends, {Writers} writers, gathered", "/s", together, $"pgbench -M prepared -c {Writers}, one-row insert", inserts, "≥ 0.7 ×", ratio => ratio >= 0.7),
            Row.Against("the same", "/s", together, "the same appends, ungathered", apart, "≥ 3 ×", ratio => ratio >= 3),
        ];
    }

    private static async Task<double> AppendsPerSecondAsync(List<PostgresEventStore> stores, int seconds)
    {
        var done = 0;
        var start = Stopwatch.GetTimestamp();
        await Task.WhenAll(stores.Select((store, writer) => Task.Run(async () =>
        {
            for (var i = 0; Stopwatch.GetElapsedTime(start).TotalSeconds < seconds; i++)
            {
                var batch = NewStream(writer, i);
                if (await store.AppendAsync(batch, CancellationToken.None) is not AppendResult.Appended) throw new InvalidOperationException("not appended");
                Interlocked.Increment(ref done);
            }
        })));
        return done / Stopwatch.GetElapsedTime(start).TotalSeconds;
    }

    /// <summary>An event, its stream's row and its projection row: what any append writes at least.</summary>
    private static AppendBatch NewStream(int writer, int number)
    {
        var stream = new StreamKey("bench", string.Create(CultureInfo.InvariantCulture, $"/srv/{writer}/{number}-{Guid.CreateVersion7():N}"));
        var state = MountState.Initial(stream);
        var change = new MountEvent.RepairPaused("bench");
        return new AppendBatch(
            stream, 0, [change], new AppendOrigin("bench", "bench", null, null, null, LocalAgent: true),
            state.Evolve(change, 1, DateTimeOffset.UnixEpoch, "bench"), null, AttachmentChanges.None, false, null);
    }
}
