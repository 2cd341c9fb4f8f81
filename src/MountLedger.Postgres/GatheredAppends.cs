using System.Text.Json;
using Npgsql;
using NpgsqlTypes;

namespace MountLedger.Postgres;

/// <summary>Appends that are written in one transaction, by one call of <c>mountledger.ledger_append</c>: its parameters, and its answer.</summary>
internal sealed class GatheredAppends
{
    private const int CountMax = 64;
    private const int BytesMax = 1 << 20;

    private const string Statement =
        """
        select outcomes, actual, reason, at, seqs, hashes, requests from mountledger.ledger_append(
          $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
        """;

    private readonly List<PendingAppend> appends = [];
    private readonly HashSet<string> streams = new(StringComparer.Ordinal);
    private readonly HashSet<string> keys = new(StringComparer.Ordinal);
    private int bytes;

    public IReadOnlyList<PendingAppend> Appends => appends;

    public int Count => appends.Count;

    /// <summary>How many events all of them have.</summary>
    public int Events => appends.Sum(append => append.Events.Length);

    /// <summary>
    /// Whether one more may come along. The function takes appends of one host, of each stream and of each idempotency key one; the second one of a
    /// stream has to see what became of the first.
    /// </summary>
    public bool HasRoomFor(PendingAppend next) => appends is not [var first, ..]
        || (appends.Count < CountMax && bytes + next.Size <= BytesMax && !first.GoesAlone && !next.GoesAlone
            && next.Batch.Stream.Host == first.Batch.Stream.Host && !streams.Contains(next.Batch.Stream.Id)
            && (next.Batch.Request is not { } request || !keys.Contains(request.Key)));

    public void Add(PendingAppend append)
    {
        appends.Add(append);
        streams.Add(append.Batch.Stream.Id);
        if (append.Batch.Request is { } request) keys.Add(request.Key);
        bytes += append.Size;
    }

    /// <summary>In the order of their streams: two transactions that want the same streams then lock them in the same order.</summary>
    public void Sort() => appends.Sort((one, other) => string.CompareOrdinal(one.Batch.Stream.Id, other.Batch.Stream.Id));

    public NpgsqlCommand Command(NpgsqlConnection connection)
    {
        var events = appends.SelectMany(append => append.Events).ToArray();
        return new NpgsqlCommand(Statement, connection)
        {
            Parameters =
            {
                LedgerRows.Text(appends[0].Batch.Stream.Host),
                Each(NpgsqlDbType.Text, append => append.Batch.Stream.Id),
                Each(NpgsqlDbType.Bigint, append => append.Batch.ExpectedVersion),
                Each(NpgsqlDbType.Integer, append => append.Events.Length),
                Each(NpgsqlDbType.Text, append => append.Batch.Origin.Actor),
                Each(NpgsqlDbType.Text, append => append.Batch.Origin.CorrelationId),
                Each(NpgsqlDbType.Text, append => append.Batch.Origin.CausationId),
                Each(NpgsqlDbType.Bigint, append => append.Batch.Origin.Epoch),
                Each(NpgsqlDbType.Text, append => append.Batch.Origin.Agent),
                Each(NpgsqlDbType.Boolean, append => append.Batch.Origin.LocalAgent),
                Each(NpgsqlDbType.Boolean, append => append.Batch.RequireHostUp),
                EachOrNull(append => append.Request),
                Each(NpgsqlDbType.Jsonb, append => append.Row),
                EachOrNull(append => append.Added),
                EachOrNull(append => append.Removed),
                Each(NpgsqlDbType.Boolean, append => append.Batch.Attachments.ConfirmAll),
                Of(NpgsqlDbType.Uuid, Array.ConvertAll(events, change => change.Id)),
                Of(NpgsqlDbType.Text, Array.ConvertAll(events, change => change.Type)),
                Of(NpgsqlDbType.Text, Array.ConvertAll(events, change => change.DotnetType)),
                Of(NpgsqlDbType.Jsonb, Array.ConvertAll(events, change => LedgerDocuments.EncodeData(change.Data))),
            },
        };
    }

    /// <summary>What became of each, in the order of <see cref="Appends"/>.</summary>
    public AppendResult[] Read(NpgsqlDataReader row)
    {
        var outcomes = row.GetFieldValue<string[]>(0);
        var actual = row.GetFieldValue<long?[]>(1);
        var times = row.GetFieldValue<DateTime?[]>(3);
        var seqs = row.GetFieldValue<long?[]>(4);
        var hashes = row.GetFieldValue<string?[]>(5);
        var results = new AppendResult[appends.Count];
        var first = 0;
        for (var i = 0; i < results.Length; i++)
        {
            var count = appends[i].Events.Length;
            results[i] = outcomes[i] switch
            {
                "appended" => appends[i].Recorded(new DateTimeOffset(times[i]!.Value), seqs.AsSpan(first, count), hashes.AsSpan(first, count)),
                "conflict" => new AppendResult.Conflict(actual[i]!.Value),
                "stale-epoch" => new AppendResult.StaleEpoch(actual[i]!.Value),
                "host-down" => new AppendResult.HostDown(LedgerRows.TextOrNull(row, 2)),
                "duplicate" => new AppendResult.DuplicateRequest(ReadRequest(row.GetFieldValue<string?[]>(6)[i]!)),
                var other => throw new InvalidDataException($"ledger_append answered '{other}'"),
            };
            first += count;
        }
        return results;
    }

    private static StoredRequest ReadRequest(string document)
    {
        using var json = JsonDocument.Parse(document);
        var row = json.RootElement;
        return new StoredRequest(
            Text("key")!, Text("actor")!, Text("body_hash")!, Text("mountpoint"), row.GetProperty("version") is { ValueKind: JsonValueKind.Number } version ? version.GetInt64() : null,
            row.GetProperty("status") is { ValueKind: JsonValueKind.Number } status ? status.GetInt32() : null, Text("answer"));

        string? Text(string column) => row.GetProperty(column).GetString();
    }

    private NpgsqlParameter<T[]> Each<T>(NpgsqlDbType type, Func<PendingAppend, T> value)
    {
        var values = new T[appends.Count];
        for (var i = 0; i < values.Length; i++) values[i] = value(appends[i]);
        return Of(type, values);
    }

    private NpgsqlParameter EachOrNull(Func<PendingAppend, byte[]?> document) => appends.Exists(append => document(append) is not null)
        ? Each(NpgsqlDbType.Jsonb, document)
        : new NpgsqlParameter { Value = DBNull.Value, NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Jsonb };

    private static NpgsqlParameter<T[]> Of<T>(NpgsqlDbType type, T[] values) => new() { TypedValue = values, NpgsqlDbType = NpgsqlDbType.Array | type };
}
