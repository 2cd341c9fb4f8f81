using System.Collections.Immutable;

namespace MountLedger;

/// <summary>What a command came to: events to record (none for an idempotent repeat), or a rejection.</summary>
public abstract record Decision
{
    private Decision() { }

    public sealed record Accept(ImmutableArray<MountEvent> Events) : Decision;

    public sealed record Reject(Rejection Rejection) : Decision;

    /// <summary>What was asked for makes no sense for the filesystem that is there; nothing is recorded.</summary>
    public sealed record Invalid(IReadOnlyList<InputError> Errors) : Decision;
}

/// <summary>
/// What a decision depends on besides the stream. <paramref name="Occupant"/>: the mount that is at the path although the
/// ledger knows of none, compared with the wanted spec; <paramref name="HiddenDescendant"/>: a managed mountpoint below.
/// </summary>
public sealed record DecisionContext(
    KernelIdentity Kernel, bool HostIsUp = true, string? HostDownReason = null, ObservedMount? Occupant = null,
    string? HiddenDescendant = null);

/// <summary>
/// The rules of a mountpoint (section 4 of the contract; the numbers in the comments are its). Pure: the same command on the
/// same state gives the same answer. What the executor records as outcomes is in <see cref="OutcomeRules"/>.
/// </summary>
public static class MountDecider
{
    /// <summary>How many attachments one mountpoint can have.</summary>
    public const int AttachmentsMax = 10_000;

    public static Decision Decide(MountCommand command, MountState state, DecisionContext context)
    {
        if (command.ExpectedVersion is { } expected && expected != state.Version)
            return Reject(new Rejection.VersionConflict(state.Mountpoint, expected, state.Version));

        if (state.IsBehind) return Reject(new Rejection.LedgerBehind(state.Mountpoint));

        return command switch
        {
            MountCommand.Mount mount => Attach(mount, state, context),
            MountCommand.Unmount unmount => Detach(unmount, state),
            MountCommand.Remount remount => RemountRules.Decide(remount, state),
            _ => throw new ArgumentOutOfRangeException(nameof(command), command, "not a command of a mountpoint"),
        };
    }

    private static Decision Attach(MountCommand.Mount command, MountState state, DecisionContext context)
    {
        // What will be is not a conflict, and not there yet.
        if (!state.Attachments.IsEmpty && state.Remount is { } change && change.Spec == command.Spec)
            return Reject(new Rejection.RemountPending(state.Mountpoint));

        var differing = state.Spec is { } current ? command.Spec.DifferencesFrom(current) : [];
        if (!state.Attachments.IsEmpty && differing.Count > 0) // rule 4
            return Reject(new Rejection.SpecConflict(state.Mountpoint, state.Spec!, command.Spec, differing));

        if (state.Attachments.ContainsKey(command.Attachment)) return Accept(); // rule 3

        if (state.Remount is not null) return Reject(new Rejection.RemountPending(state.Mountpoint));

        if (!context.HostIsUp) // rule 12
            return Reject(new Rejection.HostUnavailable(state.Stream.Host, context.HostDownReason));

        if (state.Attachments.Count >= AttachmentsMax)
            return Reject(new Rejection.TooManyAttachments(state.Mountpoint, AttachmentsMax));

        var added = new MountEvent.AttachmentAdded(
            command.Attachment.Volume, command.Attachment.Consumer, command.OnFailure);
        if (!state.Attachments.IsEmpty) return Accept(added); // rule 2

        var requested = new MountEvent.MountRequested(
            command.Spec.Source, command.Spec.FsType, command.Spec.Options, state.Generation + 1);
        return state is { Kernel: null, Operation: null, Uncertain: false }
            ? FirstAttach(state, context, requested, added)
            : AttachWhileLeaving(command, state, requested, added);
    }

    /// <summary>Rules 1, 11 and 14: nothing of ours is there.</summary>
    private static Decision FirstAttach(
        MountState state, DecisionContext context, MountEvent.MountRequested requested, MountEvent.AttachmentAdded added)
    {
        if (context.Occupant is not { } occupant)
        {
            return context.HiddenDescendant is { } descendant
                ? Reject(new Rejection.WouldHide(state.Mountpoint, descendant))
                : Accept(requested, added);
        }

        // What is there already hides nothing anew.

        if (!occupant.Matches)
        {
            return Reject(new Rejection.ForeignMount(
                state.Mountpoint, occupant.Described, occupant.Differences ?? ["source"]));
        }
        var adopted = new MountEvent.MountAdopted(context.Kernel.BootId, context.Kernel.MountNamespaceId, occupant.MountId);
        return state.Drift.ContainsKey(DriftKind.Foreign)
            ? Accept(requested, added, adopted, new MountEvent.DriftResolved(DriftKind.Foreign, "adopted"))
            : Accept(requested, added, adopted);
    }

    /// <summary>Rule 8: the last holder is gone, but the mount (or an operation on it) is not.</summary>
    private static Decision.Accept AttachWhileLeaving(
        MountCommand.Mount command, MountState state, MountEvent.MountRequested requested, MountEvent.AttachmentAdded added)
    {
        var events = ImmutableArray.CreateBuilder<MountEvent>(3);
        if (state.Spec != command.Spec) events.Add(requested);
        events.Add(added);
        // An operation in flight is waited for; only a mount that nobody is touching can be kept here and now.
        var untouched = state is { Kernel: not null, Operation: null, Uncertain: false };
        if (untouched && state.Kernel!.Spec == command.Spec) events.Add(new MountEvent.MountKept());
        return new Decision.Accept(events.ToImmutable());
    }

    private static Decision Detach(MountCommand.Unmount command, MountState state)
    {
        var known = state.Attachments.TryGetValue(command.Attachment, out var held);
        if (command.SyncedAsOf is { } asOf && !(known && held!.Since < asOf)) return Accept();
        var others = state.Attachments.Count - (known ? 1 : 0);
        if (command.Mode != UnmountMode.Normal && others > 0) // rule 7
            return Reject(new Rejection.InUse(state.Mountpoint, others));

        if (!known)
        {
            return MayEscalate(command, state)
                ? Accept(new MountEvent.UnmountRequested(command.Mode))
                : Accept(); // rule 7: noop, and the kernel is never touched
        }

        var removed = new MountEvent.AttachmentRemoved(
            command.Attachment.Volume, command.Attachment.Consumer, command.SyncedAsOf is null ? RemovalReason.Detached : RemovalReason.Synced);
        if (others > 0) return Accept(removed); // rule 5

        // rule 6
        return state switch
        {
            { Kernel: null, Operation: null, Uncertain: false } => Accept([removed, .. OutcomeRules.NotNeeded(state)]),
            { Kernel.Adopted: true, Operation: null, Uncertain: false } =>
                Accept([removed, .. OutcomeRules.Unmounted(state, released: true, [])]),
            _ => Accept(removed, new MountEvent.UnmountRequested(command.Mode)),
        };
    }

    /// <summary>Rule 7's exception: the last holder, or an administrator, repeats the pending unmount as lazy or forced.</summary>
    private static bool MayEscalate(MountCommand.Unmount command, MountState state) =>
        command.Mode != UnmountMode.Normal
        && state.Attachments.IsEmpty
        && (command.ByAdmin || state.LastHolder == command.Attachment)
        && (state.Phase == Phase.Unmounting || state is { Uncertain: true, Operation.Kind: OperationKind.Unmount })
        && state.UnmountWanted is { } wanted
        && (wanted != command.Mode || state.Error is { Operation: OperationKind.Unmount, RetryAt: not null });

    private static Decision.Accept Accept(params ReadOnlySpan<MountEvent> events) => new([.. events]);

    private static Decision.Reject Reject(Rejection rejection) => new(rejection);
}
