using System.Collections.Immutable;

namespace MountLedger.Tests.Rules;

/// <summary>The few volumes, specs, commands and events that the examples of the rules are told with.</summary>
internal static class Vocabulary
{
    public const string Mountpoint = "/srv/ml/a";
    public const string Boot = "boot-1";
    public const string OtherBoot = "boot-2";
    public const ulong Namespace = 4_026_531_841;
    public const ulong Id = 7_000_000_001;

    public static readonly StreamKey Stream = new("host-1", Mountpoint);
    public static readonly DateTimeOffset Start = new(2026, 1, 31, 8, 0, 0, TimeSpan.Zero);
    public static readonly KernelIdentity Kernel = new(Boot, Namespace);

    public static readonly MountSpec Spec = new("tmpfs", "tmpfs", ["nodev", "nosuid"]);
    public static readonly MountSpec OtherSpec = new("tmpfs", "tmpfs", ["nodev", "nosuid", "size=1g"]);

    public static readonly AttachmentKey A = new("vol-1", "vm-a");
    public static readonly AttachmentKey B = new("vol-1", "vm-b");
    public static readonly AttachmentKey C = new("vol-2", "vm-a");

    public static readonly DecisionContext Free = new(Kernel);
    public static readonly DecisionContext Down = new(Kernel, HostIsUp: false, HostDownReason: "disk swap");

    public static readonly KernelError Broken = KernelError.Of(OperationKind.Mount, "EIO", "mount tmpfs: EIO", transient: true);
    public static readonly KernelError Busy = new(
        OperationKind.Unmount, "EBUSY", "unmount: EBUSY", Transient: true, [new MountHolder(4711, "sleep", ["cwd"])]);

    public static MountCommand.Mount Attach(AttachmentKey who, MountSpec? spec = null, OnFailure onFailure = OnFailure.Forget) =>
        new("command-1", "root", Stream, spec ?? Spec, who, onFailure);

    public static MountCommand.Unmount Detach(AttachmentKey who, UnmountMode mode = UnmountMode.Normal) =>
        new("command-2", "root", Stream, who, mode);

    public static MountEvent Requested(long generation = 1, MountSpec? spec = null) =>
        new MountEvent.MountRequested((spec ?? Spec).Source, (spec ?? Spec).FsType, (spec ?? Spec).Options, generation);

    public static MountEvent Added(AttachmentKey who, OnFailure onFailure = OnFailure.Forget) =>
        new MountEvent.AttachmentAdded(who.Volume, who.Consumer, onFailure);

    public static MountEvent Removed(AttachmentKey who, RemovalReason reason = RemovalReason.Detached) =>
        new MountEvent.AttachmentRemoved(who.Volume, who.Consumer, reason);

    public static MountEvent MountStarted(long generation = 1, ulong? id = Id, params string[] toCreate) =>
        new MountEvent.MountStarted(generation, Boot, Namespace, id, [.. toCreate]);

    public static MountEvent Mounted(ulong? id = Id, params string[] created) => new MountEvent.Mounted(Boot, Namespace, id, [.. created]);

    public static MountEvent Adopted(ulong? id = Id) => new MountEvent.MountAdopted(Boot, Namespace, id);

    public static MountEvent Kept() => new MountEvent.MountKept();

    public static MountEvent UnmountRequested(UnmountMode mode = UnmountMode.Normal) => new MountEvent.UnmountRequested(mode);

    public static MountEvent UnmountStarted(UnmountMode mode = UnmountMode.Normal, ulong? id = Id) =>
        new MountEvent.UnmountStarted(mode, Boot, Namespace, id);

    public static MountEvent Unmounted(params string[] removed) => new MountEvent.Unmounted(Released: false, [.. removed]);

    public static MountEvent Released() => new MountEvent.Unmounted(Released: true, []);

    public static MountEvent MountFailed(int attempt = 1, DateTimeOffset? retryAt = null) =>
        new MountEvent.MountFailed(Broken.Errno, Broken.Message, Broken.Transient, attempt, retryAt);

    public static MountEvent UnmountFailed(int attempt = 1, DateTimeOffset? retryAt = null) =>
        new MountEvent.UnmountFailed(Busy.Errno, Busy.Message, Busy.Transient, Busy.Holders, attempt, retryAt);

    public static MountEvent Uncertain(OperationKind kind) => new MountEvent.OperationUncertain(kind, "the worker died");

    public static MountEvent Settled(OperationKind kind, SettledAs found, string? detail = null) =>
        new MountEvent.OperationSettled(kind, found, detail);

    public static MountEvent Drift(DriftKind kind, string? detail = null) => new MountEvent.DriftDetected(kind, detail);

    public static MountEvent Resolved(DriftKind kind, string? detail = null) => new MountEvent.DriftResolved(kind, detail);

    public static MountEvent Paused() => new MountEvent.RepairPaused(null);

    public static MountEvent Resumed() => new MountEvent.RepairResumed();

    /// <summary>A mount of the kernel as the executor sees it; without <paramref name="differences"/> it is what was asked for.</summary>
    public static ObservedMount Seen(ulong? id = Id, params string[] differences) => new(
        id, 30, 20, Mountpoint, "ext4", "/dev/sdb1", "/", ["rw"], ["rw"], [.. differences]);

    /// <summary>What is at the path, the topmost first.</summary>
    public static Observation Found(params ObservedMount[] mounts) => new([.. mounts], DirectoryExists: true);
}
