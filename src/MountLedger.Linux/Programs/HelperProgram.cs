using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// The program that mounts a type: <c>mount.TYPE</c>; for <c>fuse.NAME</c> also <c>mount.NAME</c>, or NAME itself, which is
/// what /sbin/mount.fuse would run, through a shell.
/// </summary>
internal static class HelperProgram
{
    /// <summary>The absolute path, or null when it is not installed.</summary>
    /// <exception cref="KernelFailure">It is there, and others than its owner may write it.</exception>
    public static string? Find(string type, IReadOnlyList<string> directories)
    {
        foreach (var name in NamesOf(type))
        {
            foreach (var directory in directories)
            {
                var path = $"{directory}/{name}";
                if (IsProgram(path)) return path;
            }
        }
        return null;
    }

    /// <summary>What it may be called, best first.</summary>
    public static IReadOnlyList<string> NamesOf(string type)
    {
        const string Fuse = "fuse.";
        if (!type.StartsWith(Fuse, StringComparison.Ordinal)) return [$"mount.{type}"];
        var name = type[Fuse.Length..];
        // rclone is a mount helper under these names only.
        return name == "rclone" ? ["mount.fuse.rclone", "mount.rclone", "rclonefs"] : [$"mount.{type}", $"mount.{name}", name];
    }

    private static bool IsProgram(string path)
    {
        const UnixFileMode Executable = UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute;
        const UnixFileMode Open = UnixFileMode.GroupWrite | UnixFileMode.OtherWrite;
        try
        {
            if (!File.Exists(path)) return false;
            var target = File.ResolveLinkTarget(path, returnFinalTarget: true)?.FullName ?? path;
            var mode = File.GetUnixFileMode(target);
            if ((mode & Executable) == 0) return false;
            if ((mode & Open) != 0)
                throw new KernelFailure(Errno.EPERM, $"{target} may be written by others than its owner: it is not run as root; chmod go-w it");
            return true;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }
}
