using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// Makes the directories of a mountpoint and removes them again: one component at a time below a held descriptor, never
/// through a link, never across a mount, never one that is not empty.
/// </summary>
internal sealed class DirectoryKeeper(PathWalk walk, DirectoryAttributes attributes)
{
    private const int AttemptsMax = 3;

    /// <summary>
    /// Opens a mountpoint, making what is missing. That may be more than was missing when the mount was prepared: the
    /// unmount of a sibling removes directories that are common to both, and is kept out by nobody.
    /// </summary>
    /// <param name="mountpoint">Absolute and normalised.</param>
    /// <param name="created">Gets what was made, outermost first, also when this throws.</param>
    /// <exception cref="KernelFailure">A component cannot be opened or made.</exception>
    public Descriptor Create(string mountpoint, List<string> created)
    {
        const int SiblingsMax = 16;
        for (var attempt = 1; ; attempt++)
        {
            try
            {
                return CreateOnce(mountpoint, created);
            }
            catch (KernelFailure gone) when (gone.Number == Errno.ENOENT && attempt < SiblingsMax)
            {
                // Removed while we were on our way down.
            }
        }
    }

    private Descriptor CreateOnce(string mountpoint, List<string> created)
    {
        if (walk.OpenDeepest(mountpoint, out var problem) is not { } reach)
            throw new KernelFailure(problem!.Value.Errno, problem.Value.Message);
        var current = reach.Found;
        foreach (var path in reach.Missing)
        {
            using var parent = current;
            var name = path[(path.LastIndexOf('/') + 1)..];
            var errno = PathCalls.MakeDirectory(parent.Number, name, attributes.Mode);
            var isNew = errno == 0;
            if (isNew && !created.Contains(path)) created.Add(path);
            if (errno is not (0 or Errno.EEXIST)) throw new KernelFailure(errno, $"directory {path} cannot be made");
            current = PathWalk.OpenChild(parent, name, out errno)
                ?? throw new KernelFailure(errno, errno == Errno.ELOOP ? $"{path} has become a symbolic link" : $"{path} cannot be opened");
            if (!isNew || attributes.Owner is not { } owner) continue;
            errno = GiveAway(current, owner);
            if (errno == 0) continue;
            current.Dispose();
            throw new KernelFailure(errno, errno == Errno.ESTALE
                ? $"{path} was replaced by another directory while it was made"
                : $"{path} cannot be given to {owner.Uid}:{owner.Gid}");
        }
        return current;
    }

    /// <summary>
    /// Only what we have just made: who owns the parent may have put another directory in its place, and must not get that
    /// one's owner changed. ESTALE: it is not ours.
    /// </summary>
    private static int GiveAway(Descriptor directory, (uint Uid, uint Gid) owner)
    {
        var errno = MountQueryCalls.Describe(directory.Number, out var facts);
        if (errno != 0) return errno;
        if (facts.IsMountRoot || facts.Uid != IdentityCalls.EffectiveUser()) return Errno.ESTALE;
        return PathCalls.ChangeOwner(directory.Number, owner.Uid, owner.Gid);
    }

    /// <summary>
    /// Removes directories, innermost first, until one has to stay: because it is not empty, is a mountpoint, or lies in
    /// another mount than the mountpoint's own directory did.
    /// </summary>
    /// <returns>What is no longer there, outermost first.</returns>
    public IReadOnlyList<string> Remove(string mountpoint, IReadOnlyList<string> directories)
    {
        string[] ours = [.. directories.Where(path => IsAtOrAbove(path, mountpoint)).OrderByDescending(path => path.Length)];
        var removed = new List<string>();
        // Nobody comes back for what is left here, so an error that is none of the reasons to leave it gets further tries.
        for (var attempt = 1; attempt <= AttemptsMax && !TryRemove(ours, removed); attempt++) { }
        return removed;
    }

    /// <returns>False: an error was in the way, and trying again is safe.</returns>
    private bool TryRemove(string[] ours, List<string> removed)
    {
        removed.Clear();
        if (ours.Length == 0) return true;
        // All of them were made in one walk, so they lie in the mount that holds the outermost: what lies in another one,
        // which somebody put over them since, is not ours.
        using var outermost = walk.OpenParent(ours[^1], out _, out var problem);
        if (outermost is null) return IsNoDirectory(problem);
        if (MountQueryCalls.Describe(outermost.Number, out var mount) != 0) return false;
        foreach (var path in ours)
        {
            using var parent = walk.OpenParent(path, out var name, out problem);
            if (parent is null)
            {
                if (problem!.Value.Errno != Errno.ENOENT) return IsNoDirectory(problem);
            }
            else
            {
                if (MountQueryCalls.Describe(parent.Number, out var facts) != 0) return false;
                if ((facts.MountId, facts.OldMountId) != (mount.MountId, mount.OldMountId)) return true;
                if (IsMountRoot(parent, name)) return true;
                var errno = PathCalls.RemoveDirectory(parent.Number, name);
                if (errno is Errno.ENOTEMPTY or Errno.EEXIST) return true;
                if (errno is not (0 or Errno.ENOENT)) return false;
            }
            removed.Insert(0, path);
        }
        return true;
    }

    private static bool IsNoDirectory(PathWalk.Problem? problem) => problem?.Errno is Errno.ENOENT or Errno.ENOTDIR or Errno.ELOOP;

    private static bool IsMountRoot(Descriptor parent, string name)
    {
        using var child = PathWalk.OpenChild(parent, name, out _);
        return child is not null && MountQueryCalls.Describe(child.Number, out var facts) == 0 && facts.IsMountRoot;
    }

    private static bool IsAtOrAbove(string path, string mountpoint) =>
        mountpoint == path || mountpoint.StartsWith(path + "/", StringComparison.Ordinal);
}
