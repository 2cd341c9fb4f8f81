using System.Collections.Immutable;
using Microsoft.Extensions.Logging;

namespace MountLedger;

/// <summary>
/// Looks at one mountpoint in the kernel and records what differs from the ledger, once. The caller holds the mountpoint, so that no
/// operation of ours is half done meanwhile.
/// </summary>
public sealed class DriftCheck(
    AgentIdentity agent, IMountHost host, LiveStates live, ServerProbes servers, MountJournal journal, ImmutableArray<string> roots, ILogger logger)
{
    /// <returns>The state after it; null when nothing could be recorded.</returns>
    public async Task<MountState?> LookAsync(MountState state, CancellationToken cancellationToken)
    {
        if (state.Operation is not null || state.Uncertain) return state;
        var seen = await host.ObserveAsync(state.Mountpoint, state.Kernel?.Spec ?? state.Spec, cancellationToken);
        var sight = new DriftSight(seen, await ElsewhereAsync(state, seen, cancellationToken)) { Server = servers.LastOf(state) };
        var hasEntries = state.Drift.ContainsKey(DriftKind.ShadowedData) && state.Kernel is null
            ? await host.HasEntriesAsync(state.Mountpoint, cancellationToken)
            : null;
        KillPoint.Reached("drift-looked");
        ImmutableArray<MountEvent> recorded = [];
        var after = await journal.RecordOutcomeAsync(
            state,
            // Who came or left meanwhile changes nothing about what was seen, and would not look again; another mount does.
            newest => recorded = newest.Kernel != state.Kernel || (newest.Kernel is null && newest.Spec != state.Spec)
                ? []
                : [.. DriftRules.Compare(newest, sight, host.Identity, MayBeForeign(newest)), .. DataGone(newest, hasEntries)],
            agent.Own(), cancellationToken);
        foreach (var change in recorded)
        {
            if (change is MountEvent.DriftDetected found) logger.Drift(found.Kind, state.Mountpoint, found.Detail);
            if (change is MountEvent.DriftResolved over) logger.DriftOver(over.Kind, state.Mountpoint, over.Detail);
        }
        return after;
    }

    /// <summary>Strictly below a root, and no part of a recursive bind of ours.</summary>
    public bool MayBeForeign(string path) =>
        roots.Any(root => MountPath.IsBelow(path, root))
        && !MountPath.AncestorsOf(path).Any(above => live.PresentAt(above)?.Kernel?.Spec.Options.Contains("rbind") == true);

    /// <summary>Whether a mount at this mountpoint could be nobody's: where one of ours is known to be that is not asked.</summary>
    public bool MayBeForeign(MountState state) => state.Kernel is null && MayBeForeign(state.Mountpoint);

    /// <summary>Where the mount is that the ledger knows here, when it is not here.</summary>
    private async Task<ObservedMount?> ElsewhereAsync(MountState state, Observation seen, CancellationToken cancellationToken) =>
        state.Kernel is { MountId: { } id } mount && mount.IsOf(host.Identity) && DriftRules.OursAmong(seen, mount, host.Identity) is null
            ? await host.FindAsync(id, cancellationToken)
            : null;

    private static ImmutableArray<MountEvent> DataGone(MountState state, bool? hasEntries) =>
        hasEntries == false && state.Drift.ContainsKey(DriftKind.ShadowedData)
            ? [new MountEvent.DriftResolved(DriftKind.ShadowedData, "the directory is empty again")]
            : [];
}
