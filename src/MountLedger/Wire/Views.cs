using System.Collections.Immutable;
using System.Diagnostics.CodeAnalysis;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace MountLedger.Wire;

/// <summary>A mountpoint, everywhere: section 8 of the contract.</summary>
public record MountpointView
{
    public required string Host { get; init; }
    public required string Mountpoint { get; init; }
    public required Phase Phase { get; init; }
    public required long Version { get; init; }
    public required long Generation { get; init; }
    public required string? Source { get; init; }
    public required string? Fstype { get; init; }
    public required ImmutableArray<string> Options { get; init; }
    public required ImmutableArray<AttachmentView> Attachments { get; init; }
    public required KernelView? Kernel { get; init; }
    public required ErrorView? Error { get; init; }
    public required DateTimeOffset? UpdatedAt { get; init; }

    /// <inheritdoc cref="ListOf{T}.AsOf"/>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public DateTimeOffset? AsOf { get; init; }
}

/// <summary>What <c>mount</c> and <c>unmount</c> print: the mountpoint, with what came of the request.</summary>
public sealed record OutcomeView : MountpointView
{
    public OutcomeView() { }

    [SetsRequiredMembers]
    public OutcomeView(MountpointView mountpoint, string outcome) : base(mountpoint) => Outcome = outcome;

    /// <summary><c>mounted, attached, unmounted, detached, remounted, noop</c> or <c>pending</c>.</summary>
    public required string Outcome { get; init; }
}

public sealed record AttachmentView(string Volume, string Consumer, DateTimeOffset Since, string Actor);

public sealed record KernelView(string BootId, ulong? MountId);

public sealed record ErrorView(
    OperationKind Operation, string Errno, string Message, ImmutableArray<MountHolder> Holders, DateTimeOffset? RetryAt);

/// <summary>An event of the history.</summary>
public sealed record EventView(
    long Seq, string Host, string Mountpoint, long Version, string Type, DateTimeOffset At, string Actor,
    string CorrelationId, JsonElement Data, string Hash);

/// <summary>A host: whether it is the one that the answering agent serves, whether an operator took it down, and who serves it.</summary>
public sealed record HostView(
    string Host, bool Own, bool Up, string? DownReason, string? DownBy, DateTimeOffset? DownSince, AgentView? Agent,
    int Mountpoints, int Attachments)
{
    /// <summary>How many mountpoints await an operator's decision because the ledger is older than what the agent has recorded; left out when none does.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)] public int LedgerBehind { get; init; }

    /// <summary>What the agent repairs since its start; left out when there was nothing to repair, and of other hosts.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public RepairProgressView? Repair { get; init; }
}

/// <summary>How far the repair of what was missing at the agent's start has come. Of <see cref="ToRepair"/>, <see cref="Done"/> hold again and <see cref="Failed"/> are tried again later.</summary>
public sealed record RepairProgressView(int ToRepair, int Done, int Failed);

public sealed record AgentView(
    string Id, long Epoch, string BootId, string Kernel, string Version, DateTimeOffset StartedAt);

/// <summary>One difference between ledger and kernel. <see cref="Paused"/>: no automatic repair here.</summary>
public sealed record DriftView(string Host, string Mountpoint, DriftKind Kind, string? Detail, Phase Phase, bool Paused);

/// <summary>
/// One line of a reconciliation: what is done about a difference. <see cref="Outcome"/>: <c>planned</c> (a dry run), <c>done</c>, <c>left</c> (it is
/// never done for an operator, <see cref="Repair"/> says what to do by hand) or <c>failed</c>.
/// </summary>
public sealed record RepairView(string Mountpoint, DriftKind Kind, string Repair, string Outcome, string? Detail);

/// <summary>What a synchronisation of consumers removed, or would (<see cref="DryRun"/>).</summary>
public sealed record SyncView(
    string Host, DateTimeOffset AsOf, int ConsumersAlive, bool DryRun, ImmutableArray<SyncedAttachmentView> Removed);

public sealed record SyncedAttachmentView(string Mountpoint, string Volume, string Consumer, DateTimeOffset Since);

/// <summary>
/// A part of a list. <see cref="AsOf"/>: the ledger is away, and this is what the agent remembers; until then the two were known to agree. Left out when the
/// ledger itself was asked.
/// </summary>
public sealed record ListOf<T>(ImmutableArray<T> Items, string? Next)
{
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public DateTimeOffset? AsOf { get; init; }
}

/// <summary><c>POST /v1/mounts</c>.</summary>
public sealed record MountRequest(
    string? Host, string? Mountpoint, string? Source, string? Fstype, ImmutableArray<string>? Options, string? Volume,
    string? Consumer, OnFailure? OnFailure, double? WaitSeconds);

/// <summary><c>POST /v1/unmounts</c>.</summary>
public sealed record UnmountRequest(
    string? Host, string? Mountpoint, string? Volume, string? Consumer, UnmountMode? Mode, double? WaitSeconds);

/// <summary><c>POST /v1/remounts</c>.</summary>
public sealed record RemountRequest(string? Host, string? Mountpoint, ImmutableArray<string>? Options, double? WaitSeconds);

/// <summary><c>POST /v1/hosts/{host}/up|down</c>.</summary>
public sealed record HostChangeRequest(string? Reason);

/// <summary>
/// <c>POST /v1/reconcile</c>: of one mountpoint, or of all. With <paramref name="LedgerBehind"/> nothing is repaired: it decides which side is right
/// where the ledger is behind.
/// </summary>
public sealed record ReconcileRequest(string? Host, string? Mountpoint, bool? DryRun, BehindChoice? LedgerBehind = null, string? Reason = null);

/// <summary><c>POST /v1/pause</c> and <c>POST /v1/resume</c> (which takes no reason).</summary>
public sealed record RepairRequest(string? Host, string? Mountpoint, string? Reason);

/// <summary><c>POST /v1/hosts/{host}/sync</c>: the consumers that are alive as of a time.</summary>
public sealed record SyncRequest(ImmutableArray<string>? Consumers, string? AsOf, bool? DryRun);

/// <summary>
/// An RFC 9457 problem. <see cref="Type"/> ends in the rejection's name. <see cref="Errors"/>: for invalid input;
/// <see cref="Error"/>: for a failure in the kernel; <see cref="Current"/>: the mountpoint as it is, where that helps.
/// </summary>
public sealed record Problem
{
    /// <summary>What every <see cref="Type"/> begins with.</summary>
    public const string TypePrefix = "https://mountledger.dev/problems/";

    public required string Type { get; init; }
    public required string Title { get; init; }
    public required int Status { get; init; }
    public required string Detail { get; init; }
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public IReadOnlyList<InputError>? Errors { get; init; }
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public ErrorView? Error { get; init; }
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public MountpointView? Current { get; init; }

    /// <summary>The rejection's name: the last segment of the type.</summary>
    [JsonIgnore] public string Name => Type[(Type.LastIndexOf('/') + 1)..];
}

/// <summary>
/// The JSON of the HTTP interface, shared by agent and client.
/// Unknown and repeated members of a request are refused: a misspelt option must not be silently ignored.
/// </summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    AllowDuplicateProperties = false,
    Converters = [typeof(KebabCase<OnFailure>), typeof(KebabCase<UnmountMode>), typeof(KebabCase<Phase>), typeof(KebabCase<OperationKind>), typeof(KebabCase<DriftKind>),
        typeof(KebabCase<BehindChoice>)])]
[JsonSerializable(typeof(MountRequest))]
[JsonSerializable(typeof(UnmountRequest))]
[JsonSerializable(typeof(RemountRequest))]
[JsonSerializable(typeof(HostChangeRequest))]
[JsonSerializable(typeof(ReconcileRequest))]
[JsonSerializable(typeof(RepairRequest))]
[JsonSerializable(typeof(SyncRequest))]
public sealed partial class RequestJson : JsonSerializerContext;

/// <summary>The JSON of the answers. A client ignores members that it does not know.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    Converters = [typeof(KebabCase<OnFailure>), typeof(KebabCase<UnmountMode>), typeof(KebabCase<Phase>), typeof(KebabCase<OperationKind>),
        typeof(KebabCase<DriftKind>), typeof(KebabCase<DoctorLevel>)])]
[JsonSerializable(typeof(MountpointView))]
[JsonSerializable(typeof(OutcomeView))]
[JsonSerializable(typeof(EventView))]
[JsonSerializable(typeof(HostView))]
[JsonSerializable(typeof(ListOf<MountpointView>))]
[JsonSerializable(typeof(ListOf<EventView>))]
[JsonSerializable(typeof(ListOf<HostView>))]
[JsonSerializable(typeof(DoctorView))]
[JsonSerializable(typeof(ListOf<DriftView>))]
[JsonSerializable(typeof(ListOf<RepairView>))]
[JsonSerializable(typeof(SyncView))]
[JsonSerializable(typeof(Problem))]
public sealed partial class AnswerJson : JsonSerializerContext;
