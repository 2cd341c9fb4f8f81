using System.Collections.Immutable;
using System.Globalization;
using System.Text.Json;
using Npgsql;
using NpgsqlTypes;

namespace MountLedger.Postgres;

/// <summary>From rows of the ledger to the domain's records, and the parameters that go the other way.</summary>
internal static class LedgerRows
{
    /// <summary>The columns of an event, for <see cref="ReadEvent"/>, of <c>mt_events e</c>.</summary>
    public const string EventColumns =
        """
        e.seq_id, e.id, e.tenant_id, e.stream_id, e.version, e.type, e.data::text, e.timestamp, coalesce(e.user_name, ''),
        coalesce(e.correlation_id, ''), e.causation_id, e.headers ->> 'epoch', e.headers ->> 'agent', coalesce(e.headers ->> 'hash', '')
        """;

    /// <summary>
    /// The columns of a mountpoint's state, for <see cref="ReadState"/>, of <c>mt_streams s</c>, <c>mountpoint m</c> (null when the row is missing),
    /// and of <c>a</c>, the attachments as arrays (<see cref="AttachmentArrays"/>).
    /// </summary>
    public const string StateColumns =
        """
        s.tenant_id, s.id, s.version, m.version, m.generation, m.state::text, m.updated_at,
        a.volumes, a.consumers, a.failures, a.confirmed, a.firsts, a.since, a.actors
        """;

    public const string AttachmentArrays =
        """
        array_agg(volume) volumes, array_agg(consumer) consumers, array_agg(on_failure) failures, array_agg(confirmed) confirmed,
        array_agg(first) firsts, array_agg(since) since, array_agg(actor) actors
        """;

    public static RecordedEvent ReadEvent(NpgsqlDataReader row)
    {
        var stream = new StreamKey(row.GetString(2), row.GetString(3));
        var type = row.GetString(5);
        var data = row.GetString(6);
        return new RecordedEvent(
            row.GetInt64(0), row.GetGuid(1), stream, row.GetInt64(4), type, EventCatalog.Decode(stream.Id, type, data),
            row.GetFieldValue<DateTimeOffset>(7), row.GetString(8), row.GetString(9), TextOrNull(row, 10),
            long.TryParse(TextOrNull(row, 11), NumberStyles.None, CultureInfo.InvariantCulture, out var epoch) ? epoch : null,
            TextOrNull(row, 12), row.GetString(13), data);
    }

    /// <summary>
    /// The state of a row, or null when the row cannot be trusted: it is missing, of another version than its stream, or its document is damaged.
    /// The stream's events then say what is true.
    /// </summary>
    public static MountState? ReadState(NpgsqlDataReader row)
    {
        if (row.IsDBNull(3) || row.GetInt64(2) != row.GetInt64(3)) return null;
        try
        {
            var attachments = ReadAttachments(row);
            return attachments is null
                ? null
                : MountStateCodec.Decode(
                    StreamOf(row), row.GetInt64(3), row.GetInt64(4), row.GetString(5), row.GetFieldValue<DateTimeOffset>(6), attachments);
        }
        catch (Exception damage) when (IsDamage(damage))
        {
            return null;
        }
    }

    /// <summary>What reading a row's document throws when it is not what was written.</summary>
    public static bool IsDamage(Exception failure) => failure is JsonException or ArgumentException or InvalidCastException or NotSupportedException;

    public static StreamKey StreamOf(NpgsqlDataReader row) => new(row.GetString(0), row.GetString(1));

    public static string? TextOrNull(NpgsqlDataReader row, int column) => row.IsDBNull(column) ? null : row.GetString(column);

    public static DateTimeOffset? TimeOrNull(NpgsqlDataReader row, int column) =>
        row.IsDBNull(column) ? null : row.GetFieldValue<DateTimeOffset>(column);

    public static NpgsqlParameter Text(string? value) => new()
    {
        Value = value is null ? DBNull.Value : value,
        NpgsqlDbType = NpgsqlDbType.Text,
    };

    public static NpgsqlParameter Number(long? value) => new()
    {
        Value = value is null ? DBNull.Value : value,
        NpgsqlDbType = NpgsqlDbType.Bigint,
    };

    public static NpgsqlParameter Time(DateTimeOffset? value) => new()
    {
        Value = value is { } time ? time.ToUniversalTime() : DBNull.Value,
        NpgsqlDbType = NpgsqlDbType.TimestampTz,
    };

    public static NpgsqlParameter Document(byte[] json) => new() { Value = json, NpgsqlDbType = NpgsqlDbType.Jsonb };

    private static List<Attachment>? ReadAttachments(NpgsqlDataReader row)
    {
        if (row.IsDBNull(7)) return [];
        var volumes = row.GetFieldValue<string[]>(7);
        var consumers = row.GetFieldValue<string[]>(8);
        var failures = row.GetFieldValue<string[]>(9);
        var confirmed = row.GetFieldValue<bool[]>(10);
        var firsts = row.GetFieldValue<bool[]>(11);
        var since = row.GetFieldValue<DateTime[]>(12);
        var actors = row.GetFieldValue<string[]>(13);
        var attachments = new List<Attachment>(volumes.Length);
        for (var i = 0; i < volumes.Length; i++)
        {
            if (!LedgerDocuments.TryParse<OnFailure>(failures[i], out var onFailure)) return null;
            attachments.Add(new Attachment(
                volumes[i], consumers[i], onFailure, confirmed[i], firsts[i], new DateTimeOffset(since[i]), actors[i]));
        }
        return attachments;
    }

    /// <summary>The state of a host's row: the columns of <see cref="HostColumns"/> from <paramref name="first"/> on.</summary>
    public static HostState ReadHost(NpgsqlDataReader row, int first = 0) => new()
    {
        Host = row.GetString(first),
        Version = row.GetInt64(first + 1),
        IsUp = row.GetBoolean(first + 2),
        DownReason = TextOrNull(row, first + 3),
        DownBy = TextOrNull(row, first + 4),
        DownSince = TimeOrNull(row, first + 5),
        Agent = row.IsDBNull(first + 7)
            ? null
            : new HostEvent.AgentStarted(
                row.GetInt64(first + 6), row.GetString(first + 7), row.GetString(first + 8), row.GetString(first + 9),
                row.GetString(first + 10), row.GetString(first + 11)),
        AgentStartedAt = TimeOrNull(row, first + 12),
        UpdatedAt = TimeOrNull(row, first + 13) ?? default,
    };

    /// <summary>The columns of a host's state, of <c>host h</c>; fourteen.</summary>
    public const string HostColumns =
        """
        h.host, h.version, h.up, h.down_reason, h.down_by, h.down_since, h.agent_epoch, h.agent_id, h.agent_machine_id,
        h.agent_boot_id, h.agent_kernel, h.agent_version, h.agent_started_at, h.updated_at
        """;
}
