using System.Collections.Immutable;
using System.Diagnostics;
using System.Globalization;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// Who keeps a mount busy, from /proc alone: nothing here touches the mounted filesystem. Bounded in processes,
/// descriptors, results and time, because it runs while somebody waits for a failed unmount.
/// </summary>
internal static class HolderSearch
{
    private const int ProcessesMax = 8192;
    private const int DescriptorsMax = 1024;
    private const int MapLinesMax = 4096;
    private const int HoldersMax = 16;
    private const int BelowShownMax = 8;
    private static readonly TimeSpan TimeMax = TimeSpan.FromMilliseconds(400);

    /// <summary>Processes that use the mount at <paramref name="path"/> whose old id is <paramref name="oldId"/>.</summary>
    public static ImmutableArray<MountHolder> Find(string path, uint oldId)
    {
        var clock = Stopwatch.StartNew();
        var holders = ImmutableArray.CreateBuilder<MountHolder>();
        foreach (var directory in Enumerate("/proc").Take(ProcessesMax))
        {
            if (clock.Elapsed > TimeMax || holders.Count == HoldersMax) break;
            if (!int.TryParse(Path.GetFileName(directory.AsSpan()), NumberStyles.None, CultureInfo.InvariantCulture, out var pid)) continue;
            if (pid == Environment.ProcessId) continue;
            var uses = UsesOf(directory, path, oldId, clock);
            if (uses.Length > 0) holders.Add(new MountHolder(pid, Command(directory), uses));
        }
        return holders.ToImmutable();
    }

    /// <summary>
    /// What else keeps it busy, for the message: mounts on top of it or below it, and loop devices over files in it. Null
    /// when there is nothing.
    /// </summary>
    public static string? OtherUses(string path, ulong? mountId)
    {
        var below = new List<string>();
        if (!KernelInterfaces.HasUniqueIds)
        {
            if (MountTable.ByPath(path).FirstOrDefault().Mount is { } top) below.AddRange(MountTable.Below(top).Take(BelowShownMax).Select(mount => mount.Path));
        }
        else if (mountId is { } id)
        {
            var ids = new List<ulong>();
            MountQueryCalls.List(id, 1024, ids);
            foreach (var child in ids.Take(BelowShownMax))
                if (MountTable.ById(child)?.Point is { } point) below.Add(point);
        }
        var loops = LoopDevices.WithFilesBelow(path).ToList();
        var texts = new List<string>();
        if (below.Count > 0) texts.Add($"mounts below it: {string.Join(", ", below)}");
        if (loops.Count > 0) texts.Add($"loop devices over its files: {string.Join(", ", loops)}");
        return texts.Count == 0 ? null : string.Join("; ", texts);
    }

    private static ImmutableArray<string> UsesOf(string process, string path, uint oldId, Stopwatch clock)
    {
        var uses = ImmutableArray.CreateBuilder<string>(4);
        if (IsBelow(PathCalls.ReadLink(process + "/cwd"), path)) uses.Add("cwd");
        if (IsBelow(PathCalls.ReadLink(process + "/root"), path)) uses.Add("root");
        if (IsBelow(PathCalls.ReadLink(process + "/exe"), path)) uses.Add("program");
        if (HasOpen(process, oldId, clock)) uses.Add("open");
        if (!uses.Contains("program") && HasMapped(process, path, clock)) uses.Add("mapped");
        return uses.ToImmutable();
    }

    private static bool HasOpen(string process, uint oldId, Stopwatch clock)
    {
        foreach (var file in Enumerate(process + "/fdinfo").Take(DescriptorsMax))
        {
            if (clock.Elapsed > TimeMax) return false;
            try
            {
                foreach (var line in File.ReadLines(file))
                {
                    if (!line.StartsWith("mnt_id:", StringComparison.Ordinal)) continue;
                    if (uint.TryParse(line.AsSpan(7).Trim(), out var id) && id == oldId) return true;
                    break;
                }
            }
            catch (Exception gone) when (gone is IOException or UnauthorizedAccessException) { }
        }
        return false;
    }

    private static bool HasMapped(string process, string path, Stopwatch clock)
    {
        try
        {
            foreach (var line in File.ReadLines(process + "/maps").Take(MapLinesMax))
            {
                if (clock.Elapsed > TimeMax) return false;
                var slash = line.IndexOf('/', StringComparison.Ordinal);
                if (slash > 0 && IsBelow(line[slash..], path)) return true;
            }
        }
        catch (Exception gone) when (gone is IOException or UnauthorizedAccessException) { }
        return false;
    }

    private static bool IsBelow(string? used, string path) =>
        used is not null && used.StartsWith(path, StringComparison.Ordinal)
        && (used.Length == path.Length || used[path.Length] is '/' or ' ');

    private static string Command(string process)
    {
        try
        {
            return File.ReadAllText(process + "/comm").TrimEnd('\n');
        }
        catch (Exception gone) when (gone is IOException or UnauthorizedAccessException)
        {
            return "?";
        }
    }

    private static string[] Enumerate(string directory)
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
}
