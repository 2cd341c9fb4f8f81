namespace MountLedger;

/// <summary>
/// A command that the rules of the mountpoint refuse; nothing was recorded. <see cref="Name"/> ends the <c>type</c> of
/// the HTTP problem and is what a program looks at; <see cref="Message"/> is for people and says what to do.
/// </summary>
public abstract record Rejection
{
    private Rejection(string name) => Name = name;

    public string Name { get; }

    public abstract string Message { get; }

    /// <summary>Rule 4: attached already, with another spec; <paramref name="Differing"/> names the members that differ.</summary>
    public sealed record SpecConflict(string Mountpoint, MountSpec Current, MountSpec Requested, IReadOnlyList<string> Differing)
        : Rejection("spec-conflict")
    {
        public override string Message =>
            $"{Mountpoint} is in use as {Current}; the request differs in {string.Join(", ", Differing)} ({Requested}): "
            + "ask for the same, use another mountpoint, or wait until its attachments are gone";
    }

    /// <summary>Rule 11: something that MountLedger did not mount is there, and is not what was asked for.</summary>
    public sealed record ForeignMount(string Mountpoint, string Found, IEnumerable<string> Differing) : Rejection("foreign-mount")
    {
        public override string Message =>
            $"{Mountpoint} carries a mount that MountLedger did not make ({Found}); it differs in {string.Join(", ", Differing)}: "
            + "unmount it by hand or use another mountpoint";
    }

    /// <summary>Rule 12.</summary>
    public sealed record HostUnavailable(string Host, string? Reason) : Rejection("host-unavailable")
    {
        public override string Message =>
            $"host {Host} is down for new mounts{(Reason is null ? "" : $" ({Reason})")}: use another host, or `mountledger host up`";
    }

    /// <summary>Rule 14: the new mount would cover a managed one.</summary>
    public sealed record WouldHide(string Mountpoint, string Descendant) : Rejection("would-hide")
    {
        public override string Message =>
            $"a mount at {Mountpoint} would hide the managed mountpoint {Descendant}: unmount that one first";
    }

    /// <summary>Rule 7: lazy and force take the mount away from others too.</summary>
    public sealed record InUse(string Mountpoint, int OtherHolders) : Rejection("in-use")
    {
        public override string Message =>
            $"{Mountpoint} has {OtherHolders} other attachment{(OtherHolders == 1 ? "" : "s")}: "
            + "a lazy or forced unmount is only for the last one; detach without it";
    }

    /// <summary>There is no mount that holds, so that its options could be changed.</summary>
    public sealed record NotMounted(string Mountpoint, Phase Phase) : Rejection("not-mounted")
    {
        public override string Message => Phase == Phase.Absent
            ? $"nothing is mounted at {Mountpoint}: mount it with the options that are wanted"
            : $"{Mountpoint} is {Phase.ToString().ToLowerInvariant()}: change its options once it is mounted";
    }

    /// <summary>Only the sole holder, or an administrator, may change a mount.</summary>
    public sealed record NotPermitted(string Mountpoint, string Why) : Rejection("not-permitted")
    {
        public override string Message => $"the options of {Mountpoint} cannot be changed by this user, as {Why}: ask a user that the agent's setting `admins` names";
    }

    /// <summary>The options of the mount are being changed: who joins would not know which ones he gets.</summary>
    public sealed record RemountPending(string Mountpoint) : Rejection("remount-pending")
    {
        public override string Message => $"the options of {Mountpoint} are being changed: try again in a moment";
    }

    /// <summary>The ledger is older than what the agent has seen of this mountpoint: whatever was decided from it could be wrong.</summary>
    public sealed record LedgerBehind(string Mountpoint) : Rejection("ledger-behind")
    {
        public override string Message =>
            $"the ledger is older than what this agent has recorded of {Mountpoint} (it was restored from a backup?): an operator has to say which side is right, "
            + "`mountledger reconcile --ledger-behind keep-mounts` or `trust-ledger`";
    }

    /// <summary>A bound of the attachment projection.</summary>
    public sealed record TooManyAttachments(string Mountpoint, int Max) : Rejection("too-many-attachments")
    {
        public override string Message => $"{Mountpoint} has {Max} attachments, which is the most that one can have: detach some first";
    }

    /// <summary>The stream is not at the version that the caller asked for, or keeps changing faster than this command can be decided.</summary>
    public sealed record VersionConflict(string Mountpoint, long? Expected, long Actual) : Rejection("version-conflict")
    {
        public override string Message => Expected is { } expected
            ? $"{Mountpoint} is at version {Actual}, not {expected}: read it again and decide again"
            : $"{Mountpoint} changed again and again while this command was decided (now version {Actual}): try again";
    }
}
