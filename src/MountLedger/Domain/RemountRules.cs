using System.Collections.Immutable;

namespace MountLedger;

/// <summary>
/// The rules of changing the options of a live mount (ADR 0017). The wanted spec becomes the mountpoint's only once it holds:
/// a change that fails leaves spec and generation as they were.
/// </summary>
internal static class RemountRules
{
    public static Decision Decide(MountCommand.Remount command, MountState state)
    {
        if (state.Spec is not { } current || state.Attachments.IsEmpty || !(state.Holds || state.Remount is not null))
            return new Decision.Reject(new Rejection.NotMounted(state.Mountpoint, state.Phase));
        if (NotPermitted(command, state) is { } refused) return new Decision.Reject(refused);
        if (state.Remount is not null || state.Operation is not null)
            return new Decision.Reject(new Rejection.RemountPending(state.Mountpoint));

        var errors = new InputErrors();
        if (SpecRules.Changed(current, command.Options, command.Policy, errors) is not { } wanted) return new Decision.Invalid(errors);
        return new Decision.Accept(wanted == current
            ? []
            : [new MountEvent.RemountRequested(wanted.Options, state.Generation + 1)]);
    }

    /// <summary>Whether the mountpoint's spec has the options that a command asks for.</summary>
    public static bool AreThere(MountCommand.Remount command, MountState state) =>
        state.Spec is { } spec && SpecRules.Changed(spec, command.Options, command.Policy, new InputErrors()) == spec;

    /// <summary>
    /// Rule 13 of a remount. It is safe to do again once it is known that nobody else does it, so that is what happens when it
    /// is not in effect (or only in part): the request is still there.
    /// </summary>
    public static ImmutableArray<MountEvent> Settled(MountState state, Operation operation, ObservedMount? ours, Observation found)
    {
        if (ours is { Matches: true }) return [new MountEvent.Remounted(operation.Generation)];
        if (ours is null)
        {
            return
            [
                found.Top is { } foreign
                    ? new MountEvent.OperationSettled(operation.Kind, SettledAs.Foreign, foreign.Described)
                    : new MountEvent.OperationSettled(operation.Kind, SettledAs.Absent, null),
                .. state.Attachments.IsEmpty ? OutcomeRules.NotNeeded(state) : [],
            ];
        }
        return state.UncertainInARow >= OutcomeRules.UncertainInARowMax
            ? [new MountEvent.RemountFailed(
                "ETIMEDOUT",
                $"remount {state.Mountpoint}: its outcome was unknown {state.UncertainInARow} times in a row (the worker died or did not answer "
                + "in time), and the options that were asked for do not hold")]
            : [new MountEvent.OperationSettled(operation.Kind, SettledAs.Mounted, "the options that were asked for do not hold yet")];
    }

    private static Rejection.NotPermitted? NotPermitted(MountCommand.Remount command, MountState state) => state switch
    {
        _ when command.ByAdmin => null,
        { Kernel.Adopted: true } => new Rejection.NotPermitted(state.Mountpoint, "MountLedger did not make this mount"),
        { Attachments.Count: > 1 } => new Rejection.NotPermitted(state.Mountpoint, $"it has {state.Attachments.Count} attachments"),
        _ when state.Attachments.First().Actor == command.Actor => null,
        _ => new Rejection.NotPermitted(state.Mountpoint, $"its only attachment was made by {state.Attachments.First().Actor}"),
    };
}
