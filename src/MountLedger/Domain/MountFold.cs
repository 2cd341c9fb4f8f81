using System.Collections.Immutable;

namespace MountLedger;

/// <summary>What each event does to the state of a mountpoint; one line of the contract each.</summary>
internal static class MountFold
{
    public static MountState Apply(MountState state, MountEvent change, DateTimeOffset at, string actor) => change switch
    {
        MountEvent.MountRequested e => state with
        {
            Spec = e.Spec(),
            Generation = e.Generation,
            Error = null,
            Released = false,
            Remount = null,
            // Of an absent mountpoint the directories have been swept; what is there now is somebody else's.
            OwnedDirectories = state is { Kernel: null, Operation: null, Attachments.IsEmpty: true } ? [] : state.OwnedDirectories,
        },
        MountEvent.AttachmentAdded e => Add(state, e, at, actor),
        MountEvent.AttachmentRemoved e => Remove(state, e),
        MountEvent.MountStarted e => state with
        {
            Operation = new Operation(
                OperationKind.Mount, state.Version + 1, e.Generation, state.Spec, e.BootId, e.MountNamespaceId, e.MountId, UnmountMode.Normal,
                e.DirectoriesToCreate),
        },
        MountEvent.Mounted e => Finished(state) is var done && state.WantedOrStartedSpec() is { } spec
            ? Confirmed(done with
            {
                Kernel = new KernelMount(e.BootId, e.MountNamespaceId, e.MountId, spec, Adopted: false),
                OwnedDirectories = Union(state.OwnedDirectories, e.DirectoriesCreated),
                MountedOverEmpty = e.OverEmptyDirectory,
                Error = null,
                UncertainInARow = 0,
            })
            : Finished(state),
        MountEvent.MountFailed e => Unwanted(Finished(state) with
        {
            UncertainInARow = 0,
            Error = state.IsSuperseded
                ? null
                : new OperationError(OperationKind.Mount, e.Errno, e.Message, [], e.Attempt, e.RetryAt, state.Version + 1),
        }),
        MountEvent.MountAdopted e when state.Spec is { } spec => Confirmed(Finished(state) with
        {
            Kernel = new KernelMount(e.BootId, e.MountNamespaceId, e.MountId, spec, Adopted: !e.Ours),
            OwnedDirectories = e.Ours ? Union(state.OwnedDirectories, e.DirectoriesCreated ?? []) : state.OwnedDirectories,
            UnmountWanted = null,
            MountedOverEmpty = false,
            Error = null,
        }),
        MountEvent.MountKept => Confirmed(state with { UnmountWanted = null, Error = null }),
        MountEvent.UnmountRequested e => state with { UnmountWanted = e.Mode, Error = Due(state.Error), Remount = null },
        MountEvent.UnmountStarted e => state with
        {
            Operation = new Operation(
                OperationKind.Unmount, state.Version + 1, state.Generation, state.Kernel?.Spec, e.BootId, e.MountNamespaceId, e.MountId, e.Mode, []),
        },
        MountEvent.Unmounted e => Gone(Finished(state) with { Error = null, Released = e.Released, UncertainInARow = 0 }, e.DirectoriesRemoved),
        MountEvent.UnmountFailed e => Finished(state) with
        {
            UncertainInARow = 0,
            Error = new OperationError(
                OperationKind.Unmount, e.Errno, e.Message, e.Holders, e.Attempt,
                // Somebody asked for another mode while this one was being tried: that one is due at once.
                state.Operation is { } tried && state.UnmountWanted is { } wanted && wanted != tried.Mode ? null : e.RetryAt,
                state.Version + 1),
        },
        MountEvent.OperationUncertain e => state with { Uncertain = true, UncertainReason = e.Reason, UncertainInARow = state.UncertainInARow + 1 },
        MountEvent.OperationSettled e => e.Found == SettledAs.Mounted
            ? Finished(state)
            // What a mount that did not take effect may have created on its way is ours.
            : Unwanted(Finished(state) with
            {
                Kernel = null,
                OwnedDirectories = Union(state.OwnedDirectories, state.Operation?.Directories ?? []),
            }),
        MountEvent.RemountRequested e when state.Spec is { } spec => state with
        {
            Remount = new PendingRemount(spec with { Options = e.Options }, e.Generation),
            Error = state.Error is { Operation: OperationKind.Remount } ? null : state.Error,
        },
        MountEvent.RemountStarted e => state with
        {
            Operation = new Operation(
                OperationKind.Remount, state.Version + 1, e.Generation, state.Remount?.Spec ?? state.Spec, e.BootId, e.MountNamespaceId, e.MountId,
                UnmountMode.Normal, []),
        },
        MountEvent.Remounted e => Changed(state, e),
        MountEvent.RemountFailed e => Finished(state) with
        {
            Remount = null,
            UncertainInARow = 0,
            Error = new OperationError(OperationKind.Remount, e.Errno, e.Message, [], 1, null, state.Version + 1),
        },
        MountEvent.DriftDetected e => Drifted(state with { Drift = state.Drift.SetItem(e.Kind, e.Detail) }, e.Kind),
        MountEvent.DriftResolved e => state with
        {
            Drift = state.Drift.Remove(e.Kind),
            // Looked at and settled: the next mount may cover what is there now.
            MountedOverEmpty = state.MountedOverEmpty && e.Kind != DriftKind.ShadowedData,
        },
        MountEvent.RepairPaused => state with { RepairPaused = true },
        MountEvent.RepairResumed => state with { RepairPaused = false },
        _ => state,
    };

    private static MountState Add(MountState state, MountEvent.AttachmentAdded e, DateTimeOffset at, string actor)
    {
        var key = new AttachmentKey(e.Volume, e.Consumer);
        if (state.Attachments.ContainsKey(key)) return state;
        // What is there is on its way out, or is not what is wanted: a mount will be made for this one.
        var first = state.Attachments.IsEmpty
            && (state.Kernel is null || state.Kernel.Spec != state.Spec || state.Operation?.Kind == OperationKind.Unmount);
        var attachment = new Attachment(e.Volume, e.Consumer, e.OnFailure, Confirmed: false, first, at, actor);
        var joined = state with { Attachments = state.Attachments.With(attachment) };
        return joined.Holds
            ? joined with { Attachments = joined.Attachments.With(attachment with { Confirmed = true }) }
            : joined;
    }

    private static MountState Remove(MountState state, MountEvent.AttachmentRemoved e)
    {
        var key = new AttachmentKey(e.Volume, e.Consumer);
        if (!state.Attachments.ContainsKey(key)) return state;
        var left = state with { Attachments = state.Attachments.Without(key) };
        return left.Attachments.IsEmpty ? left with { LastHolder = key } : left;
    }

    private static MountState Finished(MountState state) => state with { Operation = null, Uncertain = false, UncertainReason = null };

    /// <summary>The wanted mount holds: whoever waits for it has seen it hold once.</summary>
    private static MountState Confirmed(MountState state)
    {
        if (!state.Holds || state.Attachments.All(attachment => attachment.Confirmed)) return state;
        return state with { Attachments = state.Attachments.Confirmed() };
    }

    /// <summary>
    /// The mount has other options now. They are the wanted ones unless everybody has left meanwhile: then somebody may want others.
    /// </summary>
    private static MountState Changed(MountState state, MountEvent.Remounted e)
    {
        var made = state.Operation is { Kind: OperationKind.Remount, Spec: { } started } ? started : state.Remount?.Spec ?? state.Spec;
        if (made is null) return Finished(state) with { Generation = e.Generation };
        var changed = Finished(state) with { Kernel = state.Kernel is { } kernel ? kernel with { Spec = made } : null, Error = null, UncertainInARow = 0 };
        return state.Remount is null && state.Operation is not null
            ? changed
            : changed with { Spec = made, Generation = e.Generation, Remount = null };
    }

    private static MountState Gone(MountState state, ImmutableArray<string> directoriesRemoved) => Unwanted(state with
    {
        Kernel = null,
        OwnedDirectories = state.Attachments.IsEmpty ? [] : [.. state.OwnedDirectories.Except(directoriesRemoved)],
    });

    /// <summary>Without a mount there is nothing to unmount or to change.</summary>
    private static MountState Unwanted(MountState state) =>
        state.Kernel is null && state.Operation is null ? state with { UnmountWanted = null, Remount = null } : state;

    private static MountState Drifted(MountState state, DriftKind kind) =>
        kind == DriftKind.Missing && state.Operation is null ? Unwanted(state with { Kernel = null, Error = null }) : state;

    private static OperationError? Due(OperationError? error) => error is null ? null : error with { RetryAt = null };

    private static MountSpec? WantedOrStartedSpec(this MountState state) => state.Operation?.Spec ?? state.Spec;

    private static ImmutableArray<string> Union(ImmutableArray<string> first, ImmutableArray<string> second) =>
        second.IsEmpty ? first : [.. first.Union(second).Order(StringComparer.Ordinal)];
}
