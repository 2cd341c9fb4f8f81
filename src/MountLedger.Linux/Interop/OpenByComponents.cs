namespace MountLedger.Linux.Interop;

/// <summary>
/// What openat2 does with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS, for kernels before 5.6: one component after the other below the descriptor of
/// the one before, with O_NOFOLLOW. As nothing but names is ever looked up (no link, no <c>..</c>), nobody can lead the walk elsewhere.
/// </summary>
internal static class OpenByComponents
{
    private const ulong Middle = PathCalls.O_PATH;

    /// <summary>As <see cref="PathCalls.OpenAt"/>.</summary>
    public static int Open(int directory, string path, ulong flags, ulong resolve, out int errno, ulong mode)
    {
        // Without a rule about links the plain call is the same.
        if ((resolve & PathCalls.RESOLVE_NO_SYMLINKS) == 0) return PathCalls.OpenPlain(directory, path, flags, mode, out errno);
        if (path.StartsWith('/') && (resolve & PathCalls.RESOLVE_BENEATH) != 0) return Refused(Errno.EXDEV, out errno);

        var components = path.Split('/', StringSplitOptions.RemoveEmptyEntries).Where(component => component != ".").ToArray();
        if (components.Contains("..")) return Refused(Errno.EXDEV, out errno);
        var start = path.StartsWith('/') ? "/" : ".";
        if (components.Length == 0) return PathCalls.OpenPlain(directory, start, flags, mode, out errno);

        var current = PathCalls.OpenPlain(directory, start, Middle | PathCalls.O_DIRECTORY, 0, out errno);
        foreach (var component in components[..^1])
        {
            if (current < 0) return current;
            using var above = new Descriptor(current);
            current = OpenOne(current, component, Middle | PathCalls.O_DIRECTORY, 0, out errno);
        }
        if (current < 0) return current;
        using var parent = new Descriptor(current);
        return OpenOne(current, components[^1], flags, mode, out errno);
    }

    private static int OpenOne(int directory, string name, ulong flags, ulong mode, out int errno)
    {
        var opened = PathCalls.OpenPlain(directory, name, flags | PathCalls.O_NOFOLLOW, mode, out errno);
        // A link is "not a directory" to the one call, and opened itself by the other (O_PATH): both have to be told from the rest.
        if (opened < 0 && errno == Errno.ENOTDIR && IsLink(directory, name)) errno = Errno.ELOOP;
        if (opened < 0 || (flags & PathCalls.O_PATH) == 0 || (flags & PathCalls.O_DIRECTORY) != 0) return opened;
        if (MountQueryCalls.Describe(opened, out var facts) != 0 || !facts.IsLink) return opened;
        new Descriptor(opened).Dispose();
        return Refused(Errno.ELOOP, out errno);
    }

    private static bool IsLink(int directory, string name)
    {
        var number = PathCalls.OpenPlain(directory, name, PathCalls.O_PATH | PathCalls.O_NOFOLLOW, 0, out _);
        if (number < 0) return false;
        using var opened = new Descriptor(number);
        return MountQueryCalls.Describe(opened.Number, out var facts) == 0 && facts.IsLink;
    }

    private static int Refused(int why, out int errno)
    {
        errno = why;
        return -1;
    }
}
