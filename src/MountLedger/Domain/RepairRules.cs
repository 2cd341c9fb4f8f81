namespace MountLedger;

/// <summary>What an operator's <c>reconcile</c> does about one difference.</summary>
public enum RepairKind
{
    /// <summary>Nothing, for a reason that is said.</summary>
    Leave,

    /// <summary>The wanted mount is made again.</summary>
    Mount,

    /// <summary>The mounts of others at the path are taken away, from the top down to ours, or all of them.</summary>
    UnmountStrangers,

    /// <summary>Our own mount, which nobody needs any more, is taken away now.</summary>
    Unmount,
}

/// <summary>A repair as it is shown before it is done; <paramref name="Text"/> says it in words.</summary>
public sealed record RepairPlan(DriftKind Drift, RepairKind Kind, string Text);

/// <summary>
/// Which repair follows from which difference (section 6 of the contract): pure. Only <c>missing</c> is repaired unasked; this is
/// what follows when an operator asks.
/// </summary>
public static class RepairRules
{
    public static RepairPlan Plan(MountState state, DriftKind drift, bool hostIsUp) => drift switch
    {
        DriftKind.LedgerBehind => new(
            drift, RepairKind.Leave,
            "say which side is right: `mountledger reconcile --ledger-behind keep-mounts` (what this agent remembers and the kernel has) or `trust-ledger`"),
        _ when state.IsBehind => new(drift, RepairKind.Leave, "the ledger is behind here: that has to be decided first"),
        _ when state.RepairPaused => new(drift, RepairKind.Leave, "repair is paused here: `mountledger resume` first"),
        DriftKind.Missing or DriftKind.ShadowedData when !hostIsUp => new(drift, RepairKind.Leave, "the host is down for mounts: `mountledger host up` first"),
        DriftKind.Missing => new(drift, RepairKind.Mount, $"mount {state.Spec} again"),
        DriftKind.ShadowedData => new(drift, RepairKind.Mount, $"mount {state.Spec} over the files that were written while it was missing: they will be hidden"),
        DriftKind.Stacked => new(drift, RepairKind.UnmountStrangers, "unmount what is mounted over it"),
        DriftKind.SourceMismatch => new(drift, RepairKind.UnmountStrangers, $"unmount what is there instead, and mount {state.Spec} again"),
        DriftKind.OptionsMismatch when state.Kernel is null =>
            new(drift, RepairKind.UnmountStrangers, $"unmount what is there instead, and mount {state.Spec} again"),
        DriftKind.OptionsMismatch => new(drift, RepairKind.Leave, $"remount it by hand as {state.Spec}: it is in use, and is not replaced under its holders"),
        DriftKind.Moved => new(drift, RepairKind.Leave, $"move it back by hand to {state.Mountpoint}, or unmount it there"),
        DriftKind.Foreign => new(drift, RepairKind.Leave, "a foreign mount is never touched: unmount it by hand, or mount the same here to adopt it"),
        DriftKind.Stale when state is { Attachments.IsEmpty: true, Kernel: not null } => new(drift, RepairKind.Unmount, "unmount it: nobody needs it any more"),
        DriftKind.Stale => new(drift, RepairKind.Leave, "a person has to decide, as it is not replaced under a live holder: detach everybody and mount it again, or let its server answer"),
        _ => throw new ArgumentOutOfRangeException(nameof(drift), drift, "not a kind of drift"),
    };
}
