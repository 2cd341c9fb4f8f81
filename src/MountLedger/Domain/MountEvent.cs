using System.Collections.Immutable;
using System.Text.Json.Serialization;

namespace MountLedger;

/// <summary>
/// Everything that can be recorded in a ledger stream. Stored names are the snake case of the class names
/// (<see cref="EventCatalog"/>); members are stored in camel case. Events are never changed once released: a new shape
/// is a new event or an upcast.
/// </summary>
public abstract record LedgerEvent
{
    private protected LedgerEvent() { }
}

/// <summary>Events of a mountpoint's stream (<c>stream_id</c> is the mountpoint).</summary>
public abstract record MountEvent : LedgerEvent
{
    private MountEvent() { }

    /// <summary>A spec is wanted here from now on; <paramref name="Generation"/> counts such revisions from 1.</summary>
    public sealed record MountRequested(string Source, string Fstype, ImmutableArray<string> Options, long Generation) : MountEvent
    {
        public MountSpec Spec() => new(Source, Fstype, Options);
    }

    public sealed record AttachmentAdded(string Volume, string Consumer, OnFailure OnFailure) : MountEvent;

    public sealed record AttachmentRemoved(string Volume, string Consumer, RemovalReason Reason) : MountEvent;

    /// <summary>
    /// The mount is prepared and about to be attached. <paramref name="MountId"/>: its unique id, when the kernel gave
    /// one before attaching; <paramref name="DirectoriesToCreate"/>: what will be created for it, outermost first.
    /// </summary>
    public sealed record MountStarted(
        long Generation, string BootId, ulong MountNamespaceId, ulong? MountId, ImmutableArray<string> DirectoriesToCreate) : MountEvent;

    /// <summary>
    /// The mount holds. <paramref name="DirectoriesCreated"/> are ours to remove (rule 6), outermost first;
    /// <paramref name="OverEmptyDirectory"/>: nothing lay below it, so what is found there later was written while it was missing.
    /// </summary>
    public sealed record Mounted(
        string BootId, ulong MountNamespaceId, ulong? MountId, ImmutableArray<string> DirectoriesCreated,
        bool OverEmptyDirectory = false) : MountEvent;

    /// <summary>The mount failed; <paramref name="RetryAt"/> is when it is tried again if somebody still wants it.</summary>
    public sealed record MountFailed(
        string Errno, string Message, bool Transient, int Attempt, DateTimeOffset? RetryAt) : MountEvent;

    /// <summary>
    /// A mount that was there already and matches the spec is taken over; it will be released, not unmounted. <paramref name="Ours"/>: MountLedger had
    /// made it, in a part of the ledger that is lost; then it is unmounted like any of ours, with <paramref name="DirectoriesCreated"/>.
    /// </summary>
    public sealed record MountAdopted(
        string BootId, ulong MountNamespaceId, ulong? MountId,
        [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)] bool Ours = false,
        [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] ImmutableArray<string>? DirectoriesCreated = null) : MountEvent;

    /// <summary>A pending unmount was called off because somebody attached (rule 8).</summary>
    public sealed record MountKept : MountEvent;

    public sealed record UnmountRequested(UnmountMode Mode) : MountEvent;

    public sealed record UnmountStarted(UnmountMode Mode, string? BootId, ulong? MountNamespaceId, ulong? MountId) : MountEvent;

    /// <summary><paramref name="Released"/>: an adopted mount was let go without an unmount.</summary>
    public sealed record Unmounted(bool Released, ImmutableArray<string> DirectoriesRemoved) : MountEvent;

    public sealed record UnmountFailed(
        string Errno, string Message, bool Transient, ImmutableArray<MountHolder> Holders, int Attempt, DateTimeOffset? RetryAt)
        : MountEvent;

    /// <summary>Nobody can say what became of the operation in flight; the executor will look (rule 13).</summary>
    public sealed record OperationUncertain(OperationKind Operation, string Reason) : MountEvent;

    /// <summary>The executor looked: the operation did not take effect. <paramref name="Found"/> says what is there.</summary>
    public sealed record OperationSettled(OperationKind Operation, SettledAs Found, string? Detail) : MountEvent;

    /// <summary>
    /// All options that the mount shall have from now on. Spec and <paramref name="Generation"/> become the mountpoint's with
    /// <see cref="Remounted"/>; until then, and after <see cref="RemountFailed"/>, the ones before it hold.
    /// </summary>
    public sealed record RemountRequested(ImmutableArray<string> Options, long Generation) : MountEvent;

    public sealed record RemountStarted(long Generation, string BootId, ulong MountNamespaceId, ulong? MountId) : MountEvent;

    public sealed record Remounted(long Generation) : MountEvent;

    /// <summary>The mount is as it was before; it is not tried again.</summary>
    public sealed record RemountFailed(string Errno, string Message) : MountEvent;

    public sealed record DriftDetected(DriftKind Kind, string? Detail) : MountEvent;

    public sealed record DriftResolved(DriftKind Kind, string? Detail) : MountEvent;

    public sealed record RepairPaused(string? Reason) : MountEvent;

    public sealed record RepairResumed : MountEvent;

    /// <summary>A stored event of a type that this program does not know: kept in the history, folded as nothing.</summary>
    public sealed record Unrecognised(string StoredType, string Json) : MountEvent;
}

/// <summary>Events of a host's own stream (<c>stream_id</c> is <c>@host</c>).</summary>
public abstract record HostEvent : LedgerEvent
{
    /// <summary>The stream id of a host's own stream. No mountpoint begins with <c>@</c>.</summary>
    public const string StreamId = "@host";

    private HostEvent() { }

    public sealed record AgentStarted(
        long Epoch, string Agent, string MachineId, string BootId, string Kernel, string Version) : HostEvent;

    public sealed record HostUp(string? Reason) : HostEvent;

    public sealed record HostDown(string? Reason) : HostEvent;

    /// <summary>
    /// Attachments older than <paramref name="AsOf"/> whose consumer was not in the list were removed: <paramref name="AttachmentsRemoved"/>, with those of runs
    /// of the same list that were interrupted.
    /// </summary>
    public sealed record ConsumersSynced(DateTimeOffset AsOf, int ConsumersAlive, int AttachmentsRemoved) : HostEvent;

    /// <summary>A stored event of a type that this program does not know.</summary>
    public sealed record Unrecognised(string StoredType, string Json) : HostEvent;
}

public enum RemovalReason { Detached, MountFailed, Synced }

public enum SettledAs { Mounted, Absent, Foreign }

/// <summary>A process that keeps a mount busy: <paramref name="Uses"/> holds <c>cwd</c>, <c>root</c>, <c>open</c>, <c>mapped</c>, …</summary>
public sealed record MountHolder(int Pid, string Command, ImmutableArray<string> Uses)
{
    public bool Equals(MountHolder? other) =>
        other is not null && Pid == other.Pid && Command == other.Command && Uses.SequenceEqual(other.Uses);

    public override int GetHashCode() => HashCode.Combine(Pid, Command, Uses.Length);
}
