using System.Collections.Immutable;

namespace MountLedger;

/// <summary>
/// What the executor records for what it saw: pure, and decided again on the newest state when the append conflicts with
/// somebody who attached or detached meanwhile.
/// </summary>
public static class OutcomeRules
{
    public const int RetryDelayMinMs = 500;
    public const int RetryDelayMaxMs = 120_000;

    /// <summary>How often in a row the outcome of an operation may be unknown before it counts as failed.</summary>
    public const int UncertainInARowMax = 2;

    /// <summary>Exponential backoff (rule 9): 0.5 s, 1 s, 2 s … at most 2 min. <paramref name="attempt"/> counts from 1.</summary>
    public static TimeSpan RetryDelay(int attempt) =>
        TimeSpan.FromMilliseconds(Math.Min(RetryDelayMaxMs, RetryDelayMinMs * Math.Pow(2, Math.Min(attempt - 1, 20))));

    /// <summary>The mount holds; what was reported missing is no longer.</summary>
    public static ImmutableArray<MountEvent> Mounted(
        MountState state, KernelIdentity kernel, ulong? mountId, ImmutableArray<string> directoriesCreated,
        bool overEmptyDirectory = false) =>
    [
        new MountEvent.Mounted(kernel.BootId, kernel.MountNamespaceId, mountId, directoriesCreated, overEmptyDirectory),
        .. DriftRules.Over(state, "mounted again"),
    ];

    public static ImmutableArray<MountEvent> Adopted(MountState state, KernelIdentity kernel, ulong? mountId) =>
    [
        new MountEvent.MountAdopted(kernel.BootId, kernel.MountNamespaceId, mountId), .. DriftRules.Over(state, "mounted again"),
        .. state.Drift.ContainsKey(DriftKind.Foreign) ? [new MountEvent.DriftResolved(DriftKind.Foreign, "adopted")] : ImmutableArray<MountEvent>.Empty,
    ];

    /// <summary>
    /// Rule 9: the failure, and with it everybody who was never confirmed and did not ask for retries. Tried again only
    /// when somebody is left.
    /// </summary>
    public static ImmutableArray<MountEvent> MountFailed(MountState state, KernelError error, DateTimeOffset now)
    {
        var attempt = AttemptOf(state, OperationKind.Mount);
        // Everybody left, and somebody else wants another spec: that one has not been tried yet.
        if (state.IsSuperseded) return [new MountEvent.MountFailed(error.Errno, error.Message, error.Transient, attempt, RetryAt: null)];

        var forgotten = state.Attachments
            .Where(attachment => !attachment.Confirmed && attachment.OnFailure == OnFailure.Forget)
            .Select(attachment => (MountEvent)new MountEvent.AttachmentRemoved(
                attachment.Volume, attachment.Consumer, RemovalReason.MountFailed))
            .ToImmutableArray();
        DateTimeOffset? retryAt = forgotten.Length < state.Attachments.Count ? now + RetryDelay(attempt) : null;
        return [new MountEvent.MountFailed(error.Errno, error.Message, error.Transient, attempt, retryAt), .. forgotten, .. retryAt is null ? NotNeeded(state) : []];
    }

    /// <summary>The mount is gone, and with it whatever was wrong with it.</summary>
    public static ImmutableArray<MountEvent> Unmounted(MountState state, bool released, ImmutableArray<string> directoriesRemoved) =>
        [new MountEvent.Unmounted(released, directoriesRemoved), .. DriftRules.Over(state, released ? "released" : "unmounted")];

    /// <summary>Rule 10: the mount stays, and is tried again.</summary>
    public static ImmutableArray<MountEvent> UnmountFailed(MountState state, KernelError error, DateTimeOffset now)
    {
        var attempt = AttemptOf(state, OperationKind.Unmount);
        return
        [
            new MountEvent.UnmountFailed(
                error.Errno, error.Message, error.Transient, error.Holders, attempt, now + RetryDelay(attempt)),
        ];
    }

    /// <summary>Rule 13: what a look at the kernel says of an operation whose outcome nobody recorded.</summary>
    public static ImmutableArray<MountEvent> Settled(
        MountState state, Observation found, KernelIdentity identity, DateTimeOffset now)
    {
        if (state.Operation is not { } operation)
        {
            var believed = state.Kernel is null ? SettledAs.Absent : SettledAs.Mounted;
            return [new MountEvent.OperationSettled(OperationKind.Mount, believed, "no operation is recorded")];
        }


        var ours = OursAmong(found, operation, identity);
        var again = state.UncertainInARow >= UncertainInARowMax;
        return operation.Kind switch
        {
            // Once is bad luck. What takes its worker with it each time is told as a failure and waits between tries.
            OperationKind.Remount => RemountRules.Settled(state, operation, ours, found),
            OperationKind.Mount when ours is null && again => MountFailed(state, NoOutcome(state, operation), now),
            OperationKind.Unmount when ours is not null && again => UnmountFailed(state, NoOutcome(state, operation), now),
            OperationKind.Unmount when ours is null => Unmounted(state, released: false, []),
            OperationKind.Mount when ours is not null => Mounted(state, identity, ours.MountId, operation.Directories),
            _ when ours is not null => [new MountEvent.OperationSettled(operation.Kind, SettledAs.Mounted, null)],
            _ =>
            [
                found.Top is { } foreign
                    ? new MountEvent.OperationSettled(operation.Kind, SettledAs.Foreign, foreign.Described)
                    : new MountEvent.OperationSettled(operation.Kind, SettledAs.Absent, null),
                .. state.Attachments.IsEmpty ? NotNeeded(state) : [],
            ],
        };
    }

    private static KernelError NoOutcome(MountState state, Operation operation) => KernelError.Of(
        operation.Kind, "ETIMEDOUT",
        $"{(operation.Kind == OperationKind.Mount ? "mount" : "unmount")} {state.Mountpoint}: its outcome was unknown {state.UncertainInARow} times "
        + "in a row (the worker died or did not answer in time), and it did not take effect",
        transient: true);

    /// <summary>
    /// The mount of this operation among what is at its path, however deep in a stack. Without unique ids (older
    /// kernels), one that was made in this boot and namespace and matches the spec.
    /// </summary>
    public static ObservedMount? OursAmong(Observation found, Operation operation, KernelIdentity identity)
    {
        if (!operation.IsOf(identity)) return null;
        // A mount that is being changed may match neither what it was nor what it shall be.
        if (operation is { Kind: OperationKind.Remount, MountId: null }) return found.Top;
        return operation.MountId is { } id
            ? found.Mounts.FirstOrDefault(mount => mount.MountId == id)
            : found.Mounts.FirstOrDefault(mount => mount.Matches);
    }

    /// <summary>Once the last holder has left without a mount: what nobody needs is not missing.</summary>
    public static ImmutableArray<MountEvent> NotNeeded(MountState state) =>
        DriftRules.Over(state, "no longer needed");

    private static int AttemptOf(MountState state, OperationKind kind) =>
        state.Error is { } error && error.Operation == kind ? error.Attempt + 1 : 1;
}
