namespace MountLedger;

/// <summary>What the executor does next with a mountpoint; the stored form is the kebab-case name.</summary>
public enum ActionKind
{
    /// <summary>Desired and known state agree, or it is somebody else's turn.</summary>
    None,

    /// <summary>Make the wanted mount.</summary>
    Mount,

    /// <summary>Take the mount away.</summary>
    Unmount,

    /// <summary>Give the mount the options that are wanted by now.</summary>
    Remount,

    /// <summary>Somebody attached while an unmount was pending: record that the mount stays.</summary>
    Keep,

    /// <summary>Nobody needs an adopted mount any more: record that it is let go.</summary>
    Release,

    /// <summary>The outcome of an operation is not known: look, and record what is found.</summary>
    Settle,
}

/// <summary>The next action and when it is due; <paramref name="DueAt"/> null means at once.</summary>
public readonly record struct NextAction(ActionKind Kind, DateTimeOffset? DueAt = null)
{
    public bool IsDue(DateTimeOffset now) => Kind != ActionKind.None && (DueAt is null || DueAt <= now);
}

/// <summary>
/// The flow of a mountpoint: a pure function from its state to what the executor does next. It knows nothing of other
/// mountpoints, of the host being down, or of the kernel; the executor asks those before it acts.
/// </summary>
public static class MountFlow
{
    public static NextAction NextAction(MountState state)
    {
        if (state.IsBehind) return new(ActionKind.None);

        // An operation that this state shows in flight was started by somebody who has not recorded its outcome. The one
        // who runs it holds the mountpoint and does not ask; anybody else that asks finds it abandoned.
        if (state.Operation is not null || state.Uncertain) return new(ActionKind.Settle);

        if (state.Kernel is null)
        {
            if (state.Attachments.IsEmpty) return new(ActionKind.None);
            if (state.Drift.ContainsKey(DriftKind.Missing) && (state.RepairPaused || state.Drift.ContainsKey(DriftKind.ShadowedData)))
                return new(ActionKind.None);
            return new(ActionKind.Mount, RetryOf(state, OperationKind.Mount));
        }

        if (state.Holds) return new(state.Remount is null ? ActionKind.None : ActionKind.Remount);

        var wanted = !state.Attachments.IsEmpty && state.Kernel.Spec == state.Spec;
        if (wanted) return new(ActionKind.Keep);
        return state.Kernel.Adopted
            ? new(ActionKind.Release)
            : new(ActionKind.Unmount, RetryOf(state, OperationKind.Unmount));
    }

    private static DateTimeOffset? RetryOf(MountState state, OperationKind kind) =>
        state.Error is { } error && error.Operation == kind ? error.RetryAt : null;
}
