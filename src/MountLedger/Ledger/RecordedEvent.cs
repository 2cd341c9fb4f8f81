namespace MountLedger;

/// <summary>The identity of a stream. <paramref name="Id"/> is a mountpoint or <see cref="HostEvent.StreamId"/>.</summary>
public readonly record struct StreamKey(string Host, string Id)
{
    public override string ToString() => $"{Host}:{Id}";
}

/// <summary>
/// An event as the ledger holds it. <paramref name="At"/> (microseconds, UTC), <paramref name="Seq"/> and
/// <paramref name="Hash"/> (64 hex digits) were set by the database; <paramref name="Version"/> counts from 1 without gaps.
/// </summary>
public sealed record RecordedEvent(
    long Seq, Guid Id, StreamKey Stream, long Version, string StoredType, LedgerEvent Event, DateTimeOffset At,
    string Actor, string CorrelationId, string? CausationId, long? Epoch, string? Agent, string Hash, string DataJson);
