using Npgsql;
using NpgsqlTypes;

namespace MountLedger.Postgres;

/// <summary>
/// The mountpoints of a host as they were at a time. What has not changed since is in its projection row; of the others the events up to then are folded, from
/// the last clean slate on: what was before it shows in no answer (ADR 0022).
/// </summary>
public sealed class PastReading(LedgerDatabase database)
{
    /// <summary>How many streams are read at once; beside them the next ones are, so that database and agent both have something to do.</summary>
    private const int PartStreams = 500;

    /// <summary>As many streams are looked at for a page, at least and at most; more each time that too few of them were there.</summary>
    private const int StreamsMin = 100, StreamsMax = 2 * PartStreams;

    /// <summary>The host's next streams, in the order of the database, which is that of the pages.</summary>
    private const string Streams =
        $$"""
        select id from mountledger.mt_streams where tenant_id = $1 and id <> '{{HostEvent.StreamId}}' and id > $2 order by id limit $3
        """;

    /// <summary>Rows in doubt, those that have changed since among them, come with no version.</summary>
    private const string Rows =
        $$"""
        select {{HostReading.StateColumns}}
        from mountledger.mt_streams s
        left join mountledger.mountpoint m on m.host = $1 and m.mountpoint > $2 and m.mountpoint <= $3
          and m.mountpoint = s.id and m.version = s.version and m.updated_at <= $4
        where s.tenant_id = $1 and s.id <> '{{HostEvent.StreamId}}' and s.id > $2 and s.id <= $3
          and m.phase is distinct from 'absent'
        union all
        select {{HostReading.AttachmentColumns}}
        from mountledger.attachment a
        join mountledger.mountpoint m on m.host = $1 and m.mountpoint > $2 and m.mountpoint <= $3
          and m.mountpoint = a.mountpoint and m.updated_at <= $4
        where a.host = $1 and a.mountpoint > $2 and a.mountpoint <= $3
        """;

    /// <summary>The events up to then, from the last clean slate on. The slate after it bounds what is looked at: a stream may have gone on for long.</summary>
    private const string Events =
        """
        select e.stream_id, e.version, e.type, e.data::text, e.timestamp, coalesce(e.user_name, '')
        from unnest($2) with ordinality as changed (id, number)
        left join lateral (
          select version from mountledger.clean_slate
          where host = $1 and mountpoint = changed.id and at <= $3 order by at desc, version desc limit 1) slate on true
        left join lateral (
          select version from mountledger.clean_slate
          where host = $1 and mountpoint = changed.id and at > $3 order by at, version limit 1) next on true
        join mountledger.mt_events e
          on e.tenant_id = $1 and e.stream_id = changed.id and e.timestamp <= $3
            and e.version >= coalesce(slate.version, 1) and e.version < coalesce(next.version, 9223372036854775807)
        order by changed.number, e.version
        """;

    /// <summary>
    /// The slates among the host's next events, and how far this came. One that is missed, because its event was committed late, only costs time; and the
    /// disk is not waited for, as what a crash takes away is found again.
    /// </summary>
    private const string Mark =
        """
        with come as materialized (select coalesce((select seq_id from mountledger.clean_slate_progress where host = $1), 0) as seq_id),
        part as materialized (
          select seq_id, stream_id, version, timestamp, type from mountledger.mt_events
          where tenant_id = $1 and seq_id > (select seq_id from come) order by seq_id limit $2),
        marked as (
          insert into mountledger.clean_slate (host, mountpoint, at, version)
          select $1, stream_id, timestamp, version from part
          where type = 'mount_requested' and exists (
            select from mountledger.mt_events u
            where u.tenant_id = $1 and u.stream_id = part.stream_id and u.version = part.version - 1 and u.type = 'unmounted')
          on conflict do nothing),
        moved as (
          insert into mountledger.clean_slate_progress as progress (host, seq_id) select $1, max(seq_id) from part having count(*) > 0
          -- A rebuild may have set it back meanwhile.
          on conflict (host) do update set seq_id = excluded.seq_id where progress.seq_id = (select seq_id from come))
        select count(*), set_config('synchronous_commit', 'off', true) from part
        """;

    private const int MarkEvents = 1_000;

    /// <summary>
    /// A page of the mountpoints that were not absent at <paramref name="at"/>, in the order of their paths. An append that was under way is not seen before its commit,
    /// and may bear an earlier time: what lies a few seconds back is complete.
    /// </summary>
    /// <exception cref="FormatException">The cursor is none that a page was returned with.</exception>
    public async Task<Page<MountState>> ReadAsync(string host, DateTimeOffset at, string? cursor, int limit, CancellationToken cancellationToken)
    {
        limit = Math.Clamp(limit, 1, InputRules.LimitMax);
        var after = cursor is null ? "" : LedgerQueries.DecodeCursor(cursor).Id;
        var found = new List<MountState>();
        for (var asked = Math.Clamp(limit, StreamsMin, StreamsMax); ; asked = Math.Min(asked * 2, StreamsMax))
        {
            var streams = await database.RunAsync(
                $"read the streams of {host}", repeatable: true, (connection, token) => ReadStreamsAsync(connection, host, after, asked, token), cancellationToken);
            var reading = new List<Task<List<MountState>>>();
            foreach (var part in streams.Chunk(PartStreams))
            {
                var (from, to) = (after, part[^1]);
                reading.Add(database.RunAsync(
                    $"read the past of {host}", repeatable: true, (connection, token) => ReadPartAsync(connection, host, from, to, at, token), cancellationToken).AsTask());
                after = to;
            }
            var states = (await Task.WhenAll(reading)).SelectMany(part => part).Where(state => state.Phase != Phase.Absent).ToDictionary(state => state.Mountpoint, StringComparer.Ordinal);
            // The database's order of texts need not be ours.
            found.AddRange(streams.Where(states.ContainsKey).Select(id => states[id]));
            var isEnd = streams.Count < asked;
            // Whether anything follows a full page is not looked for: the next one may be empty.
            if (found.Count > limit || (found.Count == limit && !isEnd)) return new Page<MountState>(found[..limit], LedgerQueries.EncodeCursor(found[limit - 1].Stream));
            if (isEnd) return new Page<MountState>(found, null);
        }
    }

    /// <summary>
    /// Looks for clean slates among the events since the last call, part by part while <paramref name="goOn"/> (null: to the end). What it has not come to is
    /// folded from further back.
    /// </summary>
    /// <exception cref="LedgerUnavailableException">The next call goes on where this one has come to.</exception>
    public async Task MarkAsync(string host, Func<bool>? goOn, CancellationToken cancellationToken)
    {
        while (goOn?.Invoke() != false && await MarkPartAsync(host, cancellationToken) == MarkEvents)
        {
        }
    }

    private ValueTask<long> MarkPartAsync(string host, CancellationToken cancellationToken) => database.RunAsync(
        $"look for clean slates of {host}", repeatable: true,
        async (connection, token) =>
        {
            await using var command = new NpgsqlCommand(Mark, connection) { Parameters = { LedgerRows.Text(host), LedgerRows.Number(MarkEvents) } };
            return (long)(await command.ExecuteScalarAsync(token))!;
        },
        cancellationToken);

    private static async ValueTask<List<string>> ReadStreamsAsync(
        NpgsqlConnection connection, string host, string after, int streamsMax, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(Streams, connection)
        {
            Parameters = { LedgerRows.Text(host), LedgerRows.Text(after), LedgerRows.Number(streamsMax) },
        };
        await using var row = await command.ExecuteReaderAsync(cancellationToken);
        var streams = new List<string>(streamsMax);
        while (await row.ReadAsync(cancellationToken)) streams.Add(row.GetString(0));
        return streams;
    }

    /// <summary>The mountpoints whose stream ids are after <paramref name="after"/>, up to <paramref name="last"/>.</summary>
    private static async ValueTask<List<MountState>> ReadPartAsync(
        NpgsqlConnection connection, string host, string after, string last, DateTimeOffset at, CancellationToken cancellationToken)
    {
        await using var rows = new NpgsqlCommand(Rows, connection)
        {
            Parameters = { LedgerRows.Text(host), LedgerRows.Text(after), LedgerRows.Text(last), LedgerRows.Time(at) },
        };
        var (states, changed) = await HostReading.ReadAsync(rows, host, cancellationToken);
        if (changed.Count > 0) states.AddRange(await FoldAsync(connection, host, changed, at, cancellationToken));
        return states;
    }

    /// <summary>Folds while it reads: a stream without a slate can be as long as the ledger.</summary>
    private static async Task<List<MountState>> FoldAsync(
        NpgsqlConnection connection, string host, List<StreamKey> changed, DateTimeOffset at, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(Events, connection)
        {
            Parameters =
            {
                LedgerRows.Text(host),
                new() { Value = changed.ConvertAll(stream => stream.Id), NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Text },
                LedgerRows.Time(at),
            },
        };
        await using var row = await command.ExecuteReaderAsync(cancellationToken);
        var folded = new List<MountState>(changed.Count);
        while (await row.ReadAsync(cancellationToken))
        {
            var (id, version) = (row.GetString(0), row.GetInt64(1));
            // What an operation's start is known by is its version.
            if (folded.Count == 0 || folded[^1].Mountpoint != id) folded.Add(MountState.Initial(new StreamKey(host, id)) with { Version = version - 1 });
            var (before, recordedAt) = (folded[^1], row.GetFieldValue<DateTimeOffset>(4));
            folded[^1] = EventCatalog.Decode(id, row.GetString(2), row.GetString(3)) is MountEvent change
                ? before.Evolve(change, version, recordedAt, row.GetString(5))
                : before with { Version = version, UpdatedAt = recordedAt };
        }
        return folded;
    }
}
