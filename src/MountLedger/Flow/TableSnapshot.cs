using System.Collections.Immutable;

namespace MountLedger;

/// <summary>A listing of the mount table, to be asked by path and by id. Not atomic: what it says is checked before it counts.</summary>
public sealed class TableSnapshot
{
    private readonly Dictionary<ulong, ObservedMount> _byId;
    private readonly ILookup<string, ObservedMount> _byPath;

    public TableSnapshot(ImmutableArray<ObservedMount> mounts)
    {
        Mounts = mounts;
        _byPath = mounts.ToLookup(mount => mount.Path, StringComparer.Ordinal);
        _byId = mounts.Where(mount => mount.MountId is not null).DistinctBy(mount => mount.MountId).ToDictionary(mount => mount.MountId!.Value);
    }

    public ImmutableArray<ObservedMount> Mounts { get; }

    /// <summary>What the listing shows of a mountpoint.</summary>
    public DriftSight SightOf(MountState state, KernelIdentity kernel)
    {
        var here = _byPath[state.Mountpoint].Reverse().ToImmutableArray();
        var elsewhere = state.Kernel is { MountId: { } id } mount && mount.IsOf(kernel) && !here.Any(candidate => candidate.MountId == id)
            ? _byId.GetValueOrDefault(id)
            : null;
        return new DriftSight(new Observation(here, DirectoryExists: true), elsewhere);
    }
}
