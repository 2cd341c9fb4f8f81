using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// The whole mount table of this process's namespace: /proc/self/mountinfo, with unique ids from listmount(2) and
/// statmount(2) where the kernel has them. It touches no filesystem, so it cannot hang; it costs about 5 ms for each
/// thousand mounts and slows down whoever mounts meanwhile, so it is not for every command.
/// </summary>
public static class MountInfoReader
{
    /// <summary>Twice the kernel's default limit (fs.mount-max).</summary>
    public const int MountsMax = 200_000;

    private const string TablePath = "/proc/self/mountinfo";
    private const int PassesMax = 3;
    private const int OddLinesMax = 16;

    /// <summary>All mounts, oldest first.</summary>
    /// <param name="oddLines">At most 16 lines that could not be read, with the reason; they are left out of the result.</param>
    /// <exception cref="IOException">/proc is not there.</exception>
    public static List<MountInfoEntry> Read(out List<string> oddLines)
    {
        for (var pass = 1; ; pass++)
        {
            using var table = new FileStream(TablePath, FileMode.Open, FileAccess.Read, FileShare.ReadWrite, 0);
            var entries = ReadAll(table, out oddLines);

            // A pass is whole and its ids belong together when nothing was mounted or unmounted from open to here: the
            // kernel then has no event for this open file. Equal content of two passes would prove nothing.
            var ids = ReadUniqueIds(withPaths: false);
            var descriptor = (int)table.SafeFileHandle.DangerousGetHandle();
            var quiet = (SocketCalls.Poll(descriptor, SocketCalls.POLLPRI, 0) & SocketCalls.POLLPRI) == 0;
            if (!quiet && pass < PassesMax) continue;

            // On a table that never rests an old id may have been given to another mount between the two lists: then only
            // the rows whose path agrees as well get their unique id.
            if (!quiet) ids = ReadUniqueIds(withPaths: true);
            for (var i = 0; i < entries.Count; i++)
            {
                var mount = entries[i].Mount;
                if (ids.TryGetValue(mount.OldId, out var unique) && (unique.Path is null || unique.Path == mount.Path))
                    entries[i] = entries[i] with { Mount = mount with { MountId = unique.Id } };
            }
            return entries;
        }
    }

    /// <summary>Parses a table that was read already (a file kept for a test, another process's table).</summary>
    public static List<MountInfoEntry> Parse(ReadOnlySpan<byte> table, out List<string> oddLines)
    {
        var parser = new MountInfoParser();
        var entries = new List<MountInfoEntry>();
        oddLines = [];
        foreach (var range in table.Split((byte)'\n'))
        {
            var line = table[range];
            if (line.IsEmpty) continue;
            if (entries.Count == MountsMax) break;
            if (parser.TryParse(line, out var entry, out var problem)) entries.Add(entry);
            else if (oddLines.Count < OddLinesMax) oddLines.Add($"{problem}: {Shortened(line)}");
        }
        return entries;
    }

    private static List<MountInfoEntry> ReadAll(FileStream table, out List<string> oddLines)
    {
        const int SizeMax = 256 << 20;
        var bytes = new byte[1 << 16];
        var length = 0;
        while (length < SizeMax)
        {
            if (length == bytes.Length) Array.Resize(ref bytes, bytes.Length * 2);
            var read = table.Read(bytes.AsSpan(length));
            if (read == 0) break;
            length += read;
        }
        return Parse(bytes.AsSpan(0, length), out oddLines);
    }

    private static string Shortened(ReadOnlySpan<byte> line)
    {
        const int ShownMax = 200;
        var text = System.Text.Encoding.UTF8.GetString(line[..Math.Min(line.Length, ShownMax)]);
        return string.Concat(text.Select(c => char.IsControl(c) ? '?' : c));
    }

    /// <summary>Old id to unique id, of all mounts; empty on kernels before 6.8.</summary>
    private static Dictionary<int, (ulong Id, string? Path)> ReadUniqueIds(bool withPaths)
    {
        var ids = new List<ulong>();
        var map = new Dictionary<int, (ulong, string?)>();
        if (!KernelInterfaces.HasUniqueIds) return map;
        if (MountQueryCalls.List(MountQueryCalls.LSMT_ROOT, MountsMax, ids) != 0) return map;
        var mask = MountQueryCalls.MNT_BASIC | (withPaths ? MountQueryCalls.MNT_POINT : 0);
        foreach (var id in ids)
        {
            // Gone in between: then its row, if there is one, stays without an id.
            if (MountQueryCalls.Look(id, mask, out var facts) == 0 && facts is not null)
                map[(int)facts.OldId] = (facts.MountId, withPaths ? facts.Point ?? "" : null);
        }
        return map;
    }
}
