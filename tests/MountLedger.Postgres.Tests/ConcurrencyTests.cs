namespace MountLedger.Postgres.Tests;

/// <summary>Many callers at once: one wins, the others get a value, and the numbers of the events have no gap.</summary>
public sealed class ConcurrencyTests(PostgresServer server) : LedgerTest(server)
{
    private const int Callers = 16;

    [PostgresFact]
    public async Task Sixteen_callers_with_the_same_expected_version_and_exactly_one_wins()
    {
        for (var round = 0; round < 30; round++)
        {
            var state = await Store.LoadAsync(Stream, default);
            var results = await Task.WhenAll(Enumerable.Range(0, Callers).Select(caller => Task.Run(async () =>
                await Store.AppendAsync(Batch(state, Attach($"vm-{round}-{caller}", state)), default))));

            Assert.Single(results.OfType<AppendResult.Appended>());
            Assert.Equal(Callers - 1, results.OfType<AppendResult.Conflict>().Count(conflict => conflict.ActualVersion > state.Version));
        }
        await AssertNoGapAsync();
    }

    [PostgresFact]
    public async Task Numbers_have_no_gap_after_every_kind_of_refusal()
    {
        await new HostLease(Database).TakeAsync(Host, "a1", "m1", "b1", 0, TimeSpan.FromMinutes(1), default);
        await AppendHostAsync(new HostEvent.HostDown("x"));
        await Task.WhenAll(Enumerable.Range(0, Callers).Select(caller => Task.Run(async () =>
        {
            for (var i = 0; i < 20; i++)
            {
                var stream = new StreamKey(Host, $"/srv/{(caller + i) % 5}");
                var state = await Store.LoadAsync(stream, default);
                await Store.AppendAsync(Batch(state, Attach($"vm-{caller}-{i}", state), Caller with { Epoch = i % 3 }), default);
                await Store.AppendAsync(Batch(state, Attach($"up-{caller}-{i}", state), requireUp: true), default);
                await Store.AppendAsync(Batch(state, Attach($"rq-{caller}-{i}", state), request: Request($"k{i % 4}")), default);
            }
        })));

        await AssertNoGapAsync();
        Assert.Equal(0, await ScalarAsync<long>(
            """
            select count(*) from mountledger.mt_streams s
            where s.version <> (select max(e.version) from mountledger.mt_events e where e.tenant_id = s.tenant_id and e.stream_id = s.id)
              or s.version <> (select count(*) from mountledger.mt_events e where e.tenant_id = s.tenant_id and e.stream_id = s.id)
            """));
    }

    [PostgresFact]
    public async Task A_host_that_goes_down_stops_attaches_that_are_under_way()
    {
        var attaching = Enumerable.Range(0, 8).Select(caller => Task.Run(async () =>
        {
            for (var i = 0; i < 50; i++)
            {
                var state = MountState.Initial(new StreamKey(Host, $"/srv/{caller}/{i}"));
                if (await Store.AppendAsync(Batch(state, Attach("vm", state), requireUp: true), default) is AppendResult.HostDown) return;
            }
        })).ToList();
        await Task.Delay(20);
        var down = Assert.IsType<AppendResult.Appended>(await AppendHostAsync(new HostEvent.HostDown("now"))).Events[0];
        await Task.WhenAll(attaching);

        // Nothing that needed the host to be up comes after the event that took it down.
        Assert.Equal(down.Seq, await ScalarAsync<long>("select max(seq_id) from mountledger.mt_events"));
    }

    private static System.Collections.Immutable.ImmutableArray<LedgerEvent> Attach(string consumer, MountState state) => state.Version == 0
        ? FirstAttach(consumer: consumer)
        : [new MountEvent.AttachmentAdded("vol", consumer, OnFailure.Forget)];

    private async Task AssertNoGapAsync()
    {
        Assert.Equal("true", (await RowsAsync(
            "select (max(seq_id) = count(*) and min(seq_id) = 1)::text from mountledger.mt_events")).Single());
        Assert.Equal(
            await ScalarAsync<long>("select max(seq_id) from mountledger.mt_events"),
            await ScalarAsync<long>("select last_value from mountledger.mt_events_sequence"));
    }
}
