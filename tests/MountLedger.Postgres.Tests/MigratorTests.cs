namespace MountLedger.Postgres.Tests;

/// <summary>The schema: applied once, by whoever comes first, and refused when it is not this program's.</summary>
public sealed class MigratorTests(PostgresServer server) : LedgerTest(server)
{
    [PostgresFact]
    public async Task Two_that_migrate_at_once_apply_each_file_once()
    {
        var connectionString = await Server.CreateEmptyAsync();
        await using var first = OpenPatiently(connectionString);
        await using var second = OpenPatiently(connectionString);

        var applied = await Task.WhenAll(
            Task.Run(() => new Migrator(first).MigrateAsync(default)), Task.Run(() => new Migrator(second).MigrateAsync(default)));

        Assert.Equal(Migrator.Embedded().Select(migration => migration.Number), applied.SelectMany(list => list).Select(migration => migration.Number));
        Assert.Empty(await new Migrator(first).MigrateAsync(default));
    }

    [PostgresFact]
    public async Task A_newer_database_is_refused()
    {
        await ExecuteAsync("insert into mountledger.schema_migration (number, name, checksum) values (9999, '9999_future', 'x')");

        var refused = await Assert.ThrowsAsync<SchemaException>(() => new Migrator(Database).MigrateAsync(default));

        Assert.Contains("newer than this program", refused.Message, StringComparison.Ordinal);
        Assert.Contains("9999_future", refused.Message, StringComparison.Ordinal);
    }

    [PostgresFact]
    public async Task A_file_that_was_changed_after_it_was_applied_is_refused()
    {
        var changed = Migrator.Embedded().Select(m => m.Number == 1 ? m with { Checksum = new string('a', 64) } : m).ToList();

        var refused = await Assert.ThrowsAsync<SchemaException>(() => new Migrator(Database, changed).MigrateAsync(default));

        Assert.Contains("0001", refused.Message, StringComparison.Ordinal);
    }

    [PostgresFact]
    public async Task A_migration_that_fails_leaves_nothing_and_names_itself()
    {
        var broken = new Migration(9000, "9000_broken", "create table mountledger.half (i int); select 1 / 0", new string('b', 64));

        var refused = await Assert.ThrowsAsync<SchemaException>(
            () => new Migrator(Database, [.. Migrator.Embedded(), broken]).MigrateAsync(default));

        Assert.Contains("9000_broken", refused.Message, StringComparison.Ordinal);
        Assert.Equal("true", (await RowsAsync("select (to_regclass('mountledger.half') is null)::text")).Single());
        Assert.Empty(await new Migrator(Database).MigrateAsync(default));
    }

    [PostgresFact]
    public async Task Another_encoding_is_refused()
    {
        await using var latin = OpenPatiently(await Server.CreateEmptyAsync("LATIN1"));

        var refused = await Assert.ThrowsAsync<SchemaException>(() => new Migrator(latin).MigrateAsync(default));

        Assert.Contains("LATIN1", refused.Message, StringComparison.Ordinal);
    }

    [PostgresFact]
    public async Task Nobody_there_is_unavailable()
    {
        await using var nowhere = LedgerDatabase.Open("Host=/nonexistent;Username=x;Database=x");

        await Assert.ThrowsAsync<LedgerUnavailableException>(() => new Migrator(nowhere).MigrateAsync(default));
    }

    [PostgresFact]
    public async Task The_event_tables_are_martens_column_by_column()
    {
        Assert.Equal(
            [
                "mt_event_progression.name character varying NOT NULL -",
                "mt_event_progression.last_seq_id bigint NULL -",
                "mt_event_progression.last_updated timestamp with time zone NULL transaction_timestamp()",
                "mt_events.seq_id bigint NOT NULL -",
                "mt_events.id uuid NOT NULL -",
                "mt_events.stream_id character varying NULL -",
                "mt_events.version bigint NOT NULL -",
                "mt_events.data jsonb NOT NULL -",
                "mt_events.bdata bytea NULL -",
                "mt_events.type character varying(500) NOT NULL -",
                "mt_events.timestamp timestamp with time zone NOT NULL -",
                "mt_events.tenant_id character varying NULL '*DEFAULT*'::character varying",
                "mt_events.mt_dotnet_type character varying NULL -",
                "mt_events.correlation_id character varying NULL -",
                "mt_events.causation_id character varying NULL -",
                "mt_events.headers jsonb NULL -",
                "mt_events.user_name character varying NULL -",
                "mt_events.is_archived boolean NULL false",
                "mt_high_water_skips.ending_sequence bigint NOT NULL -",
                "mt_high_water_skips.starting_sequence bigint NOT NULL -",
                "mt_high_water_skips.timestamp timestamp with time zone NULL transaction_timestamp()",
                "mt_streams.tenant_id character varying NOT NULL '*DEFAULT*'::character varying",
                "mt_streams.id character varying NOT NULL -",
                "mt_streams.type character varying NULL -",
                "mt_streams.version bigint NULL -",
                "mt_streams.timestamp timestamp with time zone NOT NULL now()",
                "mt_streams.created timestamp with time zone NOT NULL now()",
                "mt_streams.is_archived boolean NULL false",
            ],
            await RowsAsync(
                """
                select format('%s.%s %s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
                  case when a.attnotnull then 'NOT NULL' else 'NULL' end, coalesce(replace(pg_get_expr(d.adbin, d.adrelid), 'CURRENT_TIMESTAMP', 'transaction_timestamp()'), '-'))
                from pg_class c join pg_attribute a on a.attrelid = c.oid left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
                where c.relnamespace = 'mountledger'::regnamespace and c.relkind = 'r' and c.relname like 'mt\_%' and a.attnum > 0
                order by c.relname, a.attnum
                """));
        Assert.Equal(
            [
                "fkey FOREIGN KEY (tenant_id, stream_id) REFERENCES mt_streams(tenant_id, id)",
                "pk_mt_event_progression PRIMARY KEY (name)",
                "pkey_mt_events_seq_id PRIMARY KEY (seq_id)",
                "pkey_mt_streams_tenant_id_id PRIMARY KEY (tenant_id, id)",
            ],
            await RowsAsync(
                """
                select case k.contype when 'f' then 'fkey' else k.conname end || ' ' || replace(pg_get_constraintdef(k.oid), 'mountledger.', '')
                from pg_constraint k join pg_class c on c.oid = k.conrelid
                where k.connamespace = 'mountledger'::regnamespace and c.relname like 'mt\_%' and k.conname <> 'mt_high_water_skips_pkey'
                order by 1
                """));
        Assert.Equal("(tenant_id, stream_id, version)", (await RowsAsync(
            "select substring(indexdef from '\\(.*') from pg_indexes where indexname = 'pk_mt_events_stream_and_version' and indexdef like 'CREATE UNIQUE%'")).Single());
        Assert.Equal("mountledger.mt_events_sequence", await ScalarAsync<string>(
            "select pg_get_serial_sequence('mountledger.mt_events', 'seq_id')"));
        Assert.Equal("bigint 1", (await RowsAsync(
            "select data_type || ' ' || cache_size from pg_sequences where sequencename = 'mt_events_sequence'")).Single());
    }
}
