using System.Collections.Immutable;

namespace MountLedger.Postgres;

/// <summary>An append on its way: what is sent, what its answer means, and who waits for it.</summary>
internal sealed class PendingAppend
{
    private readonly TaskCompletionSource<AppendResult> result = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int begun;

    /// <exception cref="ArgumentException">The batch is inconsistent: no events, or the projection row of the stream is missing.</exception>
    public PendingAppend(AppendBatch batch)
    {
        Check(batch);
        Batch = batch;
        Events = ImmutableArray.CreateRange(batch.Events, EncodedEvent.Of);
        Row = LedgerDocuments.EncodeRow(batch);
        if (batch.Request is { } request) Request = LedgerDocuments.EncodeRequest(request);
        Added = LedgerDocuments.EncodeAdded(batch.Attachments);
        Removed = LedgerDocuments.EncodeRemoved(batch.Attachments);
        Size = Row.Length + (Request?.Length ?? 0) + (Added?.Length ?? 0) + (Removed?.Length ?? 0) + Events.Sum(change => change.Data.Length);
    }

    public AppendBatch Batch { get; }

    /// <summary>The batch's events with the ids that they get.</summary>
    public ImmutableArray<EncodedEvent> Events { get; }

    /// <summary>The documents of <see cref="LedgerDocuments"/>; null: it has none of that kind.</summary>
    public byte[] Row { get; }
    public byte[]? Request { get; }
    public byte[]? Added { get; }
    public byte[]? Removed { get; }

    /// <summary>About how many bytes are sent.</summary>
    public int Size { get; }

    /// <summary>It needs a transaction of its own: what concerns the host as a whole takes the host's lock exclusively, and waits for the other writer.</summary>
    public bool GoesAlone => Batch.Stream.Id == HostEvent.StreamId;

    public Task<AppendResult> Result => result.Task;

    /// <summary>The one who is told true writes it, or sees to it that nobody does.</summary>
    public bool TryBegin() => Interlocked.Exchange(ref begun, 1) == 0;

    public void Complete(AppendResult value) => result.TrySetResult(value);

    public void Fail(Exception failure) => result.TrySetException(failure);

    /// <summary>What the ledger answered when it was appended.</summary>
    /// <param name="at">The time of the events.</param>
    /// <param name="seqs">The numbers of the events.</param>
    /// <param name="hashes">The hashes of the events.</param>
    public AppendResult Recorded(DateTimeOffset at, ReadOnlySpan<long?> seqs, ReadOnlySpan<string?> hashes)
    {
        var recorded = ImmutableArray.CreateBuilder<RecordedEvent>(Events.Length);
        for (var i = 0; i < Events.Length; i++)
        {
            recorded.Add(new RecordedEvent(
                seqs[i]!.Value, Events[i].Id, Batch.Stream, Batch.ExpectedVersion + i + 1, Events[i].Type, Batch.Events[i], at,
                Batch.Origin.Actor, Batch.Origin.CorrelationId, Batch.Origin.CausationId, Batch.Origin.Epoch, Batch.Origin.Agent,
                hashes[i]!, Events[i].Data));
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
