using System.Diagnostics;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// The call that unmounts, as hard as was asked for. A forced unmount of what may block first ends the requests that its server
/// does not answer, so that whoever hangs in them lets go, and detaches only what is in use even then.
/// </summary>
internal static class UnmountEscalation
{
    private static readonly TimeSpan LettingGoMax = TimeSpan.FromSeconds(1);

    /// <summary>0, or the error number of the last try.</summary>
    /// <param name="path">By the parent's descriptor and the name.</param>
    /// <param name="mode">What was asked for and recorded.</param>
    /// <param name="mountId">What is there.</param>
    public static int Unmount(string path, UnmountMode mode, ulong? mountId) => mode switch
    {
        UnmountMode.Lazy => MountCalls.Unmount(path, MountCalls.UMOUNT_NOFOLLOW | MountCalls.MNT_DETACH),
        UnmountMode.Force => Force(path, mountId),
        _ => MountCalls.Unmount(path, MountCalls.UMOUNT_NOFOLLOW),
    };

    private static int Force(string path, ulong? mountId)
    {
        var mount = mountId is { } id ? MountTable.ById(id) : null;
        // Nothing can be aborted there, and detaching it was not asked for.
        if (mount?.FsType is not { } type || !BlockingMounts.MayBlock(type)) return MountCalls.Unmount(path, MountCalls.UMOUNT_NOFOLLOW | MountCalls.MNT_FORCE);

        var errno = MountCalls.Unmount(path, MountCalls.UMOUNT_NOFOLLOW);
        if (errno != Errno.EBUSY) return errno;
        errno = MountCalls.Unmount(path, MountCalls.UMOUNT_NOFOLLOW | MountCalls.MNT_FORCE);
        var clock = Stopwatch.StartNew();
        while (errno == Errno.EBUSY && clock.Elapsed < LettingGoMax)
        {
            Thread.Sleep(20);
            errno = MountCalls.Unmount(path, MountCalls.UMOUNT_NOFOLLOW);
        }
        // What others mounted below is not ours to take.
        var below = new List<ulong>();
        MountQueryCalls.List(mount.MountId, 1, below);
        return errno == Errno.EBUSY && below.Count == 0 ? MountCalls.Unmount(path, MountCalls.UMOUNT_NOFOLLOW | MountCalls.MNT_DETACH) : errno;
    }
}
