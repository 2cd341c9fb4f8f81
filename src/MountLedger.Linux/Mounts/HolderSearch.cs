using System.Collections.Immutable;
using System.Diagnostics;
using System.Globalization;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// Who keeps a mount busy, found by the mount's id in /proc: nothing here touches the mounted filesystem, which may be the
/// one that hangs. Bounded in processes, results and time, because it runs while somebody waits for a failed unmount.
/// </summary>
internal sealed class HolderSearch
{
    private const int ProcessesMax = 8192;
    private const int HoldersMax = 16;
    private const int ShownMax = 8;
    private const int StuckMax = 4;
    private static readonly TimeSpan TimeMax = TimeSpan.FromSeconds(3);
    private static readonly TimeSpan WaitMax = TimeSpan.FromSeconds(4);
    private static int stuck;

    private readonly Lock gate = new();
    private readonly List<MountHolder> holders = [];
    private readonly List<string> others = [];
    private readonly List<string> notes = [];
    private bool finished;

    private HolderSearch() { }

    /// <summary>The mount that is searched for.</summary>
    /// <param name="Path">Where it is; only for what the kernel tells as text alone (loop devices, swap, sockets).</param>
    /// <param name="OldId">Its id as /proc/PID/fdinfo shows it.</param>
    /// <param name="UniqueId">Its id for listmount; null on kernels without it.</param>
    /// <param name="PeerGroup">Under which its copies in other mount namespaces go; 0: it has none.</param>
    public readonly record struct Target(string Path, uint OldId, ulong? UniqueId, uint DeviceMajor, uint DeviceMinor, ulong PeerGroup);

    /// <summary>The processes, and a text for what is no process (or null).</summary>
    public readonly record struct Result(ImmutableArray<MountHolder> Holders, string? Others);

    /// <summary>
    /// Searches on a thread of its own: looking at another process's directory may ask a dead file server (NFS does), and
    /// then that thread is left behind, at most <see cref="StuckMax"/> of them.
    /// </summary>
    public static Result Find(Target target)
    {
        if (Volatile.Read(ref stuck) >= StuckMax) return new Result([], $"not searched for: {StuckMax} earlier searches hang");
        var search = new HolderSearch();
        var thread = new Thread(() => search.Run(target)) { IsBackground = true, Name = "holders" };
        thread.Start();
        thread.Join(WaitMax);
        return search.Take(thread);
    }

    /// <summary>
    /// Whether this very process has the mount open just now: another request that looks at something in it. That is over
    /// in a moment and concerns nobody.
    /// </summary>
    public static bool IsHeldByThisProcess(uint oldId)
    {
        foreach (var file in ProcessUses.Entries("/proc/self/fdinfo"))
            if (ProcessUses.MountIdIn(file) == oldId) return true;
        return false;
    }

    private Result Take(Thread thread)
    {
        lock (gate)
        {
            if (!finished && thread.IsAlive)
            {
                Interlocked.Increment(ref stuck);
                new Thread(() =>
                {
                    thread.Join();
                    Interlocked.Decrement(ref stuck);
                })
                { IsBackground = true, Name = "holders-stuck" }.Start();
                notes.Add("the search was cut short: looking at a process does not come back");
            }
            var all = others.Concat(notes).ToList();
            return new Result([.. holders], all.Count == 0 ? null : string.Join("; ", all));
        }
    }

    private void Run(Target target)
    {
        try
        {
            Others(target);
            Processes(target);
        }
#pragma warning disable CA1031 // On a thread of its own it would end the worker, with all that others wait for.
        catch (Exception e)
#pragma warning restore CA1031
        {
            Note($"the search was cut short: {e.Message}");
        }
        finally
        {
            lock (gate) finished = true;
        }
    }

    private void Processes(Target target)
    {
        var clock = Stopwatch.StartNew();
        var uses = new ProcessUses(target, [target.OldId, .. MountCopies.In(target.PeerGroup)], () => clock.Elapsed > TimeMax);
        var unseen = 0;
        var examined = 0;
        // The newest first: what holds a mount is seldom older than the mount.
        foreach (var directory in ProcessUses.Entries("/proc").OrderByDescending(entry => entry.Length).ThenByDescending(entry => entry, StringComparer.Ordinal))
        {
            if (!int.TryParse(Path.GetFileName(directory.AsSpan()), NumberStyles.None, CultureInfo.InvariantCulture, out var pid)) continue;
            if (pid == Environment.ProcessId) continue;
            if (clock.Elapsed > TimeMax || holders.Count == HoldersMax || ++examined > ProcessesMax)
            {
                Note("there may be more");
                break;
            }
            var found = uses.Of(directory, out var readable);
            if (!readable) unseen++;
            if (found.IsEmpty) continue;
            lock (gate) holders.Add(new MountHolder(pid, ProcessUses.CommandOf(directory), found));
        }
        if (unseen > 0) Note($"{unseen} processes may not be looked at");
        if (holders.Count == 0 && others.Count == 0) Note("no holder can be seen");
    }

    private void Others(Target target)
    {
        var below = new List<string>();
        if (target.UniqueId is { } id)
        {
            var ids = new List<ulong>();
            MountQueryCalls.List(id, 1024, ids);
            foreach (var child in ids.Take(ShownMax))
                if (MountQueryCalls.Look(child, MountQueryCalls.Everything, out var mount) == 0 && mount?.Point is { } point) below.Add(point);
        }
        else
        {
            below.AddRange(MountInfoReader.Read(out _).Select(entry => entry.Mount.Path)
                .Where(path => path.StartsWith(target.Path + "/", StringComparison.Ordinal)).Take(ShownMax));
        }
        var loops = LoopDevices.WithFilesBelow(target.Path);
        var swaps = ProcessUses.Lines("/proc/swaps").Skip(1).Select(line => Unescaped(line.Split([' ', '\t'], 2)[0]))
            .Where(file => file.StartsWith(target.Path + "/", StringComparison.Ordinal)).Take(ShownMax).ToList();
        lock (gate)
        {
            if (below.Count > 0) others.Add($"mounts below it: {string.Join(", ", below)}");
            if (loops.Count > 0) others.Add($"loop devices over its files: {string.Join(", ", loops)}");
            if (swaps.Count > 0) others.Add($"swap files: {string.Join(", ", swaps)}");
        }
    }

    private static string Unescaped(string text) =>
        text.Replace("\\040", " ", StringComparison.Ordinal).Replace("\\011", "\t", StringComparison.Ordinal)
            .Replace("\\012", "\n", StringComparison.Ordinal).Replace("\\134", "\\", StringComparison.Ordinal);

    private void Note(string text)
    {
        lock (gate) notes.Add(text);
    }
}
