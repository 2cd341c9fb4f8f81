using System.Collections.Immutable;
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
}

/// <summary>What <c>mount</c> and <c>unmount</c> print: the mountpoint, with what came of the request.</summary>
public sealed record OutcomeView : MountpointView
{
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
    int Mountpoints, int Attachments);

public sealed record AgentView(
    string Id, long Epoch, string BootId, string Kernel, string Version, DateTimeOffset StartedAt);

public sealed record ListOf<T>(ImmutableArray<T> Items, string? Next);

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
    Converters = [typeof(KebabCase<OnFailure>), typeof(KebabCase<UnmountMode>), typeof(KebabCase<Phase>), typeof(KebabCase<OperationKind>)])]
[JsonSerializable(typeof(MountRequest))]
[JsonSerializable(typeof(UnmountRequest))]
[JsonSerializable(typeof(RemountRequest))]
[JsonSerializable(typeof(HostChangeRequest))]
public sealed partial class RequestJson : JsonSerializerContext;

/// <summary>The JSON of the answers. A client ignores members that it does not know.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    Converters = [typeof(KebabCase<OnFailure>), typeof(KebabCase<UnmountMode>), typeof(KebabCase<Phase>), typeof(KebabCase<OperationKind>),
        typeof(KebabCase<DoctorLevel>)])]
[JsonSerializable(typeof(MountpointView))]
[JsonSerializable(typeof(OutcomeView))]
[JsonSerializable(typeof(EventView))]
[JsonSerializable(typeof(HostView))]
[JsonSerializable(typeof(ListOf<MountpointView>))]
[JsonSerializable(typeof(ListOf<EventView>))]
[JsonSerializable(typeof(ListOf<HostView>))]
[JsonSerializable(typeof(DoctorView))]
[JsonSerializable(typeof(Problem))]
public sealed partial class AnswerJson : JsonSerializerContext;
