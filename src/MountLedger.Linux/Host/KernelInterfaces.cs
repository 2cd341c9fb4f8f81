using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// Which of the newer calls this process may use, each asked once. A call that is missing here is missing in the kernel, or a seccomp
/// filter (a container's, say) hides it; what is done instead is the same.
/// </summary>
internal static class KernelInterfaces
{
    private static readonly Lazy<bool> Detached = new(() =>
        ((nint[])[ProbeCalls.Fsopen, ProbeCalls.Fsconfig, ProbeCalls.Fsmount, ProbeCalls.OpenTree, ProbeCalls.MoveMount]).All(ProbeCalls.Answers));

    private static readonly Lazy<bool> Setattr = new(() => ProbeCalls.Answers(ProbeCalls.MountSetattr));

    private static readonly Lazy<bool> Openat2 = new(() => ProbeCalls.Answers(ProbeCalls.Openat2));

    private static readonly Lazy<bool> Statmount = new(() => ProbeCalls.Answers(ProbeCalls.Statmount));

    private static readonly Lazy<bool> Listmount = new(() => ProbeCalls.Answers(ProbeCalls.Listmount));

    private static readonly Lazy<bool> UniqueIds = new(() => Statmount.Value && Listmount.Value && StatxGivesUniqueIds());

    /// <summary>fsopen, fsconfig, fsmount, open_tree and move_mount: mounts are made before they are attached (Linux 5.2).</summary>
    public static bool HasDetachedMounts => Detached.Value;

    /// <summary>mount_setattr (Linux 5.12).</summary>
    public static bool HasMountSetattr => Setattr.Value;

    /// <summary>openat2 (Linux 5.6).</summary>
    public static bool HasOpenat2 => Openat2.Value;

    /// <summary>statmount (Linux 6.8).</summary>
    public static bool HasStatmount => Statmount.Value;

    /// <summary>listmount (Linux 6.8).</summary>
    public static bool HasListmount => Listmount.Value;

    /// <summary>
    /// Ids of mounts that are never used again, with what is needed to make use of them: statx gives them, statmount and listmount take them
    /// (all Linux 6.8). Where one of the three is missing, the other two are not used either.
    /// </summary>
    public static bool HasUniqueIds => UniqueIds.Value;

    private static bool StatxGivesUniqueIds()
    {
        var number = PathCalls.OpenPlain(PathCalls.AT_FDCWD, "/", PathCalls.O_PATH, 0, out _);
        if (number < 0) return false;
        using var root = new Descriptor(number);
        return MountQueryCalls.Describe(root.Number, MountQueryCalls.STATX_MNT_ID_UNIQUE, out var facts) == 0 && facts.MountId is not null;
    }
}
