using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// The mounts that a recursive bind brought along. They are ours, and go before their parent can; what somebody else mounted below
/// it since is not, and stays.
/// </summary>
internal static class RecursiveBind
{
    private const int ChildrenMax = 10_000;

    /// <summary>The mounts below the one with this id that it brought along, the innermost first.</summary>
    /// <param name="mountpoint">Where it is.</param>
    /// <param name="own">Its unique id.</param>
    /// <param name="source">What it is a recursive bind of: a mount came along when the same one is at the same place there.</param>
    /// <exception cref="KernelFailure"><c>EBUSY</c>: there is one that did not come along.</exception>
    public static IReadOnlyList<(string Path, ulong Id)> Children(string mountpoint, ulong own, string source)
    {
        var ids = new List<ulong>();
        MountQueryCalls.List(own, ChildrenMax, ids);
        if (ids.Count == 0) return [];
        var bySource = SharedFilesystem.Table().Where(entry => MountPath.IsBelow(entry.Mount.Path, source))
            .ToLookup(entry => entry.Mount.Path, StringComparer.Ordinal);
        var children = new List<(string Path, ulong Id)>();
        foreach (var id in ids)
        {
            if (MountTable.ById(id) is not { Point: { } point } child) continue;
            var came = MountPath.IsBelow(point, mountpoint) && bySource[source.TrimEnd('/') + point[mountpoint.Length..]].Any(original =>
                original.DeviceMajor == child.DeviceMajor && original.DeviceMinor == child.DeviceMinor && original.Mount.Root == child.Root);
            if (!came)
                throw new KernelFailure(Errno.EBUSY, $"another mount is below it, at {point}, which it did not bring along: unmount that one first");
            children.Add((point, id));
        }
        children.Reverse();
        return [.. children.OrderByDescending(child => child.Path.Count(c => c == '/'))];
    }
}
