using System.Collections.Immutable;
using System.Globalization;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// How one process uses a mount. Its directories, program, descriptors and mapped files are told by the id of the mount
/// that they lie in, which no rename, link or second namespace can blur; descriptors are opened with O_PATH only, which asks no
/// filesystem anything.
/// </summary>
internal sealed class ProcessUses
{
    private const int DescriptorsMax = 4096;
    private const int MapLinesMax = 65536;
    private const int MapOpensMax = 256;

    private readonly HolderSearch.Target target;
    private readonly HashSet<uint> ids;
    private readonly Func<bool> timeIsUp;
    private readonly string device;
    private readonly string? namespaceHere = PathCalls.ReadLink("/proc/self/ns/mnt");
    private readonly HashSet<string> sockets;

    /// <param name="ids">Ids (as fdinfo shows them) of the mount and of its copies in other namespaces.</param>
    public ProcessUses(HolderSearch.Target target, IEnumerable<uint> ids, Func<bool> timeIsUp)
    {
        (this.target, this.ids, this.timeIsUp) = (target, [.. ids], timeIsUp);
        device = string.Create(CultureInfo.InvariantCulture, $"{target.DeviceMajor:x2}:{target.DeviceMinor:x2}");
        sockets = SocketsBelow(target.Path);
    }

    /// <summary>
    /// Some of <c>cwd</c>, <c>root</c>, <c>program</c>, <c>open</c>, <c>mapped</c>, <c>socket</c>, and with them
    /// <c>namespace</c> when the process is in another mount namespace; empty: it does not use it.
    /// </summary>
    /// <param name="readable">False when this process may not be looked at.</param>
    public ImmutableArray<string> Of(string process, out bool readable)
    {
        var uses = ImmutableArray.CreateBuilder<string>(4);
        var cwd = IdBehind(process + "/cwd", out var errno);
        readable = errno is not (Errno.EACCES or Errno.EPERM);
        if (IsOurs(cwd)) uses.Add("cwd");
        if (IsOurs(IdBehind(process + "/root", out _))) uses.Add("root");
        var program = IsOurs(IdBehind(process + "/exe", out _));
        if (program) uses.Add("program");
        if (HasOpen(process)) uses.Add("open");
        if (!program && HasMapped(process)) uses.Add("mapped");
        if (sockets.Count > 0 && HasSocket(process)) uses.Add("socket");
        if (uses.Count > 0 && PathCalls.ReadLink(process + "/ns/mnt") is { } there && there != namespaceHere) uses.Add("namespace");
        return uses.ToImmutable();
    }

    public static string CommandOf(string process) => Lines(process + "/comm") is [var name, ..] ? name : "?";

    /// <summary>The <c>mnt_id</c> of a file of /proc/PID/fdinfo; null when it is gone.</summary>
    public static uint? MountIdIn(string fdinfo)
    {
        foreach (var line in Lines(fdinfo))
            if (line.StartsWith("mnt_id:", StringComparison.Ordinal))
                return uint.TryParse(line.AsSpan(7).Trim(), CultureInfo.InvariantCulture, out var id) ? id : null;
        return null;
    }

    /// <summary>The lines of a file of /proc; none when it is gone or may not be read.</summary>
    public static IReadOnlyList<string> Lines(string file)
    {
        try
        {
            return File.ReadAllLines(file);
        }
        catch (Exception gone) when (gone is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }

    public static string[] Entries(string directory)
    {
        try
        {
            return Directory.GetFileSystemEntries(directory);
        }
        catch (Exception gone) when (gone is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }

    private bool IsOurs(uint? id) => id is { } known && ids.Contains(known);

    /// <summary>The id of the mount that a magic link of /proc leads into.</summary>
    private static uint? IdBehind(string magicLink, out int errno)
    {
        var number = PathCalls.OpenAt(PathCalls.AT_FDCWD, magicLink, PathCalls.O_PATH, 0, out errno);
        if (number < 0) return null;
        using var opened = new Descriptor(number);
        return MountIdIn($"/proc/self/fdinfo/{number}");
    }

    private bool HasOpen(string process)
    {
        foreach (var file in Entries(process + "/fdinfo").Take(DescriptorsMax))
        {
            if (timeIsUp()) return false;
            if (IsOurs(MountIdIn(file))) return true;
        }
        return false;
    }

    /// <summary>
    /// The device number sorts out what lies in another filesystem; the link in map_files then tells the mount. Who may not
    /// follow that link (it takes privileges) has to make do with the path.
    /// </summary>
    private bool HasMapped(string process)
    {
        var opens = 0;
        foreach (var line in Lines(process + "/maps").Take(MapLinesMax))
        {
            var fields = line.Split(' ', 6, StringSplitOptions.RemoveEmptyEntries);
            if (fields.Length < 6) continue;
            var named = IsBelow(fields[5].TrimStart(), target.Path);
            if (fields[3] != device && !named) continue;
            if (timeIsUp() || ++opens > MapOpensMax) return false;
            var id = IdBehind($"{process}/map_files/{WithoutPadding(fields[0])}", out var errno);
            if (IsOurs(id) || (id is null && named && errno is Errno.EPERM or Errno.EACCES)) return true;
        }
        return false;
    }

    /// <summary>maps pads addresses to eight digits, map_files does not.</summary>
    private static string WithoutPadding(string range) =>
        string.Join('-', range.Split('-').Select(address => address.TrimStart('0') is { Length: > 0 } digits ? digits : "0"));

    private bool HasSocket(string process)
    {
        foreach (var link in Entries(process + "/fd").Take(DescriptorsMax))
        {
            if (timeIsUp()) return false;
            if (PathCalls.ReadLink(link) is { } name && sockets.Contains(name)) return true;
        }
        return false;
    }

    /// <summary>
    /// Sockets bound to a name in the mount, as <c>socket:[inode]</c>: they hold it, and their descriptors do not show it.
    /// The kernel tells the name as it was given and nothing else, so only absolute ones are found.
    /// </summary>
    private static HashSet<string> SocketsBelow(string path)
    {
        var found = new HashSet<string>(StringComparer.Ordinal);
        foreach (var line in Lines("/proc/net/unix").Skip(1))
        {
            var fields = line.Split(' ', 8, StringSplitOptions.RemoveEmptyEntries);
            if (fields.Length == 8 && IsBelow(fields[7], path)) found.Add($"socket:[{fields[6]}]");
        }
        return found;
    }

    private static bool IsBelow(string used, string path) => used.StartsWith(path + "/", StringComparison.Ordinal);
}
