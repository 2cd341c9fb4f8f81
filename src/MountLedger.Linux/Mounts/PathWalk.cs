using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// Turns a mountpoint into descriptors without ever following a link: from an allowed root downwards with
/// openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS). What was checked is what is then used, because
/// both go through the same descriptor.
/// </summary>
internal sealed class PathWalk
{
    private const ulong Directory = PathCalls.O_PATH;
    private const ulong Strict = PathCalls.RESOLVE_BENEATH | PathCalls.RESOLVE_NO_SYMLINKS | PathCalls.RESOLVE_NO_MAGICLINKS;

    private readonly string[] roots;

    /// <param name="roots">Absolute, normalised directories; mountpoints lie strictly below one of them.</param>
    public PathWalk(IEnumerable<string> roots) => this.roots = [.. roots.OrderByDescending(root => root.Length)];

    /// <summary>A path that cannot be walked: the error number, and which component is to blame and why.</summary>
    public readonly record struct Problem(int Errno, string Message);

    /// <summary>How far a path exists.</summary>
    /// <param name="Found">The deepest directory that exists, open.</param>
    /// <param name="Missing">Absolute paths of what does not exist, outermost first.</param>
    public readonly record struct Reach(Descriptor Found, IReadOnlyList<string> Missing);

    /// <summary>Opens a directory (or whatever is there) at an absolute path below a root.</summary>
    public Descriptor? Open(string path, out Problem? problem)
    {
        var root = OpenRoot(path, out var relative, out problem);
        if (root is null) return null;
        using (root)
        {
            var descriptor = PathCalls.OpenAt(root.Number, relative, Directory | PathCalls.O_DIRECTORY, Strict, out var errno);
            if (descriptor >= 0) return new Descriptor(descriptor);
            problem = Explain(root.Number, path[..^relative.Length], relative, errno);
            return null;
        }
    }

    /// <summary>
    /// Opens the directory that holds the last component of <paramref name="path"/>, and gives that component. The parent of
    /// something directly below a root is the root itself.
    /// </summary>
    public Descriptor? OpenParent(string path, out string leaf, out Problem? problem)
    {
        leaf = path[(path.LastIndexOf('/') + 1)..];
        var root = OpenRoot(path, out var relative, out problem);
        if (root is null) return null;
        var slash = relative.LastIndexOf('/');
        if (slash < 0) return root;
        using (root)
        {
            var parent = relative[..slash];
            var descriptor = PathCalls.OpenAt(root.Number, parent, Directory | PathCalls.O_DIRECTORY, Strict, out var errno);
            if (descriptor >= 0) return new Descriptor(descriptor);
            problem = Explain(root.Number, path[..^relative.Length], parent, errno);
            return null;
        }
    }

    /// <summary>Opens as much of the path as exists, and says what is missing.</summary>
    public Reach? OpenDeepest(string path, out Problem? problem)
    {
        var whole = Open(path, out problem);
        if (whole is not null) return new Reach(whole, []);
        if (problem is not { Errno: Errno.ENOENT }) return null;

        var current = OpenRoot(path, out var relative, out problem);
        if (current is null) return null;
        var prefix = path[..^relative.Length];
        var components = relative.Split('/');
        for (var i = 0; i < components.Length; i++)
        {
            var next = PathCalls.OpenAt(current.Number, components[i], Directory | PathCalls.O_DIRECTORY, Strict, out var errno);
            if (next >= 0)
            {
                current.Dispose();
                current = new Descriptor(next);
                continue;
            }
            if (errno == Errno.ENOENT)
                return new Reach(
                    current, [.. Enumerable.Range(i, components.Length - i).Select(n => prefix + string.Join('/', components[..(n + 1)]))]);
            problem = Explain(current.Number, prefix + string.Concat(components[..i].Select(name => name + "/")), components[i], errno);
            current.Dispose();
            return null;
        }
        // It did not exist a moment ago and does now.
        return new Reach(current, []);
    }

    /// <summary>Opens one component below an open directory, never through a link.</summary>
    public static Descriptor? OpenChild(Descriptor directory, string name, out int errno)
    {
        var descriptor = PathCalls.OpenAt(directory.Number, name, Directory | PathCalls.O_DIRECTORY, Strict, out errno);
        return descriptor < 0 ? null : new Descriptor(descriptor);
    }

    private Descriptor? OpenRoot(string path, out string relative, out Problem? problem)
    {
        relative = "";
        foreach (var root in roots)
        {
            var prefix = root == "/" ? root : root + "/";
            if (!path.StartsWith(prefix, StringComparison.Ordinal) || path.Length == prefix.Length) continue;
            relative = path[prefix.Length..];
            var descriptor = PathCalls.OpenAt(
                PathCalls.AT_FDCWD, root, Directory | PathCalls.O_DIRECTORY,
                PathCalls.RESOLVE_NO_SYMLINKS | PathCalls.RESOLVE_NO_MAGICLINKS, out var errno);
            problem = descriptor >= 0 ? null : new Problem(
                errno, errno == Errno.ELOOP
                    ? $"the allowed root {root} leads through a symbolic link: configure its real path"
                    : $"the allowed root {root} cannot be opened");
            return descriptor >= 0 ? new Descriptor(descriptor) : null;
        }
        problem = new Problem(Errno.EPERM, $"{path} is not below an allowed root ({string.Join(", ", roots)})");
        return null;
    }

    /// <summary>Walks again, one component at a time, to name the one that is in the way.</summary>
    private static Problem Explain(int root, string prefix, string relative, int errno)
    {
        using var start = new Descriptor(PathCalls.OpenAt(root, ".", Directory, Strict, out _));
        var current = start;
        var opened = new List<Descriptor>();
        var where = prefix;
        try
        {
            foreach (var component in relative.Split('/'))
            {
                where = where.EndsWith('/') ? where + component : where + "/" + component;
                var next = OpenChild(current, component, out var found);
                if (next is null) return new Problem(found, Blame(found, where));
                opened.Add(next);
                current = next;
            }
        }
        finally
        {
            foreach (var descriptor in opened) descriptor.Dispose();
        }
        return new Problem(errno, Blame(errno, where));
    }

    private static string Blame(int errno, string where) => errno switch
    {
        Errno.ELOOP => $"{where} is a symbolic link: links are not followed, give the real path",
        Errno.ENOTDIR => $"{where} is not a directory",
        Errno.ENOENT => $"{where} does not exist",
        Errno.EXDEV => $"{where} leads out of its allowed root",
        _ => $"{where} cannot be opened",
    };
}
