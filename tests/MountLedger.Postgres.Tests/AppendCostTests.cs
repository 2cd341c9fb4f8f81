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
}
