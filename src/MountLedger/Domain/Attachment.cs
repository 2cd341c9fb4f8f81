namespace MountLedger;

/// <summary>Who counts as one reference: the same pair attached twice is one attachment.</summary>
public readonly record struct AttachmentKey(string Volume, string Consumer)
{
    /// <summary>Ordinal, by volume and then consumer: the order of every list of attachments.</summary>
    public static readonly IComparer<AttachmentKey> Order = Comparer<AttachmentKey>.Create(static (a, b) =>
    {
        var byVolume = string.CompareOrdinal(a.Volume, b.Volume);
        return byVolume != 0 ? byVolume : string.CompareOrdinal(a.Consumer, b.Consumer);
    });
}

/// <summary>
/// A (volume, consumer) pair that needs the mountpoint. <paramref name="Confirmed"/>: its mount has been seen to hold
/// once. <paramref name="First"/>: it was the one that the mount was made for, so repeating it is answered <c>mounted</c>,
/// not <c>attached</c>. <paramref name="Since"/>: the database's time of <c>attachment_added</c>.
/// </summary>
public sealed record Attachment(
    string Volume, string Consumer, OnFailure OnFailure, bool Confirmed, bool First, DateTimeOffset Since, string Actor)
{
    public AttachmentKey Key => new(Volume, Consumer);
}

/// <summary>What becomes of an attachment that was never confirmed when its mount fails (rule 9).</summary>
public enum OnFailure { Forget, Retry }

/// <summary>How an unmount is done; lazy and force only ever because somebody asked for it.</summary>
public enum UnmountMode { Normal, Lazy, Force }

/// <summary>What the ledger says of a mountpoint.</summary>
public enum Phase { Absent, Mounting, Mounted, Unmounting, Failed, Uncertain }

/// <summary>What the executor does to a mountpoint.</summary>
public enum OperationKind { Mount, Unmount, Remount }

/// <summary>Differences between desired and observed that nobody asked for.</summary>
public enum DriftKind { Missing, SourceMismatch, OptionsMismatch, Stacked, Foreign, Moved, Stale, ShadowedData, LedgerBehind }
