using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// Makes the directories of a mountpoint and removes them again: one component at a time below a held descriptor, never
/// through a link, never across a mount, never one that is not empty.
/// </summary>
internal sealed class DirectoryKeeper(PathWalk walk, DirectoryAttributes attributes)
{
    /// <summary>Opens a mountpoint, making what is missing as far as <paramref name="allowed"/> names it.</summary>
    /// <param name="mountpoint">Absolute and normalised.</param>
    /// <param name="allowed">Absolute paths, outermost first.</param>
    /// <param name="created">Gets what was made, outermost first, also when this throws.</param>
    /// <exception cref="KernelFailure">A component cannot be opened or made.</exception>
    public Descriptor Create(string mountpoint, IReadOnlyList<string> allowed, List<string> created)
    {
        if (walk.OpenDeepest(mountpoint, out var problem) is not { } reach)
            throw new KernelFailure(problem!.Value.Errno, problem.Value.Message);
        var current = reach.Found;
        foreach (var path in reach.Missing)
        {
            using var parent = current;
            if (!allowed.Contains(path))
                throw new KernelFailure(Errno.ENOENT, $"{path} existed when the mount was prepared and is gone");
            var name = path[(path.LastIndexOf('/') + 1)..];
            var errno = PathCalls.MakeDirectory(parent.Number, name, attributes.Mode);
            var isNew = errno == 0;
            if (isNew) created.Add(path);
            else if (errno != Errno.EEXIST) throw new KernelFailure(errno, $"directory {path} cannot be made");
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
        var removed = new List<string>();
        string[] ours = [.. directories.Where(path => IsAtOrAbove(path, mountpoint)).OrderByDescending(path => path.Length)];
        // All of them were made in one walk, so they lie in the mount that holds the outermost: what lies in another one,
        // which somebody put over them since, is not ours.
        if (ours.Length == 0 || MountOfParent(ours[^1]) is not { } mount) return removed;
        foreach (var path in ours)
        {
            using var parent = walk.OpenParent(path, out var name, out var problem);
            if (parent is null)
            {
                if (problem!.Value.Errno != Errno.ENOENT) break;
            }
            else
            {
                if (MountQueryCalls.Describe(parent.Number, out var facts) != 0) break;
                if ((facts.MountId, facts.OldMountId) != mount) break;
                if (IsMountRoot(parent, name)) break;
                var errno = PathCalls.RemoveDirectory(parent.Number, name);
                if (errno is not (0 or Errno.ENOENT)) break;
            }
            removed.Insert(0, path);
        }
        return removed;
    }

    private (ulong? Id, uint OldId)? MountOfParent(string path)
    {
        using var parent = walk.OpenParent(path, out _, out _);
        return parent is not null && MountQueryCalls.Describe(parent.Number, out var facts) == 0 ? (facts.MountId, facts.OldMountId) : null;
    }

    private static bool IsMountRoot(Descriptor parent, string name)
    {
        using var child = PathWalk.OpenChild(parent, name, out _);
        return child is not null && MountQueryCalls.Describe(child.Number, out var facts) == 0 && facts.IsMountRoot;
    }

    private static bool IsAtOrAbove(string path, string mountpoint) =>
        mountpoint == path || mountpoint.StartsWith(path + "/", StringComparison.Ordinal);
}
