using System.Collections.Immutable;
using Npgsql;

namespace MountLedger.Postgres;

/// <summary>The ledger in PostgreSQL: each call is one round trip; appends of many callers may share a transaction (<see cref="AppendQueue"/>).</summary>
public sealed class PostgresEventStore(LedgerDatabase database) : IEventStore
{
    private const int PurgeRowsMax = 10_000;
    private const int EventsOfPage = 10_000;
    private const int PurgeRoundsMax = 1_000;

    private static readonly TimeSpan RequestRetention = TimeSpan.FromHours(24);

    /// <inheritdoc/>
    public ValueTask<MountState> LoadAsync(StreamKey stream, CancellationToken cancellationToken) => database.RunAsync(
        $"load {stream}", repeatable: true,
        async (connection, token) =>
        {
            MountState? state;
            await using (var command = new NpgsqlCommand(
                $"""
                select {LedgerRows.StateColumns}
                from mountledger.mt_streams s
                left join mountledger.mountpoint m on m.host = s.tenant_id and m.mountpoint = s.id
                left join lateral (
                  select {LedgerRows.AttachmentArrays} from mountledger.attachment where host = s.tenant_id and mountpoint = s.id) a on true
                where s.tenant_id = $1 and s.id = $2
                """,
                connection)
            { Parameters = { LedgerRows.Text(stream.Host), LedgerRows.Text(stream.Id) } })
            {
                await using var row = await command.ExecuteReaderAsync(token);
                if (!await row.ReadAsync(token)) return MountState.Initial(stream);
                state = LedgerRows.ReadState(row);
            }
            return state ?? await FoldAsync(connection, stream, token);
        },
        cancellationToken);

    /// <inheritdoc/>
    public async Task<IReadOnlyList<MountState>> LoadHostAsync(string host, CancellationToken cancellationToken) => await database.RunAsync(
        $"load the mountpoints of {host}", repeatable: true,
        async (connection, token) =>
        {
            var (states, damaged) = await HostReading.ReadAsync(connection, host, token);
            foreach (var stream in damaged) states.Add(await FoldAsync(connection, stream, token));
            return states;
        },
        cancellationToken);

    /// <inheritdoc/>
    public async Task<IReadOnlyList<StreamKey>> ReadWorkListAsync(
        string host, DateTimeOffset now, CancellationToken cancellationToken) => await database.RunAsync(
        $"read the work list of {host}", repeatable: true,
        async (connection, token) =>
        {
            await using var command = new NpgsqlCommand(
                """
                select mountpoint from mountledger.mountpoint
                where host = $1 and action <> 'none' and (due_at is null or due_at <= $2)
                order by due_at nulls first, mountpoint
                """,
                connection)
            { Parameters = { LedgerRows.Text(host), LedgerRows.Time(now) } };
            await using var row = await command.ExecuteReaderAsync(token);
            var work = new List<StreamKey>();
            while (await row.ReadAsync(token)) work.Add(new StreamKey(host, row.GetString(0)));
            return work;
        },
        cancellationToken);

    /// <inheritdoc/>
    public ValueTask<HostState> LoadHostStateAsync(string host, CancellationToken cancellationToken) => database.RunAsync(
        $"load host {host}", repeatable: true,
        async (connection, token) =>
        {
            await using var command = new NpgsqlCommand(
                $"select {LedgerRows.HostColumns} from mountledger.host h where h.host = $1", connection)
            {
                Parameters = { LedgerRows.Text(host) },
            };
            await using var row = await command.ExecuteReaderAsync(token);
            return await row.ReadAsync(token) ? LedgerRows.ReadHost(row) : HostState.Initial(host);
        },
        cancellationToken);

    /// <inheritdoc/>
    /// <remarks>
    /// <see cref="RecordedEvent.DataJson"/> of the result is the document as it was written; what is read back later is the same
    /// document in PostgreSQL's own order of members, which is also what the hash covers.
    /// </remarks>
    /// <exception cref="ArgumentException">The batch is inconsistent: no events, or the projection row of the stream is missing.</exception>
    public ValueTask<AppendResult> AppendAsync(AppendBatch batch, CancellationToken cancellationToken) =>
        database.Appends.AppendAsync(new PendingAppend(batch), cancellationToken);

    /// <inheritdoc/>
    public ValueTask<StoredRequest?> FindRequestAsync(string host, string key, CancellationToken cancellationToken) => database.RunAsync(
        $"find a request of {host}", repeatable: true,
        async (connection, token) =>
        {
            await using var command = new NpgsqlCommand(
                """
                select key, actor, body_hash, mountpoint, version, status, answer from mountledger.request
                where host = $1 and key = $2 and created >= clock_timestamp() - interval '24 hours'
                """,
                connection)
            { Parameters = { LedgerRows.Text(host), LedgerRows.Text(key) } };
            await using var row = await command.ExecuteReaderAsync(token);
            return await row.ReadAsync(token) ? ReadRequest(row) : null;
        },
        cancellationToken);

    /// <inheritdoc/>
    public ValueTask<StoredRequest> SaveAnswerAsync(
        string host, StoredRequest request, CancellationToken cancellationToken) => database.RunAsync(
        $"keep the answer of a request of {host}", repeatable: true, // the same answer twice is one answer
        async (connection, token) =>
        {
            await using var command = new NpgsqlCommand(
                """
                select key, actor, body_hash, mountpoint, version, status, answer
                from mountledger.ledger_save_answer($1, $2, $3, $4, $5, $6, $7, $8)
                """,
                connection)
            {
                Parameters =
                {
                    LedgerRows.Text(host), LedgerRows.Text(request.Key), LedgerRows.Text(request.Actor),
                    LedgerRows.Text(request.BodyHash), LedgerRows.Text(request.Mountpoint),
                    new() { Value = request.Version is { } version ? version : DBNull.Value, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Bigint },
                    new() { Value = request.Status is { } status ? status : DBNull.Value, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Integer },
                    LedgerRows.Text(request.Answer),
                },
            };
            await using var row = await command.ExecuteReaderAsync(token);
            await row.ReadAsync(token);
            var standing = ReadRequest(row);
            await row.ReadAsync(token);
            return standing;
        },
        cancellationToken);

    /// <inheritdoc/>
    public async Task<IReadOnlyList<RecordedEvent>> ReadStreamAsync(
        StreamKey stream, long fromVersion, CancellationToken cancellationToken) => await database.RunAsync(
        $"read {stream}", repeatable: true,
        (connection, token) => ReadEventsAsync(connection, stream, fromVersion, token), cancellationToken);

    /// <inheritdoc/>
    public async Task<int> CountRemovalsOfUnfinishedSyncAsync(string host, DateTimeOffset asOf, CancellationToken cancellationToken)
    {
        // From the newest event back, in pages: the last synchronisation is near, or the list is not old, and the events before are millions.
        var (removals, before, isOver) = (0L, long.MaxValue, false);
        while (!isOver)
        {
            (var found, before, isOver) = await database.RunAsync(
                "count removals", repeatable: true,
                async (connection, token) =>
                {
                    await using var command = new NpgsqlCommand(
                        """
                        with page as materialized (
                          select seq_id, stream_id, type, timestamp, data ->> 'reason' as reason from mountledger.mt_events
                          where tenant_id = $1 and seq_id < $2 order by seq_id desc limit $3),
                        synced as (select max(seq_id) as seq_id from page where stream_id = $5 and type = 'consumers_synced')
                        select
                          count(*) filter (
                            where page.type = 'attachment_removed' and reason = 'synced' and timestamp >= $4 and page.seq_id > coalesce(synced.seq_id, 0)),
                          coalesce(min(page.seq_id), 0), count(*) < $3 or max(timestamp) < $4 or count(synced.seq_id) > 0
                        from page cross join synced
                        """,
                        connection)
                    {
                        Parameters =
                        {
                            LedgerRows.Text(host), LedgerRows.Number(before), LedgerRows.Number(EventsOfPage), new() { Value = asOf.UtcDateTime },
                            LedgerRows.Text(HostEvent.StreamId),
                        },
                    };
                    await using var row = await command.ExecuteReaderAsync(token);
                    await row.ReadAsync(token);
                    return (row.GetInt64(0), row.GetInt64(1), row.GetBoolean(2));
                },
                cancellationToken);
            removals += found;
        }
        return (int)removals;
    }

    /// <summary>Deletes the requests that are older than their retention of 24 hours, in portions.</summary>
    /// <returns>How many there were.</returns>
    public async Task<long> PurgeRequestsAsync(CancellationToken cancellationToken)
    {
        var purged = 0L;
        for (var round = 0; round < PurgeRoundsMax; round++)
        {
            var portion = await database.RunAsync(
                "purge requests", repeatable: true,
                async (connection, token) =>
                {
                    await using var command = new NpgsqlCommand(
                        """
                        delete from mountledger.request where ctid = any (array(
                          select ctid from mountledger.request where created < clock_timestamp() - $1::interval limit $2 for update skip locked))
                        """,
                        connection)
                    {
                        Parameters =
                        {
                            new() { Value = RequestRetention, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Interval },
                            LedgerRows.Number(PurgeRowsMax),
                        },
                    };
                    return await command.ExecuteNonQueryAsync(token);
                },
                cancellationToken);
            purged += portion;
            if (portion < PurgeRowsMax) break;
        }
        return purged;
    }

    /// <summary>The states of the current result, in its order; what cannot be trusted is folded from its events.</summary>
    internal static async Task<List<MountState>> ReadStatesAsync(
        NpgsqlCommand command, NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        var states = new List<MountState>();
        var damaged = new List<(int Position, StreamKey Stream)>();
        await using (var row = await command.ExecuteReaderAsync(cancellationToken))
        {
            while (await row.ReadAsync(cancellationToken))
            {
                var stream = LedgerRows.StreamOf(row);
                if (LedgerRows.ReadState(row) is not { } state)
                {
                    damaged.Add((states.Count, stream));
                    state = MountState.Initial(stream);
                }
                states.Add(state);
            }
        }
        foreach (var (position, stream) in damaged) states[position] = await FoldAsync(connection, stream, cancellationToken);
        return states;
    }

    private static async Task<MountState> FoldAsync(NpgsqlConnection connection, StreamKey stream, CancellationToken cancellationToken)
    {
        var events = await ReadEventsAsync(connection, stream, fromVersion: 1, cancellationToken);
        return events.Aggregate(MountState.Initial(stream), (state, recorded) => state.Evolve(recorded));
    }

    private static async ValueTask<List<RecordedEvent>> ReadEventsAsync(
        NpgsqlConnection connection, StreamKey stream, long fromVersion, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(
            $"""
            select {LedgerRows.EventColumns} from mountledger.mt_events e
            where e.tenant_id = $1 and e.stream_id = $2 and e.version >= $3 order by e.version
            """,
            connection)
        { Parameters = { LedgerRows.Text(stream.Host), LedgerRows.Text(stream.Id), LedgerRows.Number(fromVersion) } };
        await using var row = await command.ExecuteReaderAsync(cancellationToken);
        var events = new List<RecordedEvent>();
        while (await row.ReadAsync(cancellationToken)) events.Add(LedgerRows.ReadEvent(row));
        return events;
    }

    private static StoredRequest ReadRequest(NpgsqlDataReader row) => new(
        row.GetString(0), row.GetString(1), row.GetString(2), LedgerRows.TextOrNull(row, 3), row.IsDBNull(4) ? null : row.GetInt64(4),
        row.IsDBNull(5) ? null : row.GetInt32(5), LedgerRows.TextOrNull(row, 6));
}
