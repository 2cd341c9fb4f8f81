using System.Collections.Immutable;

namespace MountLedger;

/// <summary>
/// The ledger. One call is one round trip; what it returns has been committed. Conflicts are values; an exception
/// (<see cref="LedgerUnavailableException"/>) means that the ledger cannot be reached and, for an append, that it is
/// unknown whether the append took place.
/// </summary>
public interface IEventStore
{
    /// <summary>The folded state of a mountpoint's stream, with its attachments; version 0 when there is no stream.</summary>
    ValueTask<MountState> LoadAsync(StreamKey stream, CancellationToken cancellationToken);

    /// <summary>All mountpoints of a host whose phase is not <c>absent</c>, or that show drift or await something.</summary>
    Task<IReadOnlyList<MountState>> LoadHostAsync(string host, CancellationToken cancellationToken);

    /// <summary>Mountpoints of a host whose next action is not <c>none</c> and due at <paramref name="now"/>.</summary>
    Task<IReadOnlyList<StreamKey>> ReadWorkListAsync(string host, DateTimeOffset now, CancellationToken cancellationToken);

    /// <summary>The folded state of the host's own stream; version 0 when it has none.</summary>
    ValueTask<HostState> LoadHostStateAsync(string host, CancellationToken cancellationToken);

    /// <summary>Appends all events of <paramref name="batch"/> or none, with its projection rows and its request row.</summary>
    ValueTask<AppendResult> AppendAsync(AppendBatch batch, CancellationToken cancellationToken);

    /// <summary>The kept request of this idempotency key, or null.</summary>
    ValueTask<StoredRequest?> FindRequestAsync(string host, string key, CancellationToken cancellationToken);

    /// <summary>Keeps the answer of a request. Without an earlier row (nothing was appended) it creates it.</summary>
    /// <returns>The row that stands: another caller's, when that one came first.</returns>
    ValueTask<StoredRequest> SaveAnswerAsync(string host, StoredRequest request, CancellationToken cancellationToken);

    /// <summary>The events of one stream in order, from <paramref name="fromVersion"/> on.</summary>
    Task<IReadOnlyList<RecordedEvent>> ReadStreamAsync(StreamKey stream, long fromVersion, CancellationToken cancellationToken);

    /// <summary>
    /// How many attachments of the host were removed by a synchronisation at <paramref name="asOf"/> or later, with no <c>consumers_synced</c> after it.
    /// </summary>
    Task<int> CountRemovalsOfUnfinishedSyncAsync(string host, DateTimeOffset asOf, CancellationToken cancellationToken);
}

/// <summary>Events for one stream, to be appended at <paramref name="ExpectedVersion"/> (0: the stream is new).</summary>
/// <param name="Stream">Host and mountpoint, or host and <see cref="HostEvent.StreamId"/>.</param>
/// <param name="ExpectedVersion">What the stream's version must be.</param>
/// <param name="Events">At least one.</param>
/// <param name="Origin">Who caused it.</param>
/// <param name="NewState">The mountpoint's state after the events, for its projection row; null for a host stream.</param>
/// <param name="NewHostState">The host's state after the events, for its projection row; null for a mountpoint.</param>
/// <param name="Attachments">What changes in the attachment projection.</param>
/// <param name="RequireHostUp">Refuse with <see cref="AppendResult.HostDown"/> when the host is down (an attach).</param>
/// <param name="Request">The idempotency row to keep in the same transaction.</param>
public sealed record AppendBatch(
    StreamKey Stream,
    long ExpectedVersion,
    ImmutableArray<LedgerEvent> Events,
    AppendOrigin Origin,
    MountState? NewState,
    HostState? NewHostState,
    AttachmentChanges Attachments,
    bool RequireHostUp,
    StoredRequest? Request);

/// <summary>
/// Who caused an append. <paramref name="Epoch"/> is set on everything the agent appends as the executor and is refused by the ledger
/// when the host's epoch is another; <paramref name="LocalAgent"/>: the writer is the host's own agent, so nobody needs a NOTIFY.
/// </summary>
public sealed record AppendOrigin(
    string Actor, string CorrelationId, string? CausationId, long? Epoch, string? Agent, bool LocalAgent);

/// <summary>
/// The delta of the attachment projection. <paramref name="ConfirmAll"/>: every attachment is confirmed now, those added by the
/// same batch included; so what confirms comes last in a batch.
/// </summary>
public sealed record AttachmentChanges(
    ImmutableArray<Attachment> Added, ImmutableArray<AttachmentKey> Removed, bool ConfirmAll)
{
    public static readonly AttachmentChanges None = new([], [], false);
}

/// <summary>
/// A caller's idempotency key (kept 24 hours), with the SHA-256 of its body (hex). <paramref name="Version"/>: the
/// stream's version after the request's own events, null when it appended none. <paramref name="Answer"/> is the
/// JSON that was answered with HTTP status <paramref name="Status"/>, null while the outcome is not known.
/// </summary>
public sealed record StoredRequest(
    string Key, string Actor, string BodyHash, string? Mountpoint, long? Version, int? Status, string? Answer);

/// <summary>What became of an append.</summary>
public abstract record AppendResult
{
    private AppendResult() { }

    /// <summary>Committed: the events with the version, time, number and hash that the database gave them.</summary>
    public sealed record Appended(ImmutableArray<RecordedEvent> Events) : AppendResult;

    /// <summary>The stream has another version.</summary>
    public sealed record Conflict(long ActualVersion) : AppendResult;

    /// <summary>The host is served by a newer epoch; this agent must stop acting.</summary>
    public sealed record StaleEpoch(long CurrentEpoch) : AppendResult;

    /// <summary>The host is down, and the append asked for it to be up.</summary>
    public sealed record HostDown(string? Reason) : AppendResult;

    /// <summary>The idempotency key was used before; nothing was appended.</summary>
    public sealed record DuplicateRequest(StoredRequest Existing) : AppendResult;
}

/// <summary>The ledger cannot be reached, or did not answer in time. The message says what was tried.</summary>
public sealed class LedgerUnavailableException : Exception
{
    public LedgerUnavailableException(string message, Exception? inner = null) : base(message, inner) { }
}
