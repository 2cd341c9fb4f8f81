using System.Collections.Immutable;
using System.Text.Json;

namespace MountLedger;

/// <summary>
/// The <c>state</c> document of the <c>mountpoint</c> row: what of a <see cref="MountState"/> has no column of its own.
/// Attachments are rows of their own table, so that a mountpoint with ten thousand of them costs no more to change.
/// It holds nothing that the database sets (no times but those that are in events), so it can be written by the append itself.
/// </summary>
internal sealed record MountStateRow(
    MountSpec? Spec,
    KernelMount? Kernel,
    Operation? Operation,
    bool Uncertain,
    int UncertainInARow,
    UnmountMode? UnmountWanted,
    string? LastVolume,
    string? LastConsumer,
    bool Released,
    ImmutableArray<string> OwnedDirectories,
    OperationError? Error,
    ImmutableSortedDictionary<DriftKind, string?> Drift,
    bool RepairPaused,
    bool MountedOverEmpty,
    PendingRemount? Remount = null,
    string? UncertainReason = null);

/// <summary>From a state to its row and back.</summary>
public static class MountStateCodec
{
    /// <summary>The JSON of the <c>state</c> column.</summary>
    public static string Encode(MountState state) => JsonSerializer.Serialize(
        new MountStateRow(
            state.Spec, state.Kernel, state.Operation, state.Uncertain, state.UncertainInARow, state.UnmountWanted, state.LastHolder?.Volume,
            state.LastHolder?.Consumer, state.Released, state.OwnedDirectories, state.Error, state.Drift, state.RepairPaused,
            state.MountedOverEmpty, state.Remount, state.UncertainReason),
        StoredJson.Context.MountStateRow);

    /// <exception cref="JsonException">The document is damaged: the caller folds the stream from its events instead.</exception>
    public static MountState Decode(
        StreamKey stream, long version, long generation, string json, DateTimeOffset updatedAt, IEnumerable<Attachment> attachments) =>
        Of(JsonSerializer.Deserialize(json, StoredJson.Context.MountStateRow), stream, version, generation, updatedAt)
            with
        { Attachments = AttachmentSet.Of(attachments) };

    /// <summary>The same without attachments, from UTF-8.</summary>
    /// <exception cref="JsonException">The document is damaged.</exception>
    public static MountState Decode(StreamKey stream, long version, long generation, ReadOnlySpan<byte> json, DateTimeOffset updatedAt) =>
        Of(JsonSerializer.Deserialize(json, StoredJson.Context.MountStateRow), stream, version, generation, updatedAt);

    private static MountState Of(MountStateRow? row, StreamKey stream, long version, long generation, DateTimeOffset updatedAt)
    {
        if (row is null) throw new JsonException($"the state of {stream} is null");
        if (row.Spec is { Options.IsDefault: true } || row.Kernel is { Spec: null or { Options.IsDefault: true } })
            throw new JsonException($"the state of {stream} has a spec that is not whole");
        return new MountState
        {
            Stream = stream,
            Version = version,
            Generation = generation,
            Spec = row.Spec,
            // What is mounted is what is wanted, nearly always: one of the two is enough.
            Kernel = row.Kernel is { } kernel && kernel.Spec == row.Spec ? kernel with { Spec = row.Spec } : row.Kernel,
            Operation = row.Operation,
            Uncertain = row.Uncertain,
            UncertainInARow = row.UncertainInARow,
            UnmountWanted = row.UnmountWanted,
            LastHolder = row is { LastVolume: { } volume, LastConsumer: { } consumer } ? new AttachmentKey(volume, consumer) : null,
            Released = row.Released,
            OwnedDirectories = row.OwnedDirectories.IsDefault ? [] : row.OwnedDirectories,
            Error = row.Error,
            Drift = row.Drift ?? ImmutableSortedDictionary<DriftKind, string?>.Empty,
            RepairPaused = row.RepairPaused,
            Remount = row.Remount,
            UncertainReason = row.UncertainReason,
            MountedOverEmpty = row.MountedOverEmpty,
            UpdatedAt = updatedAt,
        };
    }
}
