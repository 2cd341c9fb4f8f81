using System.Collections.Immutable;
using Microsoft.Extensions.Logging;

namespace MountLedger;

/// <summary>
/// What the comparison at start found. <paramref name="Suspects"/>: mountpoints where ledger and kernel seem to differ, parents first;
/// each is looked at before anything is done there.
/// </summary>
public sealed record ReconcileReport(int Mountpoints, int Mounts, int Missing, int Foreign, int Unsettled, IReadOnlyList<string> Suspects)
{
    /// <summary>The mountpoints that will be mounted again, with the mount that the ledger knew last.</summary>
    public IReadOnlyDictionary<string, KernelMount?> ToRepair { get; init; } = new Dictionary<string, KernelMount?>();
}

/// <summary>
/// Compares all that the ledger wants with all that the kernel has, at start and before anything is touched. It records and repairs
/// nothing itself: what differs is looked at by the executor, one mountpoint at a time and many at once, while the others are served.
/// </summary>
public sealed class Reconciler(
    AgentIdentity agent, IEventStore store, IMountHost host, LiveStates live, DriftCheck check, TimeProvider time, ILogger logger)
{
    /// <summary>How many foreign mounts are recorded at most; more than that is somebody else's machine.</summary>
    private const int ForeignRecordedMax = 1_000;

    public async Task<ReconcileReport> RunAsync(CancellationToken cancellationToken)
    {
        var started = time.GetTimestamp();

        // Listed while the desired state is loaded, and judged when all of it is: nothing may be taken as unwanted before.
        var listing = host.ListAsync(cancellationToken);
        foreach (var state in await store.LoadHostAsync(agent.Host, cancellationToken)) live.Publish(state);
        KillPoint.Reached("start-loaded");
        var loaded = time.GetTimestamp();
        var table = new TableSnapshot(await listing);

        KillPoint.Reached("start-listed");
        var (missing, unsettled) = (0, 0);
        var suspects = new List<string>();
        var toRepair = new Dictionary<string, KernelMount?>(StringComparer.Ordinal);
        var present = live.Present();
        foreach (var state in present)
        {
            if (state.Operation is not null || state.Uncertain)
            {
                unsettled++;
                continue;
            }
            var changes = DriftRules.Compare(state, table.SightOf(state, host.Identity), host.Identity, check.MayBeForeign(state));
            var isMissing = state.Drift.ContainsKey(DriftKind.Missing) || changes.Any(change => change is MountEvent.DriftDetected { Kind: DriftKind.Missing });
            if (isMissing && !state.IsBehind && !state.RepairPaused && !state.Attachments.IsEmpty) toRepair[state.Mountpoint] = state.Kernel;
            if (changes.IsEmpty && !state.Drift.ContainsKey(DriftKind.ShadowedData)) continue;
            missing += changes.Any(change => change is MountEvent.DriftDetected { Kind: DriftKind.Missing }) ? 1 : 0;
            suspects.Add(state.Mountpoint);
        }
        var strangers = table.Mounts
            .Where(mount => live.PresentAt(mount.Path) is null && !(mount.MountId is { } id && live.MountpointOf(id) is not null) && check.MayBeForeign(mount.Path))
            .Select(mount => mount.Path).Distinct(StringComparer.Ordinal).Take(ForeignRecordedMax).ToList();

        var report = new ReconcileReport(
            present.Count, table.Mounts.Length, missing, strangers.Count, unsettled, [.. suspects, .. strangers])
        {
            ToRepair = toRepair,
        };
        logger.Reconciled(
            report.Mountpoints, (long)time.GetElapsedTime(started, loaded).TotalMilliseconds, report.Mounts, (long)time.GetElapsedTime(loaded).TotalMilliseconds, missing,
            report.Foreign, unsettled);
        return report;
    }
}
