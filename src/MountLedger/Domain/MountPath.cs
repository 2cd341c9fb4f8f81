namespace MountLedger;

/// <summary>Relations of absolute, normalised paths: what is above, what is below. No I/O.</summary>
public static class MountPath
{
    /// <summary>The proper ancestors of a path, nearest first, without the root: <c>/a/b/c</c> gives <c>/a/b</c>, <c>/a</c>.</summary>
    public static IEnumerable<string> AncestorsOf(string path)
    {
        for (var cut = path.LastIndexOf('/'); cut > 0; cut = path.LastIndexOf('/', cut - 1))
            yield return path[..cut];
    }

    /// <summary>Whether <paramref name="path"/> is a proper descendant of <paramref name="ancestor"/>.</summary>
    public static bool IsBelow(string path, string ancestor) =>
        ancestor == "/"
            ? path.Length > 1
            : path.Length > ancestor.Length && path[ancestor.Length] == '/' && path.StartsWith(ancestor, StringComparison.Ordinal);
}
