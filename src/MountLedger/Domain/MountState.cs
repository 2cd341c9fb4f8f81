using System.Collections.Immutable;

namespace MountLedger;

/// <summary>
/// The folded state of a mountpoint's stream: what is wanted (<see cref="Spec"/>, <see cref="Attachments"/>), what is
/// believed to be in the kernel (<see cref="Kernel"/>), and what is being done about the difference
/// (<see cref="Operation"/>). The phase is derived from those, never set.
/// </summary>
public sealed record MountState
{
    public required StreamKey Stream { get; init; }

    /// <summary>Position of the last folded event; 0 when the stream does not exist.</summary>
    public long Version { get; init; }

    /// <summary>Revision of <see cref="Spec"/>, from 1.</summary>
    public long Generation { get; init; }

    /// <summary>The wanted spec; of an absent mountpoint the last one that was wanted.</summary>
    public MountSpec? Spec { get; init; }

    public AttachmentSet Attachments { get; init; } = AttachmentSet.Empty;

    /// <summary>The mount that the ledger knows to be there, ours or adopted.</summary>
    public KernelMount? Kernel { get; init; }

    /// <summary>The operation whose start is recorded and whose outcome is not.</summary>
    public Operation? Operation { get; init; }

    /// <summary>Nobody can say what became of <see cref="Operation"/>.</summary>
    public bool Uncertain { get; init; }

    /// <summary>How many operations in a row had an unknown outcome; the next one that is settled as without effect counts as failed.</summary>
    public int UncertainInARow { get; init; }

    /// <summary>An unmount is wanted, in this mode; cleared when the mount is kept or gone.</summary>
    public UnmountMode? UnmountWanted { get; init; }

    /// <summary>Other options are wanted for the mount that is there; cleared when they hold, are refused, or nobody needs it any more.</summary>
    public PendingRemount? Remount { get; init; }

    /// <summary>Who left last, and may therefore repeat the unmount with another mode (rule 7).</summary>
    public AttachmentKey? LastHolder { get; init; }

    /// <summary>The last mount here was adopted, and let go without an unmount.</summary>
    public bool Released { get; init; }

    /// <summary>Directories that MountLedger created for this mountpoint, outermost first (rule 6).</summary>
    public ImmutableArray<string> OwnedDirectories { get; init; } = [];

    /// <summary>The last mount was made over an empty directory: what lies there while it is missing was written meanwhile.</summary>
    public bool MountedOverEmpty { get; init; }

    /// <summary>The last failure, until an operation succeeds.</summary>
    public OperationError? Error { get; init; }

    public ImmutableSortedDictionary<DriftKind, string?> Drift { get; init; } = ImmutableSortedDictionary<DriftKind, string?>.Empty;

    public bool RepairPaused { get; init; }

    /// <summary>While <see cref="Uncertain"/>: why nobody knows the outcome.</summary>
    public string? UncertainReason { get; init; }

    /// <summary>The database's time of the last event.</summary>
    public DateTimeOffset UpdatedAt { get; init; }

    public static MountState Initial(StreamKey stream) => new() { Stream = stream };

    public string Mountpoint => Stream.Id;

    public Phase Phase => this switch
    {
        { Uncertain: true } => Phase.Uncertain,
        { Operation.Kind: OperationKind.Mount } => Phase.Mounting,
        { Operation.Kind: OperationKind.Unmount } => Phase.Unmounting,
        { Kernel: not null } => Holds ? Phase.Mounted : Phase.Unmounting,
        { Attachments.IsEmpty: true } => Phase.Absent,
        { Error: not null } => Phase.Failed,
        _ => Phase.Mounting,
    };

    /// <summary>
    /// The wanted mount is there and nothing is about to take it away: an attach can be answered, and is confirmed.
    /// </summary>
    public bool Holds =>
        Kernel is not null && Kernel.Spec == Spec && UnmountWanted is null && !Attachments.IsEmpty
        && !Uncertain && Operation?.Kind is null or OperationKind.Remount;

    /// <summary>
    /// What the ledger says here is older than what its agent has seen: nothing is done and nothing is decided until an operator says which side is right.
    /// </summary>
    public bool IsBehind => Drift.ContainsKey(DriftKind.LedgerBehind);

    /// <summary>The mount in flight is not the one that is wanted by now: its failure concerns nobody who is attached.</summary>
    public bool IsSuperseded => Operation is { Kind: OperationKind.Mount, Spec: var started } && started != Spec;

    /// <summary>
    /// Folds one event. Never fails: an event that does not fit the state (an older program's, a hand-written one) changes what it can.
    /// </summary>
    public MountState Evolve(MountEvent change, long version, DateTimeOffset at, string actor)
    {
        var next = MountFold.Apply(this, change, at, actor);
        return next with { Version = version, UpdatedAt = at };
    }

    public MountState Evolve(RecordedEvent recorded) =>
        recorded.Event is MountEvent change
            ? Evolve(change, recorded.Version, recorded.At, recorded.Actor)
            : this with { Version = recorded.Version, UpdatedAt = recorded.At };
}

/// <summary>
/// A mount in the kernel: identified by boot, mount namespace and unique id; <paramref name="Spec"/> is what it was made with.
/// </summary>
public sealed record KernelMount(string BootId, ulong MountNamespaceId, ulong? MountId, MountSpec Spec, bool Adopted)
{
    /// <summary>It was made in this boot and namespace, so that its id says something about the mounts that are there.</summary>
    public bool IsOf(KernelIdentity identity) => BootId == identity.BootId && MountNamespaceId == identity.MountNamespaceId;
}

/// <summary>What <c>remount_requested</c> asked for: becomes spec and generation of the mountpoint when it holds.</summary>
public sealed record PendingRemount(MountSpec Spec, long Generation);

/// <summary>
/// An operation in flight, identified by the version of its start event. <paramref name="Generation"/> and
/// <paramref name="Spec"/>: what a mount is being made with, as the wanted spec may change meanwhile.
/// </summary>
public sealed record Operation(
    OperationKind Kind, long StartedAtVersion, long Generation, MountSpec? Spec, string? BootId, ulong? MountNamespaceId,
    ulong? MountId, UnmountMode Mode, ImmutableArray<string> Directories)
{
    /// <summary>It was begun in this boot and namespace.</summary>
    public bool IsOf(KernelIdentity identity) => BootId == identity.BootId && MountNamespaceId == identity.MountNamespaceId;
}

/// <summary>
/// The last failure; <paramref name="Attempt"/> counts from 1 and sets the backoff; <paramref name="AtVersion"/>: the
/// version of the event that recorded it, by which a waiting caller tells its own failure from an older one.
/// </summary>
public sealed record OperationError(
    OperationKind Operation, string Errno, string Message, ImmutableArray<MountHolder> Holders, int Attempt,
    DateTimeOffset? RetryAt, long AtVersion);
