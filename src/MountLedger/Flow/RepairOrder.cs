namespace MountLedger;

/// <summary>
/// What has to be there before a mount is made, above all before a missing one is made again: the mounts above it, and those that its source lies in. Otherwise it would
/// land in, or show, the bare directory below them. A mount that the ledger believes in is looked at, as it may be gone as well.
/// </summary>
public sealed class RepairOrder(IMountHost host, LiveStates live)
{
    /// <returns>The state of what has to come first; null when nothing is in the way.</returns>
    public async Task<MountState?> WaitsForAsync(MountState state, CancellationToken cancellationToken)
    {
        if (state.Kernel is not null || state.Operation is not null) return null;
        var isRepair = state.Drift.ContainsKey(DriftKind.Missing);
        foreach (var first in live.AncestorsOf(state.Mountpoint).Concat(SourcesOf(state)))
        {
            // Whoever mounts for the first time is held back only by what the ledger believes in and has gone unnoticed.
            if (!isRepair && first.Kernel is null) continue;
            if (!await HoldsAsync(first, cancellationToken)) return first;
        }
        return null;
    }

    private IEnumerable<MountState> SourcesOf(MountState state) => PathsOf(state.Spec)
        .SelectMany(path => MountPath.AncestorsOf(path).Prepend(path))
        .Where(path => path != state.Mountpoint && !MountPath.IsBelow(path, state.Mountpoint))
        .Distinct(StringComparer.Ordinal)
        .Select(live.PresentAt).OfType<MountState>();

    /// <summary>The paths that a mount shows or is made of: a bind's directory, an image, the layers of an overlay.</summary>
    private static IEnumerable<string> PathsOf(MountSpec? spec)
    {
        if (spec is null) yield break;
        if (spec.Source.StartsWith('/')) yield return spec.Source;
        if (spec.FsType != "overlay") yield break;
        foreach (var option in spec.Options)
        {
            var equals = option.IndexOf('=', StringComparison.Ordinal);
            if (equals < 0 || option[..equals] is not ("lowerdir" or "lowerdir+" or "upperdir" or "workdir")) continue;
            foreach (var layer in option[(equals + 1)..].Split(':'))
                if (layer.StartsWith('/')) yield return layer;
        }
    }

    private async Task<bool> HoldsAsync(MountState first, CancellationToken cancellationToken)
    {
        if (first.Kernel is not { } mount) return first.Attachments.IsEmpty && first.Operation is null;
        if (!mount.IsOf(host.Identity)) return false;
        return mount.MountId is not { } id || await host.FindAsync(id, cancellationToken) is not null;
    }
}
