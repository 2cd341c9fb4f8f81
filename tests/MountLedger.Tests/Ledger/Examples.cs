using System.Collections.Immutable;

namespace MountLedger.Tests.Ledger;

/// <summary>
/// One fixed instance of each event: what the golden files hold. A stored event never changes, so neither does an entry;
/// a new event adds one.
/// </summary>
internal static class Examples
{
    private static readonly DateTimeOffset At = new(2026, 1, 31, 8, 0, 0, 123, 456, TimeSpan.Zero);

    private const string Boot = "7b3c9d2e-1f4a-4c58-9e60-2a7d8c1b5f03";

    private const ulong Namespace = 4_026_531_841;

    public static IReadOnlyList<LedgerEvent> All { get; } =
    [
        new MountEvent.MountRequested("/srv/größe.img", "ext4", ["nodev", "nosuid", "ro"], 3),
        new MountEvent.AttachmentAdded("vol-1", "vm <1> & 'ä'", OnFailure.Retry),
        new MountEvent.AttachmentRemoved("vol-1", "vm-1", RemovalReason.MountFailed),
        new MountEvent.MountStarted(3, Boot, Namespace, 9_007_199_254_740_993, ["/srv/ml/a", "/srv/ml/a/b"]),
        new MountEvent.Mounted(Boot, Namespace, 2_147_483_655, ["/srv/ml/a"], true),
        new MountEvent.MountFailed("EIO", "mount /dev/sda1 at /srv/ml/a: EIO", true, 2, At),
        new MountEvent.MountAdopted(Boot, Namespace, null),
        new MountEvent.MountKept(),
        new MountEvent.UnmountRequested(UnmountMode.Lazy),
        new MountEvent.UnmountStarted(UnmountMode.Normal, Boot, Namespace, 2_147_483_655),
        new MountEvent.Unmounted(false, ["/srv/ml/a"]),
        new MountEvent.UnmountFailed("EBUSY", "busy", true, [new MountHolder(4711, "sleep", ["cwd", "open"])], 1, At),
        new MountEvent.OperationUncertain(OperationKind.Mount, "the worker died"),
        new MountEvent.OperationSettled(OperationKind.Unmount, SettledAs.Absent, null),
        new MountEvent.RemountRequested(["nodev", "nosuid", "ro"], 4),
        new MountEvent.RemountStarted(4, Boot, Namespace, 2_147_483_655),
        new MountEvent.Remounted(4),
        new MountEvent.RemountFailed("EINVAL", "refused"),
        new MountEvent.DriftDetected(DriftKind.SourceMismatch, "/dev/sdb1"),
        new MountEvent.DriftResolved(DriftKind.LedgerBehind, null),
        new MountEvent.RepairPaused("disk swap"),
        new MountEvent.RepairResumed(),
        new HostEvent.AgentStarted(7, "agent-1", "4f2a", Boot, "6.18.0", "0.1.0"),
        new HostEvent.HostUp(null),
        new HostEvent.HostDown("maintenance"),
        new HostEvent.ConsumersSynced(At, 12, 3),
    ];

    public static string StreamOf(LedgerEvent change) => change is HostEvent ? HostEvent.StreamId : "/srv/ml/a";
}
