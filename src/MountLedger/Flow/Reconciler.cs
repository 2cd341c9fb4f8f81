using System.Collections.Immutable;
using Microsoft.Extensions.Logging;

namespace MountLedger;

/// <summary>What a reconciliation found. <paramref name="Gone"/>: mountpoints that nobody wanted any more and whose mount has gone by itself.</summary>
public sealed record ReconcileReport(int Mountpoints, int Mounts, int Missing, int Foreign, int Unsettled, IReadOnlyList<string> Gone);

/// <summary>
/// Compares all that the ledger wants with all that the kernel has, at start and before anything is touched, and records
/// the differences. It repairs nothing itself: a missing mount whose record is gone from the state is what
/// the executor mounts again, an unsettled operation is what it settles, and a foreign mount is left alone.
/// </summary>
public sealed class Reconciler(
    AgentIdentity agent, IEventStore store, IMountHost host, LiveStates live, MountJournal journal, ImmutableArray<string> roots,
    TimeProvider time, ILogger logger)
{
    /// <summary>How many foreign mounts are recorded at most; more than that is somebody else's machine.</summary>
    private const int ForeignRecordedMax = 1_000;

    public async Task<ReconcileReport> RunAsync(CancellationToken cancellationToken)
    {
        var started = time.GetTimestamp();

        // The whole desired state first: nothing may be judged as unwanted before it is loaded.
        foreach (var state in await store.LoadHostAsync(agent.Host, cancellationToken)) live.Publish(state);
        var table = await host.ListAsync(cancellationToken);
        var byPath = table.ToLookup(mount => mount.Path, StringComparer.Ordinal);
        // A listing is not atomic: a mount may be in it twice.
        var byId = table.Where(mount => mount.MountId is not null).DistinctBy(mount => mount.MountId)
            .ToDictionary(mount => mount.MountId!.Value);

        var (missing, foreign, unsettled) = (0, 0, 0);
        var gone = new List<string>();
        var present = live.Present();
        foreach (var state in present)
        {
            if (state.Operation is not null || state.Uncertain)
            {
                unsettled++;
                continue;
            }
            var findings = Compare(state, byPath, byId);
            if (findings.IsEmpty) continue;
            missing += findings.Any(change => change is MountEvent.DriftDetected { Kind: DriftKind.Missing }) ? 1 : 0;
            if (state.Attachments.IsEmpty) gone.Add(state.Mountpoint);
            await RecordAsync(state, findings, cancellationToken);
        }

        foreach (var stranger in ForeignMounts(table, present).Take(ForeignRecordedMax))
        {
            foreign++;
            var state = await journal.StateAsync(stranger.Path, fresh: false, cancellationToken);
            if (!state.Drift.ContainsKey(DriftKind.Foreign))
                await RecordAsync(state, [new MountEvent.DriftDetected(DriftKind.Foreign, Describe(stranger))], cancellationToken);
        }

        var report = new ReconcileReport(present.Count, table.Length, missing, foreign, unsettled, gone);
        logger.Reconciled(
            report.Mountpoints, report.Mounts, (long)time.GetElapsedTime(started).TotalMilliseconds, missing, foreign, unsettled);
        return report;
    }

    private ImmutableArray<MountEvent> Compare(
        MountState state, ILookup<string, ObservedMount> byPath, Dictionary<ulong, ObservedMount> byId)
    {
        if (state.Kernel is not { } kernel)
        {
            return state.Drift.ContainsKey(DriftKind.Foreign) && !byPath[state.Mountpoint].Any()
                ? [new MountEvent.DriftResolved(DriftKind.Foreign, "gone")]
                : [];
        }

        var here = kernel.IsOf(host.Identity);
        if (here && kernel.MountId is { } id && byId.TryGetValue(id, out var ours))
        {
            if (ours.Path == state.Mountpoint) return Resolved(state, DriftKind.Moved);
            // A moved mount is not missing: mounting again would leave two.
            return state.Drift.ContainsKey(DriftKind.Moved)
                ? [] : [new MountEvent.DriftDetected(DriftKind.Moved, $"now at {ours.Path}")];
        }
        // Without unique ids what is at the path must do; the executor compares it by meaning before it acts.
        if (here && kernel.MountId is null && byPath[state.Mountpoint].Any()) return [];

        // Nobody wanted it any more: that somebody else (or a reboot) took it away is the end of it.
        if (state.Attachments.IsEmpty) return [new MountEvent.OperationSettled(OperationKind.Unmount, SettledAs.Absent, Why(kernel, null))];
        return [new MountEvent.DriftDetected(DriftKind.Missing, Why(kernel, byPath[state.Mountpoint].LastOrDefault()))];
    }

    /// <summary>Mounts strictly below a root that no present mountpoint accounts for; what a recursive bind brought along is part of it.</summary>
    private IEnumerable<ObservedMount> ForeignMounts(ImmutableArray<ObservedMount> table, IReadOnlyList<MountState> present)
    {
        var managed = present.Where(state => state.Kernel is not null || state.Operation is not null)
            .ToDictionary(state => state.Mountpoint, StringComparer.Ordinal);
        bool CameAlong(ObservedMount mount) => MountPath.AncestorsOf(mount.Path)
            .Any(path => managed.TryGetValue(path, out var above) && above.Kernel?.Spec.Options.Contains("rbind") == true);
        return table
            .Where(mount => roots.Any(root => MountPath.IsBelow(mount.Path, root)) && !managed.ContainsKey(mount.Path) && !CameAlong(mount))
            .DistinctBy(mount => mount.Path);
    }

    private async Task RecordAsync(MountState state, ImmutableArray<MountEvent> events, CancellationToken cancellationToken)
    {
        foreach (var drift in events.OfType<MountEvent.DriftDetected>()) logger.Drift(drift.Kind, state.Mountpoint, drift.Detail);
        await journal.RecordOutcomeAsync(
            state, newest => newest.Version == state.Version ? events : [], agent.Own(), cancellationToken);
    }

    private static ImmutableArray<MountEvent> Resolved(MountState state, DriftKind kind) =>
        state.Drift.ContainsKey(kind) ? [new MountEvent.DriftResolved(kind, "back in place")] : [];

    private string Why(KernelMount kernel, ObservedMount? instead) => instead switch
    {
        _ when kernel.BootId != host.Identity.BootId => "the machine was rebooted",
        _ when !kernel.IsOf(host.Identity) => "it was made in another mount namespace than the one that is served now",
        null => "unmounted by somebody else",
        _ => $"unmounted by somebody else, who mounted {Describe(instead)} instead",
    };

    private static string Describe(ObservedMount mount) => $"{mount.FsType} {mount.Source}";
}
