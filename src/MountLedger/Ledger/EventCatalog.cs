using System.Collections.Frozen;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace MountLedger;

/// <summary>
/// The stored names of all events, and the way from an event to its JSON and back. The one place where a new event, or
/// the upcast of an old shape of one, is registered.
/// </summary>
public static class EventCatalog
{
    private static readonly FrozenDictionary<Type, Entry> ByType;
    private static readonly FrozenDictionary<string, Entry> ByName;

    static EventCatalog()
    {
        var json = StoredJson.Events;
        Entry[] entries =
        [
            new("mount_requested", json.MountRequested), new("attachment_added", json.AttachmentAdded),
            new("attachment_removed", json.AttachmentRemoved), new("mount_started", json.MountStarted),
            new("mounted", json.Mounted), new("mount_failed", json.MountFailed), new("mount_adopted", json.MountAdopted),
            new("mount_kept", json.MountKept), new("unmount_requested", json.UnmountRequested),
            new("unmount_started", json.UnmountStarted), new("unmounted", json.Unmounted),
            new("unmount_failed", json.UnmountFailed), new("operation_uncertain", json.OperationUncertain),
            new("operation_settled", json.OperationSettled), new("remount_requested", json.RemountRequested),
            new("remount_started", json.RemountStarted), new("remounted", json.Remounted), new("remount_failed", json.RemountFailed),
            new("drift_detected", json.DriftDetected), new("drift_resolved", json.DriftResolved),
            new("repair_paused", json.RepairPaused), new("repair_resumed", json.RepairResumed),
            new("agent_started", json.AgentStarted), new("host_up", json.HostUp), new("host_down", json.HostDown),
            new("consumers_synced", json.ConsumersSynced),
        ];
        ByType = entries.ToFrozenDictionary(entry => entry.Json.Type);
        ByName = entries.ToFrozenDictionary(entry => entry.StoredName, StringComparer.Ordinal);
    }

    /// <summary>All stored names, for validating a history filter and for the tests.</summary>
    public static IEnumerable<string> StoredNames => ByName.Keys.Order(StringComparer.Ordinal);

    public static IEnumerable<Type> EventTypes => ByType.Keys;

    /// <summary>The stored name of an event, as in <c>mt_events.type</c>.</summary>
    public static string StoredName(LedgerEvent change) => change switch
    {
        MountEvent.Unrecognised unknown => unknown.StoredType,
        HostEvent.Unrecognised unknown => unknown.StoredType,
        _ => ByType[change.GetType()].StoredName,
    };

    /// <summary>What Marten keeps in <c>mt_dotnet_type</c>: <c>Full.Name, Assembly</c>.</summary>
    public static string DotnetType(LedgerEvent change) => $"{change.GetType().FullName}, MountLedger";

    /// <summary>The event as its stored JSON document.</summary>
    public static string Encode(LedgerEvent change) => change switch
    {
        MountEvent.Unrecognised unknown => unknown.Json,
        HostEvent.Unrecognised unknown => unknown.Json,
        _ => JsonSerializer.Serialize(change, ByType[change.GetType()].Json),
    };

    /// <summary>
    /// The event of a stored document. An unknown name, or a document that does not fit its name, becomes an
    /// <c>Unrecognised</c> event: history stays readable, folding goes on, and nothing stops because of one bad row.
    /// </summary>
    public static LedgerEvent Decode(string streamId, string storedName, string json)
    {
        if (ByName.TryGetValue(storedName, out var entry))
        {
            try
            {
                if (JsonSerializer.Deserialize(json, entry.Json) is LedgerEvent change) return change;
            }
            catch (JsonException)
            {
                // Falls through: a row that was damaged or written by hand.
            }
        }
        return streamId == HostEvent.StreamId
            ? new HostEvent.Unrecognised(storedName, json)
            : new MountEvent.Unrecognised(storedName, json);
    }

    private sealed record Entry(string StoredName, JsonTypeInfo Json);
}
