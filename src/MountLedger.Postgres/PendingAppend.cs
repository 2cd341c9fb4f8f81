using System.Collections.Immutable;
using Npgsql;

namespace MountLedger.Postgres;

/// <summary>An append on its way: what is sent, how its answer is read, and who waits for it.</summary>
internal sealed class PendingAppend
{
    /// <summary>The call of <c>ledger_append</c>; its one parameter is <see cref="Document"/>.</summary>
    public const string Statement =
        """
        select outcome, actual, reason, at, seqs, hashes, request_actor, request_body_hash, request_mountpoint,
          request_version, request_status, request_answer
        from mountledger.ledger_append($1)
        """;

    private readonly ImmutableArray<EncodedEvent> events;
    private readonly TaskCompletionSource<AppendResult> result = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int begun;

    /// <exception cref="ArgumentException">The batch is inconsistent: no events, or the projection row of the stream is missing.</exception>
    public PendingAppend(AppendBatch batch)
    {
        Check(batch);
        Batch = batch;
        events = ImmutableArray.CreateRange(batch.Events, EncodedEvent.Of);
        Document = BatchDocument.Encode(batch, events);
    }

    public AppendBatch Batch { get; }

    public byte[] Document { get; }

    /// <summary>
    /// It needs a transaction of its own. What concerns the host as a whole takes the host's lock exclusively, and waits for the other writer. And an
    /// idempotency key is a lock in no order with those of streams: two transactions that hold one each could wait for each other.
    /// </summary>
    public bool GoesAlone => Batch.Stream.Id == HostEvent.StreamId || Batch.Request is not null;

    public Task<AppendResult> Result => result.Task;

    /// <summary>The one who is told true writes it, or sees to it that nobody does.</summary>
    public bool TryBegin() => Interlocked.Exchange(ref begun, 1) == 0;

    public void Complete(AppendResult value) => result.TrySetResult(value);

    public void Fail(Exception failure) => result.TrySetException(failure);

    /// <summary>What the row that <paramref name="row"/> stands on says.</summary>
    public AppendResult ReadResult(NpgsqlDataReader row)
    {
        switch (row.GetString(0))
        {
            case "conflict": return new AppendResult.Conflict(row.GetInt64(1));
            case "stale-epoch": return new AppendResult.StaleEpoch(row.GetInt64(1));
            case "host-down": return new AppendResult.HostDown(LedgerRows.TextOrNull(row, 2));
            case "duplicate":
                return new AppendResult.DuplicateRequest(new StoredRequest(
                    Batch.Request!.Key, row.GetString(6), row.GetString(7), LedgerRows.TextOrNull(row, 8),
                    row.IsDBNull(9) ? null : row.GetInt64(9), row.IsDBNull(10) ? null : row.GetInt32(10), LedgerRows.TextOrNull(row, 11)));
        }
        var at = row.GetFieldValue<DateTimeOffset>(3);
        var seqs = row.GetFieldValue<long[]>(4);
        var hashes = row.GetFieldValue<string[]>(5);
        var recorded = ImmutableArray.CreateBuilder<RecordedEvent>(events.Length);
        for (var i = 0; i < events.Length; i++)
        {
            recorded.Add(new RecordedEvent(
                seqs[i], Guid.Parse(events[i].Id), Batch.Stream, Batch.ExpectedVersion + i + 1, events[i].Type, Batch.Events[i], at,
                Batch.Origin.Actor, Batch.Origin.CorrelationId, Batch.Origin.CausationId, Batch.Origin.Epoch, Batch.Origin.Agent,
                hashes[i], events[i].Data));
        }
        return new AppendResult.Appended(recorded.MoveToImmutable());
    }

    private static void Check(AppendBatch batch)
    {
        if (batch.Events.IsDefaultOrEmpty) throw new ArgumentException("nothing to append", nameof(batch));
        var isHost = batch.Stream.Id == HostEvent.StreamId;
        if (isHost != (batch.NewHostState is not null) || isHost == (batch.NewState is not null))
            throw new ArgumentException($"{batch.Stream} needs the state of its own kind, and only that", nameof(batch));
        if (batch.NewState is { } state && state.Stream != batch.Stream)
            throw new ArgumentException($"{batch.Stream} got the state of {state.Stream}", nameof(batch));
    }
}
