using System.Collections.Immutable;

namespace MountLedger;

/// <summary>
/// Rules of absolute paths. A path is compared and stored byte for byte, so there is exactly one way to write each: no
/// doubled slash, no <c>.</c>, no <c>..</c>, no slash at the end. Links are the kernel side's business (openat2).
/// </summary>
internal static class PathRules
{
    /// <summary>In UTF-8: keeps a path below PATH_MAX with what is put before it, and within one key of a database index.</summary>
    public const int PathBytesMax = 2048;

    /// <summary>NAME_MAX of every Linux filesystem.</summary>
    public const int ComponentBytesMax = 255;

    /// <summary>An absolute, normalised path (<c>/</c> is one), or null with at least one error.</summary>
    public static string? Absolute(InputErrors errors, string field, string? value)
    {
        if (string.IsNullOrEmpty(value))
        {
            errors.Add(field, InputRule.Required, value, "give an absolute path");
            return null;
        }

        var before = errors.Found;
        if (Text.Bytes(value) > PathBytesMax)
            errors.Add(field, InputRule.PathLength, value, $"give a path of at most {PathBytesMax} bytes");
        Text.Check(errors, field, value);
        Text.CheckDirection(errors, field, value);
        if (value[0] != '/')
            errors.Add(field, InputRule.AbsolutePath, value, "give an absolute path, one that begins with '/'");
        if (!IsNormalised(value))
            errors.Add(field, InputRule.NormalisedPath, value, "leave out '//', '.', '..' and a '/' at the end");
        if (value.Split('/').Any(component => Text.Bytes(component) > ComponentBytesMax))
            errors.Add(field, InputRule.ComponentLength, value, $"give each component of the path at most {ComponentBytesMax} bytes");
        return errors.Found == before ? value : null;
    }

    /// <summary>An absolute path strictly below one of the roots, or null with at least one error.</summary>
    public static string? BelowRoot(InputErrors errors, string field, string? value, ImmutableArray<string> roots)
    {
        if (Absolute(errors, field, value) is not { } path) return null;
        if (roots.Any(root => IsBelow(path, root))) return path;
        errors.Add(
            field, InputRule.InsideRoot, value,
            roots.IsEmpty ? "this agent has no roots: start it with --root" : $"give a path below {string.Join(" or ", roots)}");
        return null;
    }

    public static bool IsBelow(string path, string root) =>
        root == "/"
            ? path.Length > 1
            : path.Length > root.Length + 1 && path[root.Length] == '/' && path.StartsWith(root, StringComparison.Ordinal);

    public static bool IsNormalised(string path)
    {
        if (path == "/") return true;
        var components = path.AsSpan(path.StartsWith('/') ? 1 : 0);
        foreach (var range in components.Split('/'))
        {
            if (components[range] is "" or "." or "..") return false;
        }
        return true;
    }
}
