using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace MountLedger;

/// <summary>
/// The stored and the answered JSON: camel case, enums as kebab-case strings (<c>source-mismatch</c>), nulls left in.
/// Source-generated, so that a client starts fast.
/// </summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    Converters = [typeof(KebabCase<OnFailure>), typeof(KebabCase<UnmountMode>), typeof(KebabCase<Phase>),
        typeof(KebabCase<OperationKind>), typeof(KebabCase<DriftKind>), typeof(KebabCase<RemovalReason>),
        typeof(KebabCase<SettledAs>)])]
[JsonSerializable(typeof(MountEvent.MountRequested))]
[JsonSerializable(typeof(MountEvent.AttachmentAdded))]
[JsonSerializable(typeof(MountEvent.AttachmentRemoved))]
[JsonSerializable(typeof(MountEvent.MountStarted))]
[JsonSerializable(typeof(MountEvent.Mounted))]
[JsonSerializable(typeof(MountEvent.MountFailed))]
[JsonSerializable(typeof(MountEvent.MountAdopted))]
[JsonSerializable(typeof(MountEvent.MountKept))]
[JsonSerializable(typeof(MountEvent.UnmountRequested))]
[JsonSerializable(typeof(MountEvent.UnmountStarted))]
[JsonSerializable(typeof(MountEvent.Unmounted))]
[JsonSerializable(typeof(MountEvent.UnmountFailed))]
[JsonSerializable(typeof(MountEvent.OperationUncertain))]
[JsonSerializable(typeof(MountEvent.OperationSettled))]
[JsonSerializable(typeof(MountEvent.RemountRequested))]
[JsonSerializable(typeof(MountEvent.RemountStarted))]
[JsonSerializable(typeof(MountEvent.Remounted))]
[JsonSerializable(typeof(MountEvent.RemountFailed))]
[JsonSerializable(typeof(MountEvent.DriftDetected))]
[JsonSerializable(typeof(MountEvent.DriftResolved))]
[JsonSerializable(typeof(MountEvent.RepairPaused))]
[JsonSerializable(typeof(MountEvent.RepairResumed))]
[JsonSerializable(typeof(HostEvent.AgentStarted))]
[JsonSerializable(typeof(HostEvent.HostUp))]
[JsonSerializable(typeof(HostEvent.HostDown))]
[JsonSerializable(typeof(HostEvent.ConsumersSynced))]
[JsonSerializable(typeof(MountStateRow))]
[JsonSerializable(typeof(JsonElement))]
internal sealed partial class LedgerJson : JsonSerializerContext;

/// <summary>The context that everything stored goes through.</summary>
internal static class StoredJson
{
    /// <summary>Non-ASCII text is stored readable: these documents never stand in HTML.</summary>
    public static readonly LedgerJson Context = new(new JsonSerializerOptions(LedgerJson.Default.Options)
    {
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    });

    /// <summary>
    /// The same for events, which must be whole: folding relies on members that are there. A member that a later version
    /// adds has a default value in the record, and is then not asked for.
    /// </summary>
    public static readonly LedgerJson Events = new(new JsonSerializerOptions(Context.Options)
    {
        RespectNullableAnnotations = true,
        RespectRequiredConstructorParameters = true,
    });
}

/// <summary>Enums as kebab-case strings, for every JSON document of MountLedger; numbers are refused.</summary>
public sealed class KebabCase<T>() : JsonStringEnumConverter<T>(JsonNamingPolicy.KebabCaseLower, allowIntegerValues: false)
    where T : struct, Enum;
