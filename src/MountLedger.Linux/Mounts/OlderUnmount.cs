using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// Unmounting where mounts have no unique ids: the topmost mount at the path is ours when it is what we mounted there, by source and type. An id of
/// mountinfo is given to another mount as soon as it is free, so it proves nothing for longer than this one operation; for that long it is used.
/// </summary>
internal static class OlderUnmount
{
    /// <returns>False: it was gone before.</returns>
    public static bool TakeAway(UnmountOrder order, Descriptor parent, string leafName)
    {
        if (order.MountId == UnmountOrder.NoMount || MountOperations.TopAt(parent, leafName) is not { } top) return false;
        var stack = MountTable.ByPath(order.Mountpoint);
        if (stack.Count == 0) return false;
        if (!IsWanted(order, stack[0]))
        {
            if (!stack.Exists(found => IsWanted(order, found))) return false;
            throw new KernelFailure(Errno.EBUSY, "another mount covers it: that one has to go first");
        }
        var ours = stack[0].Mount;
        if (ours.OldId != top.OldMountId) throw new KernelFailure(Errno.EAGAIN, "another mount came in this moment: nothing was unmounted");
        if (order is { Mode: UnmountMode.Lazy, RecursiveSource: null }) RefuseToTakeOthers(ours);

        var errno = UnmountEscalation.Unmount($"/proc/self/fd/{parent.Number}/{leafName}", order.Mode, mountId: null);
        if (errno == Errno.EINVAL && MountOperations.TopAt(parent, leafName) is null) return false;
        KernelFailure.ThrowIf(errno, errno == Errno.EBUSY ? "it is in use" : "umount2");
        if (MountTable.ByPath(order.Mountpoint).Exists(found => found.Mount.OldId == ours.OldId && IsWanted(order, found)))
            throw new KernelFailure(Errno.EAGAIN, "another mount was put on top in this moment and was taken away instead");
        return true;
    }

    private static bool IsWanted(UnmountOrder order, MountTable.Found found) =>
        order.Expected is not { } spec || MountComparison.Differences(spec, found).All(difference => difference == "options");

    private static void RefuseToTakeOthers(ObservedMount ours)
    {
        const int ShownMax = 8;
        var points = MountTable.Below(ours).Select(mount => mount.Path).Take(ShownMax).ToList();
        if (points.Count > 0)
            throw new KernelFailure(Errno.EBUSY, $"a lazy unmount would take other mounts along ({string.Join(", ", points)}): unmount those first");
    }
}
