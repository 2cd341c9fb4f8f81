using System.Collections.Immutable;
using System.Text.Json.Serialization;

namespace MountLedger.Linux;

/// <summary>What the agent asks of a worker.</summary>
internal enum WorkerVerb { Observe, Prepare, Attach, Discard, Unmount, Sweep, HasEntries }

/// <summary>What a worker answers; <c>Hello</c> is its first message, with id 0 and unasked.</summary>
internal enum WorkerOutcome { Hello, Observed, Ready, Occupied, Attached, Unmounted, NotMounted, Failed, Unknown, Swept, Looked }

/// <summary>A request on the channel. Which members are set follows from the verb; a <c>Discard</c> gets no answer.</summary>
internal sealed record WorkerRequest(
    long Id, WorkerVerb Verb, long Token, string? Mountpoint, MountSpec? Spec, PreparedMount? Prepared, UnmountOrder? Order)
{
    /// <summary>Of a <c>Sweep</c>: the pids of dead workers, whose staging is undone.</summary>
    public ImmutableArray<string>? Dead { get; init; }
}

/// <summary>An answer on the channel. <paramref name="Directories"/>: to create, created or removed, as the outcome says; <paramref name="Flag"/>:
/// of an attach, that the directory was empty; of a look, that it is not.</summary>
internal sealed record WorkerAnswer(
    long Id, WorkerOutcome Outcome, Observation? Observation = null, ulong? MountId = null,
    ImmutableArray<string>? Directories = null, KernelError? Error = null, string? Reason = null,
    bool? Flag = null)
{
    /// <summary>The token of the request, put in by the agent.</summary>
    [JsonIgnore]
    public long Token { get; init; }
}

// Both ends are the same program, so numbers serve for enums, and what can be computed is left out.
[JsonSourceGenerationOptions(IgnoreReadOnlyProperties = true, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(WorkerRequest))]
[JsonSerializable(typeof(WorkerAnswer))]
internal sealed partial class WorkerJson : JsonSerializerContext;
