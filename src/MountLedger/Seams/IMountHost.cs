using System.Collections.Immutable;

namespace MountLedger;

/// <summary>
/// The kernel of this host, as the executor sees it. A mount is done in two steps, so that its unique id can be recorded
/// before anybody can see it: <see cref="PrepareAsync"/> makes it, detached; <see cref="AttachAsync"/> puts it into place.
/// Implementations never block a caller for longer than their deadline, and never throw for what the kernel says.
/// </summary>
public interface IMountHost
{
    /// <summary>The boot and the mount namespace that are served; mounts are identified within them.</summary>
    KernelIdentity Identity { get; }

    /// <summary>
    /// Looks at one path without touching a filesystem that could block. With <paramref name="wanted"/>, each mount
    /// found is compared with it by meaning (<see cref="ObservedMount.Differences"/>).
    /// </summary>
    Task<Observation> ObserveAsync(string mountpoint, MountSpec? wanted, CancellationToken cancellationToken);

    /// <summary>The whole mount table, in mount order. Runs at start and in the audit, not for each command.</summary>
    Task<ImmutableArray<ObservedMount>> ListAsync(CancellationToken cancellationToken);

    /// <summary>
    /// Changes of the mount table, from this call on: it watches before it returns, so a listing that is made afterwards misses nothing.
    /// Ends only with the token; a source that cannot watch ends at once, and only the audit is left.
    /// </summary>
    IAsyncEnumerable<MountTableChange> WatchAsync(CancellationToken cancellationToken) => AsyncEnumerable.Empty<MountTableChange>();

    /// <summary>The mount with this unique id, wherever it is in this namespace; null when it is gone.</summary>
    async Task<ObservedMount?> FindAsync(ulong mountId, CancellationToken cancellationToken) =>
        (await ListAsync(cancellationToken)).FirstOrDefault(mount => mount.MountId == mountId);

    /// <summary>
    /// Whether something lies in the directory where nothing is mounted now: false also when there is none. Null: nobody can tell in time.
    /// </summary>
    Task<bool?> HasEntriesAsync(string mountpoint, CancellationToken cancellationToken) => Task.FromResult<bool?>(null);

    /// <summary>Makes the mount without attaching it, and finds what must be created for it. Changes nothing that can be seen.</summary>
    Task<PrepareResult> PrepareAsync(string mountpoint, MountSpec spec, CancellationToken cancellationToken);

    /// <summary>Creates missing directories and attaches a prepared mount, never on top of another one.</summary>
    Task<AttachResult> AttachAsync(PreparedMount prepared, CancellationToken cancellationToken);

    /// <summary>Throws a prepared mount away. Never fails.</summary>
    Task DiscardAsync(PreparedMount prepared);

    /// <summary>
    /// Unmounts the mount with exactly this id at this path, then removes <paramref name="order"/>'s directories as far
    /// as they are empty and no mount.
    /// </summary>
    Task<UnmountResult> UnmountAsync(UnmountOrder order, CancellationToken cancellationToken);

    /// <summary>
    /// Gives the mount with exactly this id at this path other options, and reads them back. When it fails the mount is as
    /// it was before, as far as the kernel lets us.
    /// </summary>
    Task<RemountResult> RemountAsync(RemountOrder order, CancellationToken cancellationToken);

    /// <summary>
    /// Whether the filesystem at this path answers: null if it does (or is one that cannot fail to), else the name of the error, such as
    /// <c>ENOTCONN</c> or <c>ESTALE</c> when its server is dead, <c>ETIMEDOUT</c> when there is no answer in a short while, <c>EAGAIN</c>
    /// when nobody can tell now. However often one that hangs is asked, it holds up nothing but the first question.
    /// <paramref name="mountId"/>: the mount that is meant, so that one that took its place is not taken for it.
    /// </summary>
    Task<string?> ProbeAsync(string mountpoint, ulong? mountId, CancellationToken cancellationToken) => Task.FromResult<string?>(null);

    /// <summary>
    /// Returns once no operation that was started on this mountpoint before, by this or an earlier agent, can still act.
    /// </summary>
    Task QuiesceAsync(string mountpoint, CancellationToken cancellationToken);
}

/// <summary>
/// Which mounts an id speaks of. <paramref name="BootId"/>: /proc/sys/kernel/random/boot_id; <paramref name="MountNamespaceId"/>: the
/// namespace's unique id, on kernels without those its inode number.
/// </summary>
public sealed record KernelIdentity(string BootId, ulong MountNamespaceId);

/// <summary>
/// One mount of the table. <paramref name="MountId"/> is the unique, never reused id (null on kernels without it);
/// <paramref name="Root"/> the part of the filesystem that is mounted; paths are raw, without mountinfo's escapes.
/// <paramref name="Differences"/>: null when no spec was given, else what differs from it, empty when it matches.
/// </summary>
public sealed record ObservedMount(
    ulong? MountId,
    int OldId,
    int OldParentId,
    string Path,
    string FsType,
    string Source,
    string Root,
    ImmutableArray<string> MountOptions,
    ImmutableArray<string> SuperOptions,
    ImmutableArray<string>? Differences)
{
    /// <summary>It was compared with a spec and is what that asks for.</summary>
    public bool Matches => Differences is { IsEmpty: true };

    /// <summary>
    /// Type and source in words, for events, answers and logs. Others mount with user and password in the source
    /// (<c>//user:password@server/share</c>), and what is recorded stays.
    /// </summary>
    public string Described => Describe(FsType, Source);

    /// <inheritdoc cref="Described"/>
    public static string Describe(string? fstype, string? source) =>
        $"{fstype} {(source is not null && SecretRules.HasCredentials(source) ? ErrorValue.Masked : source)}";
}

/// <summary>What a notification says of the mount table.</summary>
public enum TableChangeKind
{
    /// <summary>A mount came to be at <see cref="MountTableChange.Path"/>.</summary>
    Attached,

    /// <summary>A mount is gone.</summary>
    Detached,

    /// <summary>A mount is now at <see cref="MountTableChange.Path"/>, and everything below it came along.</summary>
    Moved,

    /// <summary>Something changed that the kernel does not name (options, or more than could be told): look at everything.</summary>
    Unclear,
}

/// <summary>One change of the mount table. A hint where to look, not a fact: it may be old, doubled or of no importance.</summary>
public readonly record struct MountTableChange(TableChangeKind Kind, ulong MountId, string? Path);

/// <summary>What is at a path: its mounts, the topmost first. Empty: nothing is mounted exactly there.</summary>
public sealed record Observation(ImmutableArray<ObservedMount> Mounts, bool DirectoryExists)
{
    public ObservedMount? Top => Mounts.IsEmpty ? null : Mounts[0];
}

/// <summary>
/// What a kernel call or a helper said. <paramref name="Errno"/> is a name such as <c>EBUSY</c>; <paramref name="Message"/>
/// gives operation, object and remedy in one line; never a secret. <paramref name="Transient"/>: worth trying again.
/// </summary>
public sealed record KernelError(
    OperationKind Operation, string Errno, string Message, bool Transient, ImmutableArray<MountHolder> Holders)
{
    public static KernelError Of(OperationKind operation, string errno, string message, bool transient) =>
        new(operation, errno, message, transient, []);
}

/// <summary>A detached mount that waits in the worker under <paramref name="Token"/>, unique within this agent's life.</summary>
public sealed record PreparedMount(
    long Token, string Mountpoint, MountSpec Spec, ulong? MountId, ImmutableArray<string> DirectoriesToCreate);

public abstract record PrepareResult
{
    private PrepareResult() { }

    public sealed record Ready(PreparedMount Mount) : PrepareResult;

    /// <summary>Something is mounted at the path already; nothing was prepared.</summary>
    public sealed record Occupied(Observation Found) : PrepareResult;

    public sealed record Failed(KernelError Error) : PrepareResult;
}

public abstract record AttachResult
{
    private AttachResult() { }

    /// <summary>The mount is at its path, read back from the kernel; <paramref name="MountId"/> is its unique id, if the kernel has those.</summary>
    /// <param name="MountId">Its unique id.</param>
    /// <param name="DirectoriesCreated">Ours to remove, outermost first.</param>
    /// <param name="OverEmptyDirectory">Nothing lay in the directory that it covers; false also when nobody looked.</param>
    public sealed record Attached(ulong? MountId, ImmutableArray<string> DirectoriesCreated, bool OverEmptyDirectory = false) : AttachResult;

    /// <summary>It is certain that nothing was attached (or it was rolled back).</summary>
    public sealed record Failed(KernelError Error) : AttachResult;

    /// <summary>Nobody can say (the worker died, the deadline passed).</summary>
    public sealed record Unknown(string Reason) : AttachResult;
}

/// <summary><paramref name="MountId"/> null: the topmost mount at the path (kernels without unique ids).</summary>
public sealed record UnmountOrder(
    string Mountpoint, ulong? MountId, UnmountMode Mode, ImmutableArray<string> DirectoriesToRemove)
{
    /// <summary>Set for a recursive bind: its source, by which the mounts that it brought along are known. They go with it.</summary>
    public string? RecursiveSource { get; init; }

    /// <summary>
    /// What was mounted. On kernels without unique ids only a mount of this source and type is unmounted; null: whatever is topmost.
    /// </summary>
    public MountSpec? Expected { get; init; }

    /// <summary>An id that no mount has: only the directories are dealt with.</summary>
    public const ulong NoMount = 0;
}

/// <summary>
/// From the options of <paramref name="Before"/> to those of <paramref name="After"/>; source and type are the same.
/// <paramref name="MountId"/> null: the topmost mount at the path (kernels without unique ids).
/// </summary>
public sealed record RemountOrder(string Mountpoint, ulong? MountId, MountSpec Before, MountSpec After);

public abstract record RemountResult
{
    private RemountResult() { }

    public sealed record Remounted : RemountResult;

    /// <summary>The mount has the options that it had before.</summary>
    public sealed record Failed(KernelError Error) : RemountResult;

    public sealed record Unknown(string Reason) : RemountResult;
}

public abstract record UnmountResult
{
    private UnmountResult() { }

    public sealed record Unmounted(ImmutableArray<string> DirectoriesRemoved) : UnmountResult;

    /// <summary>The mount was gone before we came; the directories were dealt with all the same.</summary>
    public sealed record NotMounted(ImmutableArray<string> DirectoriesRemoved) : UnmountResult;

    /// <summary>The mount is still there.</summary>
    public sealed record Failed(KernelError Error) : UnmountResult;

    public sealed record Unknown(string Reason) : UnmountResult;
}
