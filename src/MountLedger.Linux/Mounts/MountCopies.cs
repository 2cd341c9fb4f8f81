using System.Globalization;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// Copies of a mount that propagation made in other mount namespaces: unmounting the original takes them along, so whoever
/// uses one of them keeps the original busy (the kernel's propagate_mount_busy).
/// </summary>
internal static class MountCopies
{
    private const int NamespacesMax = 64;
    private const int ProcessesMax = 4096;

    /// <summary>Ids, as fdinfo shows them, of all mounts in other namespaces that belong to or follow this peer group.</summary>
    /// <param name="peerGroup">0: the mount is shared with nobody, so there are none.</param>
    public static IReadOnlyList<uint> In(ulong peerGroup)
    {
        var ids = new List<uint>();
        if (peerGroup == 0) return ids;
        var seen = new HashSet<string>(StringComparer.Ordinal) { PathCalls.ReadLink("/proc/self/ns/mnt") ?? "" };
        var words = new[] { $"shared:{peerGroup}", $"master:{peerGroup}" };
        foreach (var process in ProcessUses.Entries("/proc").Where(entry => char.IsAsciiDigit(entry[^1])).Take(ProcessesMax))
        {
            if (PathCalls.ReadLink(process + "/ns/mnt") is not { } name || !seen.Add(name)) continue;
            if (seen.Count > NamespacesMax) break;
            foreach (var line in ProcessUses.Lines(process + "/mountinfo"))
            {
                // 36 35 98:0 /root /point options [shared:N] [master:N] … - type source options
                var fields = line.Split(' ');
                var end = Array.IndexOf(fields, "-");
                if (end > 6 && fields[6..end].Any(words.Contains) && uint.TryParse(fields[0], CultureInfo.InvariantCulture, out var id)) ids.Add(id);
            }
        }
        return ids;
    }
}
