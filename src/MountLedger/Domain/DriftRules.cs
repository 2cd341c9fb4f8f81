using System.Collections.Immutable;

namespace MountLedger;

/// <summary>What a look at the kernel shows of one mountpoint: the mounts at its path, and where the ledger's mount is if not there.</summary>
public sealed record DriftSight(Observation At, ObservedMount? Elsewhere = null)
{
    /// <summary>What the filesystem itself said when it was asked; null: nothing is known, which changes nothing.</summary>
    public ServerAnswer? Server { get; init; }
}

/// <summary>
/// What counts as drift (section 6 of the contract): pure, from a state and a look at the kernel to the events that say what changed.
/// A state that shows an operation has none: what that operation does is its own.
/// </summary>
public static class DriftRules
{
    /// <summary>The kinds that a look at the mount table alone can find, and find gone.</summary>
    private static readonly ImmutableArray<DriftKind> Judged =
    [
        DriftKind.Missing, DriftKind.SourceMismatch, DriftKind.OptionsMismatch, DriftKind.Stacked, DriftKind.Foreign, DriftKind.Moved,
    ];

    /// <summary>
    /// The events that bring the ledger's list of differences in line with what was seen; none when it says so already, so that looking
    /// again records nothing.
    /// </summary>
    /// <param name="state">The mountpoint.</param>
    /// <param name="sight">What was seen; its mounts may have been compared with the wanted spec.</param>
    /// <param name="kernel">Where it was seen.</param>
    /// <param name="mayBeForeign">A mount that nobody asked for counts here: the path is below a root and no part of another mount.</param>
    public static ImmutableArray<MountEvent> Compare(MountState state, DriftSight sight, KernelIdentity kernel, bool mayBeForeign)
    {
        if (state.Operation is not null || state.Uncertain || state.IsBehind) return [];
        if (state.Kernel is not null && sight.Elsewhere?.Path == state.Mountpoint) return []; // It moved back while we looked.

        var found = Find(state, sight, kernel, mayBeForeign);
        if (found.TryGetValue(DriftKind.Missing, out var why) && state.Attachments.IsEmpty)
        {
            // Nobody wanted it any more: that somebody else (or a reboot) took it away is the end of it.
            return [new MountEvent.OperationSettled(OperationKind.Unmount, SettledAs.Absent, why), .. Over(state, "no longer needed")];
        }
        var changes = ImmutableArray.CreateBuilder<MountEvent>();
        foreach (var kind in Judged)
        {
            // A mount that the ledger still believes in has not been recorded as missing, whatever the list says: it would never be made again.
            var isKnown = state.Drift.ContainsKey(kind) && !(kind == DriftKind.Missing && state.Kernel is not null && found.ContainsKey(kind));
            if (found.TryGetValue(kind, out var detail))
            {
                if (!isKnown) changes.Add(new MountEvent.DriftDetected(kind, detail));
            }
            else if (isKnown)
            {
                changes.Add(new MountEvent.DriftResolved(kind, Gone(kind)));
            }
        }
        changes.AddRange(Stale(state, sight, kernel, found));
        return changes.ToImmutable();
    }

    /// <summary>The mount is made anew, or is gone for good: whatever was wrong with the old one is over.</summary>
    public static ImmutableArray<MountEvent> Over(MountState state, string why) =>
        [.. state.Drift.Keys.Where(kind => kind is not (DriftKind.Foreign or DriftKind.LedgerBehind)).Select(kind => new MountEvent.DriftResolved(kind, why))];

    /// <summary>Mounting again could hide what was written below while the mount was missing; whether it would, a look tells.</summary>
    public static bool MayShadowData(MountState state) =>
        state is { Kernel: null, Operation: null, MountedOverEmpty: true }
        && state.Drift.ContainsKey(DriftKind.Missing) && !state.Drift.ContainsKey(DriftKind.ShadowedData);

    /// <summary>The ledger's mount among those at its path. Without unique ids (older kernels), what was not found to differ.</summary>
    public static ObservedMount? OursAmong(Observation at, KernelMount mount, KernelIdentity kernel)
    {
        if (!mount.IsOf(kernel)) return null;
        return mount.MountId is { } id
            ? at.Mounts.FirstOrDefault(candidate => candidate.MountId == id)
            : at.Mounts.FirstOrDefault(candidate => candidate.Differences is null or { IsEmpty: true });
    }

    private static ImmutableArray<MountEvent> Stale(
        MountState state, DriftSight sight, KernelIdentity kernel, Dictionary<DriftKind, string?> found)
    {
        if (state.Kernel is not { } mount || found.ContainsKey(DriftKind.Missing))
            return state.Drift.ContainsKey(DriftKind.Stale) ? [new MountEvent.DriftResolved(DriftKind.Stale, "its mount is gone")] : [];
        // Through the path another mount answers, when ours is covered or elsewhere.
        return OursAmong(sight.At, mount, kernel) is { } ours && ours == sight.At.Top ? StaleRules.Compare(state, sight.Server) : [];
    }

    private static Dictionary<DriftKind, string?> Find(MountState state, DriftSight sight, KernelIdentity kernel, bool mayBeForeign)
    {
        var found = new Dictionary<DriftKind, string?>();
        if (state.Kernel is { } mount)
        {
            if (OursAmong(sight.At, mount, kernel) is { } ours)
            {
                if (sight.At.Top != ours) found[DriftKind.Stacked] = $"{sight.At.Top!.Described} is mounted over it";
                if (OptionDrift.Between(mount.Spec, ours, mount.Adopted) is { } options) found[DriftKind.OptionsMismatch] = options;
            }
            // A moved mount is not missing: mounting again would leave two.
            else if (mount.IsOf(kernel) && sight.Elsewhere is { } elsewhere)
            {
                found[DriftKind.Moved] = $"now at {elsewhere.Path}";
            }
            else
            {
                found[DriftKind.Missing] = WhyMissing(mount, kernel, sight.At.Top);
                AddInstead(found, sight.At.Top);
            }
        }
        else if (!state.Attachments.IsEmpty)
        {
            if (state.Drift.TryGetValue(DriftKind.Missing, out var why))
            {
                found[DriftKind.Missing] = why;
                AddInstead(found, sight.At.Top);
            }
        }
        else if (mayBeForeign && sight.At.Top is { } stranger)
        {
            found[DriftKind.Foreign] = stranger.Described;
        }
        return found;
    }

    /// <summary>What took the place of the wanted mount. One that matches is adopted by the repair and is no drift of its own.</summary>
    private static void AddInstead(Dictionary<DriftKind, string?> found, ObservedMount? instead)
    {
        if (instead?.Differences is not { IsEmpty: false } differences) return;
        var kind = differences.Contains("source") || differences.Contains("fstype") ? DriftKind.SourceMismatch : DriftKind.OptionsMismatch;
        found[kind] = $"{instead.Described} is mounted instead, and differs in {string.Join(", ", differences)}";
    }

    private static string WhyMissing(KernelMount mount, KernelIdentity kernel, ObservedMount? instead) => instead switch
    {
        _ when mount.BootId != kernel.BootId => "the machine was rebooted",
        _ when !mount.IsOf(kernel) => "it was made in another mount namespace than the one that is served now",
        null => "unmounted by somebody else",
        _ => $"unmounted by somebody else, who mounted {instead.Described} instead",
    };

    private static string Gone(DriftKind kind) => kind switch
    {
        DriftKind.Foreign => "gone",
        DriftKind.Moved => "back in place",
        DriftKind.Stacked => "nothing covers it any more",
        DriftKind.OptionsMismatch => "the options are as wanted again",
        DriftKind.SourceMismatch => "what was mounted instead is gone",
        _ => "mounted again",
    };
}
