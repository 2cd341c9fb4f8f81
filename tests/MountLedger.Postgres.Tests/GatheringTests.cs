using Npgsql;

namespace MountLedger.Postgres.Tests;

/// <summary>
/// Appends of many callers share commits. To see it, both writers are held up by the lock on a stream of their own; what comes then waits, and is
/// written together when they are let go.
/// </summary>
public sealed class GatheringTests(PostgresServer server) : LedgerTest(server)
{
    private static readonly StreamKey[] Holds = [new(Host, "/hold/0"), new(Host, "/hold/1")];

    [PostgresFact]
    public async Task A_caller_alone_writes_at_once_and_waits_for_nobody()
    {
        var result = Store.AppendAsync(Batch(MountState.Initial(Stream), FirstAttach()), default);

        Assert.True(result.IsCompletedSuccessfully);
        Assert.IsType<AppendResult.Appended>(await result);
    }

    [PostgresFact]
    public async Task Those_who_wait_are_written_by_few_transactions()
    {
        var waiting = await WhileWritersAreHeldAsync(() => Enumerable.Range(0, 40).Select(i => AttachAsync($"/srv/{i}")));

        Assert.All(waiting, result => Assert.IsType<AppendResult.Appended>(result.Result));
        Assert.InRange(await ScalarAsync<long>("select count(distinct xmin::text) from mountledger.mt_events where stream_id like '/srv/%'"), 1, 4);
        await AssertNumbersHaveNoGapAsync();
    }

    [PostgresFact]
    public async Task Beside_a_transaction_under_way_a_few_wait_for_company_but_not_until_it_ends()
    {
        for (var attempt = 0; ; attempt++)
        {
            // Nine together: from now on two are not enough. (Unless the two that hold up the writers are the last to end.)
            await WhileWritersAreHeldAsync(() => Enumerable.Range(0, 9).Select(i => AttachAsync($"/srv/{attempt}/{i}")));
            Task<AppendResult> held;
            await using (await HoldAsync(Holds[0]))
            {
                held = Task.Run(() => AppendAsync(Holds[0], [new MountEvent.RepairPaused("held")]));
                await EventuallyAsync(async () => await WritersAtItAsync() == 1);

                await Task.WhenAll(AttachAsync($"/few/{attempt}/0"), AttachAsync($"/few/{attempt}/1")).WaitAsync(TimeSpan.FromSeconds(20));
                Assert.False(held.IsCompleted);
            }
            Assert.IsType<AppendResult.Appended>(await held);
            if (await ScalarAsync<long>($"select count(distinct xmin::text) from mountledger.mt_events where stream_id like '/few/{attempt}/%'") == 1) break;
            Assert.True(attempt < 9, "two that came together never shared a transaction");
        }
    }

    [PostgresFact]
    public async Task Those_who_wait_when_the_ledger_is_closed_are_written_or_told()
    {
        var ending = Task.CompletedTask;
        var waiting = await WhileWritersAreHeldAsync(
            () => Enumerable.Range(0, 9).Select(i => AttachAsync($"/srv/{i}")), () => ending = Database.DisposeAsync().AsTask());

        await ending;
        Assert.All(waiting, result => Assert.True(result.IsFaulted || result.Result is AppendResult.Appended));
    }

    [PostgresFact]
    public async Task Those_with_a_key_are_gathered_too_and_of_two_with_the_same_one_is_told_of_the_other()
    {
        var waiting = await WhileWritersAreHeldAsync(() => Enumerable.Range(0, 20).Select(i =>
            Store.AppendAsync(Batch(At($"/srv/{i}"), FirstAttach(), request: Request(i == 13 ? "key-12" : $"key-{i}")), default).AsTask()));

        // They cannot go together, and the two writers do not wait for each other: either may be the first.
        var told = Assert.Single(new[] { 12, 13 }, i => waiting[i].Result is AppendResult.DuplicateRequest);
        Assert.Equal("key-12", Assert.IsType<AppendResult.DuplicateRequest>(waiting[told].Result).Existing.Key);
        for (var i = 0; i < 20; i++)
            if (i != told) Assert.IsType<AppendResult.Appended>(waiting[i].Result);
        Assert.Equal(19, await ScalarAsync<long>("select count(*) from mountledger.request"));
        Assert.InRange(await ScalarAsync<long>("select count(distinct xmin::text) from mountledger.mt_events where stream_id like '/srv/%'"), 1, 4);
        await AssertNumbersHaveNoGapAsync();
    }

    [PostgresFact]
    public async Task Each_refusal_is_the_answer_of_its_own_append_and_of_no_other()
    {
        await new HostLease(Database).TakeAsync(Host, "a1", "m1", "b1", 0, TimeSpan.FromMinutes(1), default);
        await AppendAsync(new StreamKey(Host, "/srv/conflict"), FirstAttach());
        await Store.AppendAsync(Batch(MountState.Initial(new StreamKey(Host, "/srv/used")), FirstAttach(), request: Request("used")), default);
        await AppendHostAsync(new HostEvent.HostDown("x"));

        var waiting = await WhileWritersAreHeldAsync(() =>
        [
            AttachAsync("/srv/1"), AttachAsync("/srv/conflict"), AttachAsync("/srv/2"), AttachAsync("/srv/stale", Caller with { Epoch = 9 }),
            AttachAsync("/srv/3"), Store.AppendAsync(Batch(At("/srv/again"), FirstAttach(), request: Request("used")), default).AsTask(),
            AttachAsync("/srv/4"), Store.AppendAsync(Batch(At("/srv/down"), FirstAttach(), requireUp: true), default).AsTask(), AttachAsync("/srv/5"),
        ]);

        Assert.Equal(2, Assert.IsType<AppendResult.Conflict>(waiting[1].Result).ActualVersion);
        Assert.Equal(1, Assert.IsType<AppendResult.StaleEpoch>(waiting[3].Result).CurrentEpoch);
        Assert.IsType<AppendResult.DuplicateRequest>(waiting[5].Result);
        Assert.IsType<AppendResult.HostDown>(waiting[7].Result);
        foreach (var i in (int[])[0, 2, 4, 6, 8]) Assert.IsType<AppendResult.Appended>(waiting[i].Result);
        Assert.Equal(
            ["/srv/1", "/srv/2", "/srv/3", "/srv/4", "/srv/5", "/srv/conflict", "/srv/used"],
            await RowsAsync("select id from mountledger.mt_streams where id like '/srv/%' order by id"));
        await AssertNumbersHaveNoGapAsync();
    }

    [PostgresFact]
    public async Task Of_three_appends_to_one_stream_that_wait_together_one_wins_and_the_others_get_its_version()
    {
        var waiting = await WhileWritersAreHeldAsync(() =>
            Enumerable.Range(0, 3).Select(_ => Store.AppendAsync(Batch(At("/srv/a"), FirstAttach()), default).AsTask()));

        Assert.Equal(1, waiting.Count(result => result.Result is AppendResult.Appended));
        Assert.Equal(2, waiting.Count(result => result.Result is AppendResult.Conflict { ActualVersion: 2 }));
        Assert.Equal(2, (await Store.ReadStreamAsync(At("/srv/a").Stream, 1, default)).Count);
    }

    [PostgresTheory]
    [InlineData("create trigger refuse before insert on mountledger.mt_events for each row when (new.stream_id = '/srv/7') execute function refuse()")]
    [InlineData("create constraint trigger refuse after insert on mountledger.mt_events initially deferred for each row when (new.stream_id = '/srv/7') execute function refuse()")]
    public async Task An_error_of_one_rolls_back_all_and_then_fails_that_one_alone(string trigger)
    {
        await ExecuteAsync("create function refuse() returns trigger language plpgsql as $$ begin raise check_violation using message = 'not this one'; end $$");
        await ExecuteAsync(trigger);

        var waiting = await WhileWritersAreHeldAsync(() => Enumerable.Range(0, 12).Select(i => AttachAsync($"/srv/{i}")));

        for (var i = 0; i < 12; i++)
        {
            if (i == 7) Assert.Equal("not this one", Assert.IsType<PostgresException>(waiting[i].Exception!.InnerException).MessageText);
            else Assert.IsType<AppendResult.Appended>(waiting[i].Result);
        }
        Assert.Equal(0, await ScalarAsync<long>("select count(*) from mountledger.mt_events where stream_id = '/srv/7'"));
        Assert.Equal(22, await ScalarAsync<long>("select count(*) from mountledger.mt_events where stream_id like '/srv/%'"));
    }

    [PostgresFact]
    public async Task Who_gives_up_before_his_turn_has_written_nothing()
    {
        using var patience = new CancellationTokenSource();

        var waiting = await WhileWritersAreHeldAsync(
            () => [Store.AppendAsync(Batch(At("/srv/gone"), FirstAttach()), patience.Token).AsTask(), AttachAsync("/srv/stays")],
            patience.Cancel);

        Assert.True(waiting[0].IsCanceled);
        Assert.IsType<AppendResult.Appended>(waiting[1].Result);
        Assert.Equal(["/srv/stays"], await RowsAsync("select id from mountledger.mt_streams where id like '/srv/%'"));
    }

    [PostgresFact]
    public async Task A_host_event_among_many_appends_takes_its_turn()
    {
        var waiting = await WhileWritersAreHeldAsync(() =>
            (IEnumerable<Task<AppendResult>>)[.. Enumerable.Range(0, 10).Select(i => AttachAsync($"/srv/{i}")), AppendHostAsync(new HostEvent.HostUp(null)), .. Enumerable.Range(10, 10).Select(i => AttachAsync($"/srv/{i}"))]);

        Assert.All(waiting, result => Assert.IsType<AppendResult.Appended>(result.Result));
        await AssertNumbersHaveNoGapAsync();
    }

    [PostgresFact]
    public async Task When_the_connection_breaks_everybody_is_told_at_once_and_the_next_append_works()
    {
        var waiting = await WhileWritersAreHeldAsync(
            () => Enumerable.Range(0, 10).Select(i => AttachAsync($"/srv/{i}")),
            () => ExecuteAsync("select pg_terminate_backend(pid) from pg_stat_activity where query like '%ledger_append%' and pid <> pg_backend_pid()").Wait());

        Assert.All(waiting, result => Assert.True(result.IsFaulted || result.Result is AppendResult.Appended));
        await EventuallyAsync(async () =>
        {
            try
            {
                return await AttachAsync("/srv/after") is AppendResult.Appended or AppendResult.Conflict;
            }
            catch (LedgerUnavailableException)
            {
                return false;
            }
        });
    }

    private static MountState At(string path) => MountState.Initial(new StreamKey(Host, path));

    private Task<AppendResult> AttachAsync(string path, AppendOrigin? origin = null) =>
        Store.AppendAsync(Batch(At(path), FirstAttach(), origin), default).AsTask();

    /// <returns>The tasks of <paramref name="start"/>, ended.</returns>
    private async Task<Task<AppendResult>[]> WhileWritersAreHeldAsync(Func<IEnumerable<Task<AppendResult>>> start, Action? before = null)
    {
        foreach (var hold in Holds) await AppendAsync(hold, [new MountEvent.RepairPaused("hold")]);
        await using var holder = await HoldAsync(Holds);

        // A writer holds the thread of who called it.
        var held = Holds.Select(hold => Task.Run(async () =>
        {
            try
            {
                await AppendAsync(hold, [new MountEvent.RepairPaused("held")]);
            }
            catch (LedgerUnavailableException)
            {
                // A test that breaks connections breaks this one too.
            }
        })).ToArray();
        await EventuallyAsync(async () => await WritersAtItAsync() == Holds.Length);

        var started = start().ToArray();
        Assert.All(started, task => Assert.False(task.IsCompleted));
        before?.Invoke();
        await holder.DisposeAsync();
        await Task.WhenAll(held);
        await Task.WhenAny(Task.WhenAll(started), Task.Delay(TimeSpan.FromSeconds(20)));
        Assert.All(started, task => Assert.True(task.IsCompleted));
        return started;
    }

    /// <returns>A session that holds the streams until it ends.</returns>
    private async Task<NpgsqlConnection> HoldAsync(params StreamKey[] streams)
    {
        var holder = new NpgsqlConnection($"{ConnectionString};Pooling=false");
        await holder.OpenAsync();
        await holder.BeginTransactionAsync();
        await using var take = new NpgsqlCommand("select from mountledger.mt_streams where id = any ($1) for update", holder);
        take.Parameters.AddWithValue(Array.ConvertAll(streams, stream => stream.Id));
        await take.ExecuteNonQueryAsync();
        return holder;
    }

    private Task<long> WritersAtItAsync() => ScalarAsync<long>(
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query like '%ledger_append%'");

    private async Task AssertNumbersHaveNoGapAsync() => Assert.Equal(
        "true", (await RowsAsync("select (max(seq_id) = count(*) and min(seq_id) = 1)::text from mountledger.mt_events")).Single());
}
