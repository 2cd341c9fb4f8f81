using Npgsql;

namespace MountLedger.Postgres.Tests;

/// <summary>What makes an append cheap, and what would quietly make it dear again.</summary>
public sealed class AppendCostTests(PostgresServer server) : LedgerTest(server)
{
    private const int Mountpoints = 5;
    private const int Rounds = 40;

    /// <summary>
    /// Plans are made while the tables are small and then kept. One that finds a stream's last event by the host's index reads all
    /// events of the host for each append: correct, and a hundred times as slow after a day.
    /// </summary>
    [PostgresFact]
    public async Task An_append_to_a_ledger_that_began_empty_reads_no_more_rows_than_it_needs()
    {
        for (var round = 0; round < Rounds; round++)
        {
            for (var i = 0; i < Mountpoints; i++)
                Assert.IsType<AppendResult.Appended>(await AppendAsync(new StreamKey(Host, $"/srv/{i}"), FirstAttach(consumer: $"vm-{round}")));
        }

        // A session hands in its statistics when it ends.
        await ReopenAsync();
        const int appends = Rounds * Mountpoints;
        await EventuallyAsync(async () =>
            await ScalarAsync<long>("select n_tup_ins from pg_stat_user_tables where relname = 'mt_events'") == 2 * appends);
        Assert.Equal(0, await ScalarAsync<long>("select idx_tup_read from pg_stat_user_indexes where indexrelname = 'history_host'"));
        Assert.InRange(
            await ScalarAsync<long>("select (seq_tup_read + idx_tup_fetch)::bigint from pg_stat_user_tables where relname = 'mt_events'"), 0, appends);
    }

    /// <summary>The same trap: an attachment that is looked for by its mountpoint alone is found among all of that mountpoint's.</summary>
    [PostgresFact]
    public async Task An_attachment_that_goes_is_found_by_itself_among_hundreds_of_its_mountpoint()
    {
        const int others = 300;
        await AppendAsync(Stream, [.. FirstAttach(), .. Enumerable.Range(0, others).Select(i => new MountEvent.AttachmentAdded("vol", $"other-{i}", OnFailure.Forget))]);
        var state = await Store.LoadAsync(Stream, default);
        for (var round = 0; round < Rounds; round++)
        {
            foreach (MountEvent change in (MountEvent[])[new MountEvent.AttachmentRemoved("vol", "vm-1", RemovalReason.Detached), new MountEvent.AttachmentAdded("vol", "vm-1", OnFailure.Forget)])
            {
                var batch = Batch(state, [change]);
                Assert.IsType<AppendResult.Appended>(await Store.AppendAsync(batch, default));
                state = batch.NewState!;
            }
        }

        await ReopenAsync();
        await EventuallyAsync(async () =>
            await ScalarAsync<long>("select n_tup_del from pg_stat_user_tables where relname = 'attachment'") == Rounds);
        // What was loaded once, and one for each that went.
        Assert.InRange(
            await ScalarAsync<long>("select (seq_tup_read + idx_tup_fetch)::bigint from pg_stat_user_tables where relname = 'attachment'"), 0, others + 1 + (2 * Rounds));
    }

    /// <summary>And again: a plan that was made when the host had one mountpoint must not read them all when it has many.</summary>
    [PostgresFact]
    public async Task What_an_append_reads_does_not_grow_with_the_mountpoints_of_its_host()
    {
        const int mountpoints = 60;
        await AppendAsync(new StreamKey(Host, "/srv/first"), FirstAttach());
        await ExecuteAsync("analyze");
        for (var i = 0; i < mountpoints; i++)
        {
            var stream = new StreamKey(Host, $"/srv/{i}");
            await AppendAsync(stream, FirstAttach());
            await AppendAsync(stream, [new MountEvent.MountStarted(1, "boot", 1, 1, [])]);
            await AppendAsync(stream, [new MountEvent.Mounted("boot", 1, 1, [])]);
        }

        await ReopenAsync();
        Assert.Equal(mountpoints, await ScalarAsync<long>("select count(*) from mountledger.attachment where confirmed"));
        await EventuallyAsync(async () =>
            await ScalarAsync<long>("select n_tup_ins from pg_stat_user_tables where relname = 'mt_events'") == 2 + (4 * mountpoints));
        // An append reads by indexes alone (what only loads may read such small tables as a whole). For each of three appends: its stream, loaded, moved, and read
        // for each event's foreign key; its attachment, loaded and confirmed.
        foreach (var (table, most) in ((string, int)[])[("mt_streams", 12), ("attachment", 5)])
            Assert.InRange(await ScalarAsync<long>($"select idx_tup_fetch from pg_stat_user_tables where relname = '{table}'"), 1, most * mountpoints);
    }

    [PostgresFact]
    public async Task An_append_is_prepared_once_for_each_connection()
    {
        // In the session of whoever appends:
        await ExecuteAsync("create table seen (statements bigint)");
        await ExecuteAsync(
            """
            create function see() returns trigger language plpgsql as $$ begin
              insert into seen select count(*) from pg_prepared_statements where statement like '%ledger_append%';
              return null;
            end $$
            """);
        await ExecuteAsync("create trigger see after insert on mountledger.mt_events for each statement execute function see()");

        for (var i = 0; i < 5; i++) await AppendAsync(new StreamKey(Host, $"/srv/{i}"), FirstAttach());

        Assert.Equal(["0", "1", "1", "1", "1"], await RowsAsync("select statements::text from seen order by ctid"));
    }

    [Fact]
    public async Task What_a_connection_string_does_not_say_is_set_for_a_ledger_and_what_it_says_stays()
    {
        await using var silent = LedgerDatabase.Open("Host=/run/x");
        await using var outspoken = LedgerDatabase.Open("Host=/run/x;Timeout=9;CommandTimeout=8;MaxPoolSize=7;MaxAutoPrepare=6;Application Name=other");

        Assert.Equal((1, 5, 32, 64, "mountledger"), Settings(silent));
        Assert.Equal((9, 8, 7, 6, "other"), Settings(outspoken));
    }

    private static (int, int, int, int, string?) Settings(LedgerDatabase database)
    {
        var settings = new NpgsqlConnectionStringBuilder(database.DataSource.ConnectionString);
        return (settings.Timeout, settings.CommandTimeout, settings.MaxPoolSize, settings.MaxAutoPrepare, settings.ApplicationName);
    }

    /// <summary>
    /// A row that changes with each append is rewritten within its page, and the space of its older versions is used again at once. An index on
    /// anything but the key would end that: each append would then write to all indexes, and leave rows for the vacuum.
    /// </summary>
    [PostgresFact]
    public async Task An_append_rewrites_the_rows_of_its_mountpoint_without_touching_their_indexes()
    {
        var spec = new MountEvent.MountRequested(Spec.Source, Spec.FsType, Spec.Options, 1);
        for (var round = 0; round < Rounds; round++)
        {
            for (var i = 0; i < Mountpoints; i++) // The next action comes and goes.
                Assert.IsType<AppendResult.Appended>(await AppendAsync(new StreamKey(Host, $"/srv/{i}"), round % 2 == 0 ? FirstAttach() : [spec, new MountEvent.AttachmentRemoved("vol", "vm-1", RemovalReason.Detached)]));
        }

        await ReopenAsync();
        await EventuallyAsync(async () => await ScalarAsync<long>("select n_tup_upd from pg_stat_user_tables where relname = 'mountpoint'") == (Rounds - 1) * Mountpoints);
        foreach (var table in (string[])["mountpoint", "mt_streams"])
        {
            // Now and then a row moves to another page.
            var elsewhere = await ScalarAsync<long>($"select n_tup_upd - n_tup_hot_upd from pg_stat_user_tables where relname = '{table}'");
            Assert.InRange(elsewhere, 0, Mountpoints);
        }
    }

    /// <summary>The default is a sample of 30 000 rows for each column, every time a tenth has been added.</summary>
    [PostgresFact]
    public async Task The_statistics_of_the_tables_that_grow_are_rough() => Assert.Empty(await RowsAsync(
        """
        select a.attrelid::regclass::text || '.' || a.attname from pg_attribute a
        where a.attrelid in (
            'mountledger.mt_events'::regclass, 'mountledger.mt_streams'::regclass, 'mountledger.mountpoint'::regclass, 'mountledger.attachment'::regclass)
          and a.attnum > 0 and not a.attisdropped and a.attstattarget not in (0, 10)
        """));
}
