using System.Text.Json;
using Npgsql;

namespace MountLedger.Postgres;

/// <summary>
/// Reads many mountpoints of a host at once: all of them is what an agent's start waits for. One statement, so that rows and attachments are of one moment; flat rows,
/// because an array for each column of each mountpoint costs server and client more; and the documents of one portion are read while the next one is received.
/// </summary>
internal static class HostReading
{
    private const int PortionRows = 256;

    /// <summary>
    /// Of <c>mt_streams s</c> and <c>mountpoint m</c> (null when the row is missing). Attachments are united with these rows: <see cref="AttachmentColumns"/>.
    /// </summary>
    public const string StateColumns =
        """
        s.id, s.version, m.version, m.generation, m.state::text, m.updated_at,
        null::text, null::text, null::text, null::boolean, null::boolean, null::text
        """;

    /// <summary>Of <c>attachment a</c>.</summary>
    public const string AttachmentColumns =
        "a.mountpoint, null, null, null, null, a.since, a.volume, a.consumer, a.on_failure, a.confirmed, a.first, a.actor";

    private const string Present =
        $$"""
        select {{StateColumns}}
        from mountledger.mt_streams s
        left join mountledger.mountpoint m on m.host = s.tenant_id and m.mountpoint = s.id
        where s.tenant_id = $1 and s.id <> '{{HostEvent.StreamId}}'
          and (m.version is distinct from s.version or m.phase <> 'absent' or m.action <> 'none'
            or (m.state -> 'drift') is distinct from '{}'::jsonb)
        union all
        select {{AttachmentColumns}} from mountledger.attachment a where a.host = $1
        """;

    private readonly record struct Row(StreamKey Stream, long Version, long Generation, byte[] Document, DateTimeOffset UpdatedAt);

    /// <returns>The states that can be trusted, and the streams of those rows that cannot: they are missing, of another version than their stream, or damaged.</returns>
    public static async ValueTask<(List<MountState> States, List<StreamKey> Damaged)> ReadAsync(
        NpgsqlConnection connection, string host, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(Present, connection) { Parameters = { LedgerRows.Text(host) } };
        return await ReadAsync(command, host, cancellationToken);
    }

    /// <inheritdoc cref="ReadAsync(NpgsqlConnection, string, CancellationToken)"/>
    public static async ValueTask<(List<MountState> States, List<StreamKey> Damaged)> ReadAsync(
        NpgsqlCommand command, string host, CancellationToken cancellationToken)
    {
        var damaged = new List<StreamKey>();
        var attachments = new Dictionary<string, List<Attachment>?>(StringComparer.Ordinal);
        var decoding = new List<Task<List<(StreamKey Stream, MountState? State)>>>();
        var portion = new List<Row>(PortionRows);
        await using (var row = await command.ExecuteReaderAsync(cancellationToken))
        {
            while (await row.ReadAsync(cancellationToken))
            {
                if (row.IsDBNull(1))
                {
                    AddAttachment(attachments, row);
                    continue;
                }
                var stream = new StreamKey(host, row.GetString(0));
                if (RowOrNull(stream, row) is not { } trusted)
                {
                    damaged.Add(stream);
                    continue;
                }
                portion.Add(trusted);
                if (portion.Count < PortionRows) continue;
                decoding.Add(DecodeAsync(portion));
                portion = new List<Row>(PortionRows);
            }
        }
        decoding.Add(DecodeAsync(portion));

        var states = new List<MountState>(decoding.Count * PortionRows);
        foreach (var (stream, decoded) in (await Task.WhenAll(decoding)).SelectMany(decoded => decoded))
        {
            var held = attachments.TryGetValue(stream.Id, out var list) ? list : [];
            if (decoded is null || held is null) damaged.Add(stream);
            else states.Add(held.Count == 0 ? decoded : decoded with { Attachments = AttachmentSet.Of(held) });
        }
        return (states, damaged);
    }

    private static Row? RowOrNull(StreamKey stream, NpgsqlDataReader row)
    {
        if (row.IsDBNull(2) || row.GetInt64(1) != row.GetInt64(2)) return null;
        try
        {
            return new Row(stream, row.GetInt64(2), row.GetInt64(3), row.GetFieldValue<byte[]>(4), row.GetFieldValue<DateTimeOffset>(5));
        }
        catch (Exception damage) when (LedgerRows.IsDamage(damage))
        {
            return null;
        }
    }

    private static Task<List<(StreamKey Stream, MountState? State)>> DecodeAsync(List<Row> rows) =>
        Task.Run(() => rows.ConvertAll(row => (row.Stream, DecodeOrNull(row))));

    private static MountState? DecodeOrNull(Row row)
    {
        try
        {
            return MountStateCodec.Decode(row.Stream, row.Version, row.Generation, row.Document, row.UpdatedAt);
        }
        catch (Exception damage) when (LedgerRows.IsDamage(damage))
        {
            return null;
        }
    }

    /// <summary>Null instead of a list: one of the mountpoint's attachments cannot be read.</summary>
    private static void AddAttachment(Dictionary<string, List<Attachment>?> attachments, NpgsqlDataReader row)
    {
        var mountpoint = row.GetString(0);
        if (!attachments.TryGetValue(mountpoint, out var list)) attachments[mountpoint] = list = [];
        if (AttachmentOrNull(row) is { } attachment) list?.Add(attachment);
        else attachments[mountpoint] = null;
    }

    private static Attachment? AttachmentOrNull(NpgsqlDataReader row)
    {
        try
        {
            return LedgerDocuments.TryParse<OnFailure>(row.GetString(8), out var onFailure)
                ? new Attachment(
                    row.GetString(6), row.GetString(7), onFailure, row.GetBoolean(9), row.GetBoolean(10), row.GetFieldValue<DateTimeOffset>(5), row.GetString(11))
                : null;
        }
        catch (Exception damage) when (LedgerRows.IsDamage(damage))
        {
            return null;
        }
    }
}
