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
    bool MountedOverEmpty);

/// <summary>From a state to its row and back.</summary>
public static class MountStateCodec
{
    /// <summary>The JSON of the <c>state</c> column.</summary>
    public static string Encode(MountState state) => JsonSerializer.Serialize(
        new MountStateRow(
            state.Spec, state.Kernel, state.Operation, state.Uncertain, state.UncertainInARow, state.UnmountWanted, state.LastHolder?.Volume,
            state.LastHolder?.Consumer, state.Released, state.OwnedDirectories, state.Error, state.Drift, state.RepairPaused,
            state.MountedOverEmpty),
        StoredJson.Context.MountStateRow);

    /// <exception cref="JsonException">The document is damaged: the caller folds the stream from its events instead.</exception>
    public static MountState Decode(
        StreamKey stream, long version, long generation, string json, DateTimeOffset updatedAt, IEnumerable<Attachment> attachments)
    {
        var row = JsonSerializer.Deserialize(json, StoredJson.Context.MountStateRow)
            ?? throw new JsonException($"the state of {stream} is null");
        return new MountState
        {
            Stream = stream,
            Version = version,
            Generation = generation,
            Spec = row.Spec,
            Kernel = row.Kernel,
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
            MountedOverEmpty = row.MountedOverEmpty,
            UpdatedAt = updatedAt,
            Attachments = MountState.NoAttachments.AddRange(
                attachments.Select(attachment => KeyValuePair.Create(attachment.Key, attachment))),
        };
    }
}
