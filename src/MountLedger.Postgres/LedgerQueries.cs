using System.Text;
using Npgsql;

namespace MountLedger.Postgres;

/// <summary>A part of a list. <paramref name="Next"/>: pass it as the cursor to get what follows; null at the end.</summary>
public sealed record Page<T>(IReadOnlyList<T> Items, string? Next);

/// <summary>Which mountpoints; null means any. Without a phase, the absent ones are left out, unless only those with drift are asked for.</summary>
public sealed record MountpointFilter(
    string? Host = null, Phase? Phase = null, string? Consumer = null, string? Cursor = null, int Limit = LedgerQueries.LimitDefault,
    bool Drifted = false);

/// <summary>
/// Which events; null means any. <paramref name="Mountpoint"/> is a stream id (<c>@host</c> for a host's own). Consumer and volume are those that an event
/// names itself. <paramref name="Since"/> is inclusive, <paramref name="Until"/> exclusive. <paramref name="AfterSeq"/>: only events beyond this
/// number in the direction of reading (greater when oldest first, smaller when <paramref name="NewestFirst"/>).
/// </summary>
public sealed record HistoryFilter(
    string? Host = null, string? Mountpoint = null, string? Consumer = null, string? Volume = null, string? Actor = null,
    string? Type = null, DateTimeOffset? Since = null, DateTimeOffset? Until = null, long? AfterSeq = null,
    bool NewestFirst = false, int Limit = LedgerQueries.LimitDefault);

/// <summary>A host with its lease (null before the first agent) and the counts of what is there.</summary>
public sealed record HostSummary(HostState State, LeaseHolder? Lease, int Mountpoints, int Attachments);

/// <summary>Who serves a host; <paramref name="Expired"/> by the database's clock.</summary>
public sealed record LeaseHolder(string Agent, string MachineId, string BootId, long Epoch, DateTimeOffset ExpiresAt, bool Expired);

/// <summary>The reads that no decision depends on: lists, history, hosts. They cover all hosts in the ledger.</summary>
public sealed class LedgerQueries(LedgerDatabase database)
{
    public const int LimitDefault = 100;
    public const int LimitMax = 10_000;

    /// <summary>Mountpoints in the order of host and path.</summary>
    /// <exception cref="FormatException">The cursor is none that a page was returned with.</exception>
    public async Task<Page<MountState>> ListMountpointsAsync(MountpointFilter filter, CancellationToken cancellationToken)
    {
        var limit = Math.Clamp(filter.Limit, 1, LimitMax);
        var where = new Conditions();
        if (filter.Host is { } host) where.Add("s.tenant_id = {0}", LedgerRows.Text(host));
        if (filter.Phase is { } phase) where.Add("m.phase = {0}", LedgerRows.Text(LedgerDocuments.Name(phase)));
        else if (filter.Drifted) where.Add("m.state -> 'drift' <> '{}'::jsonb");
        else where.Add("m.phase is distinct from 'absent'");
        if (filter.Consumer is { } consumer)
        {
            where.Add(
                "exists (select from mountledger.attachment c where c.host = s.tenant_id and c.mountpoint = s.id and c.consumer = {0})",
                LedgerRows.Text(consumer));
        }
        if (filter.Cursor is { } cursor)
        {
            var after = DecodeCursor(cursor);
            where.Add("(s.tenant_id, s.id) > ({0}, {1})", LedgerRows.Text(after.Host), LedgerRows.Text(after.Id));
        }
        var states = await database.RunAsync(
            "list mountpoints", repeatable: true,
            async (connection, token) =>
            {
                await using var command = where.Command(
                    connection,
                    $"""
                    select {LedgerRows.StateColumns}
                    from mountledger.mt_streams s
                    left join mountledger.mountpoint m on m.host = s.tenant_id and m.mountpoint = s.id
                    left join lateral (
                      select {LedgerRows.AttachmentArrays} from mountledger.attachment
                      where host = s.tenant_id and mountpoint = s.id) a on true
                    where s.id <> '{HostEvent.StreamId}'
                    """,
                    $"order by s.tenant_id, s.id limit {limit + 1}");
                return await PostgresEventStore.ReadStatesAsync(command, connection, token);
            },
            cancellationToken);
        return states.Count > limit
            ? new Page<MountState>(states[..limit], EncodeCursor(states[limit - 1].Stream))
            : new Page<MountState>(states, null);
    }

    /// <summary>The same of states that are at hand, all of one host; those in phase absent are not all at hand.</summary>
    /// <exception cref="FormatException">The cursor is none that a page was returned with.</exception>
    public static Page<MountState> PageOf(IEnumerable<MountState> states, MountpointFilter filter)
    {
        var limit = Math.Clamp(filter.Limit, 1, LimitMax);
        var after = filter.Cursor is { } cursor ? DecodeCursor(cursor).Id : "";
        List<MountState> found =
        [
            .. states
                .Where(state => filter.Phase is { } phase ? state.Phase == phase : filter.Drifted ? !state.Drift.IsEmpty : state.Phase != Phase.Absent)
                .Where(state => filter.Consumer is not { } consumer || state.Attachments.Keys.Any(key => key.Consumer == consumer))
                .Where(state => string.CompareOrdinal(state.Mountpoint, after) > 0)
                .OrderBy(state => state.Mountpoint, StringComparer.Ordinal).Take(limit + 1),
        ];
        return found.Count > limit ? new Page<MountState>(found[..limit], EncodeCursor(found[limit - 1].Stream)) : new Page<MountState>(found, null);
    }

    /// <summary>
    /// Events in the order of their numbers; the cursor of the next page is the last number. Events that are being appended at
    /// this moment may become visible later with a smaller number than one already returned.
    /// </summary>
    public async Task<Page<RecordedEvent>> ReadHistoryAsync(HistoryFilter filter, CancellationToken cancellationToken)
    {
        var limit = Math.Clamp(filter.Limit, 1, LimitMax);
        var where = new Conditions();
        if (filter.Host is { } host) where.Add("e.tenant_id = {0}", LedgerRows.Text(host));
        if (filter.Mountpoint is { } mountpoint) where.Add("e.stream_id = {0}", LedgerRows.Text(mountpoint));
        if (filter.Consumer is { } consumer) where.Add("e.data ->> 'consumer' = {0}", LedgerRows.Text(consumer));
        if (filter.Volume is { } volume) where.Add("e.data ->> 'volume' = {0}", LedgerRows.Text(volume));
        if (filter.Actor is { } actor) where.Add("e.user_name = {0}", LedgerRows.Text(actor));
        if (filter.Type is { } type) where.Add("e.type = {0}", LedgerRows.Text(type));
        if (filter.Since is { } since) where.Add("e.timestamp >= {0}", LedgerRows.Time(since));
        if (filter.Until is { } until) where.Add("e.timestamp < {0}", LedgerRows.Time(until));
        if (filter.AfterSeq is { } after) where.Add(filter.NewestFirst ? "e.seq_id < {0}" : "e.seq_id > {0}", LedgerRows.Number(after));
        var events = await database.RunAsync(
            "read the history", repeatable: true,
            async (connection, token) =>
            {
                await using var command = where.Command(
                    connection, $"select {LedgerRows.EventColumns} from mountledger.mt_events e where true",
                    $"order by e.seq_id {(filter.NewestFirst ? "desc" : "asc")} limit {limit + 1}");
                await using var row = await command.ExecuteReaderAsync(token);
                var read = new List<RecordedEvent>();
                while (await row.ReadAsync(token)) read.Add(LedgerRows.ReadEvent(row));
                return read;
            },
            cancellationToken);
        return events.Count > limit
            ? new Page<RecordedEvent>(events[..limit], events[limit - 1].Seq.ToString(System.Globalization.CultureInfo.InvariantCulture))
            : new Page<RecordedEvent>(events, null);
    }

    /// <summary>All hosts by name, with the number of mountpoints that are not absent and of attachments.</summary>
    public async Task<IReadOnlyList<HostSummary>> ListHostsAsync(CancellationToken cancellationToken) => await database.RunAsync(
        "list hosts", repeatable: true,
        async (connection, token) =>
        {
            await using var command = new NpgsqlCommand(
                $"""
                select {LedgerRows.HostColumns}, h.lease_agent, h.lease_machine_id, h.lease_boot_id, h.epoch, h.lease_expires_at,
                  coalesce(h.lease_expires_at <= clock_timestamp(), true),
                  (select count(*) from mountledger.mountpoint m where m.host = h.host and m.phase <> 'absent')::integer,
                  (select count(*) from mountledger.attachment a where a.host = h.host)::integer
                from (
                  select * from mountledger.host
                  union all
                  -- A host that has mountpoints and never had an agent or an event of its own.
                  select (jsonb_populate_record(null::mountledger.host, jsonb_build_object(
                    'host', m.host, 'version', 0, 'up', true, 'epoch', 0))).*
                  from (select distinct host from mountledger.mountpoint) m
                  where not exists (select from mountledger.host k where k.host = m.host)) h
                order by h.host
                """,
                connection);
            await using var row = await command.ExecuteReaderAsync(token);
            var hosts = new List<HostSummary>();
            while (await row.ReadAsync(token))
            {
                var lease = row.IsDBNull(14)
                    ? null
                    : new LeaseHolder(
                        row.GetString(14), row.GetString(15), row.GetString(16), row.GetInt64(17),
                        row.GetFieldValue<DateTimeOffset>(18), row.GetBoolean(19));
                hosts.Add(new HostSummary(LedgerRows.ReadHost(row), lease, row.GetInt32(20), row.GetInt32(21)));
            }
            return hosts;
        },
        cancellationToken);

    internal static string EncodeCursor(StreamKey last) =>
        Convert.ToBase64String(Encoding.UTF8.GetBytes($"{last.Host}\n{last.Id}")).Replace('+', '-').Replace('/', '_');

    internal static StreamKey DecodeCursor(string cursor)
    {
        var text = Encoding.UTF8.GetString(Convert.FromBase64String(cursor.Replace('-', '+').Replace('_', '/')));
        var end = text.IndexOf('\n', StringComparison.Ordinal);
        if (end < 0 || text.Contains('\0', StringComparison.Ordinal)) throw new FormatException("the cursor is none that was returned");
        return new StreamKey(text[..end], text[(end + 1)..]);
    }

    /// <summary>Conditions of a query, of constant texts with numbered places for parameters.</summary>
    private sealed class Conditions
    {
        private readonly StringBuilder text = new();
        private readonly List<NpgsqlParameter> parameters = [];

        public void Add(string condition, params ReadOnlySpan<NpgsqlParameter> values)
        {
            text.Append(" and ");
            for (var i = 0; i < values.Length; i++)
            {
                parameters.Add(values[i]);
                condition = condition.Replace($"{{{i}}}", $"${parameters.Count}", StringComparison.Ordinal);
            }
            text.Append(condition);
        }

        public NpgsqlCommand Command(NpgsqlConnection connection, string select, string orderAndLimit)
        {
            var command = new NpgsqlCommand($"{select}{text} {orderAndLimit}", connection);
            // A retry runs the same query again: a parameter belongs to one command only.
            foreach (var parameter in parameters) command.Parameters.Add(parameter.Clone());
            return command;
        }
    }
}
