using System.Globalization;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// Files that say which workers run, one for each, named by pid: boot id, start time and program. A pid alone proves
/// nothing, because it is used again; the three together do. All of it can be read by who has no capabilities.
/// </summary>
internal sealed class WorkerRecords(string runDirectory)
{
    private const int RecordsMax = 256;
    private const string ActingMark = "acting on ";
    private readonly string directory = Path.Combine(runDirectory, "workers");
    private readonly string bootId = KernelIdentityReader.ReadBootId();

    /// <summary>Keeps a record of a child that was just started.</summary>
    /// <param name="pid">The child.</param>
    /// <param name="actingOn">The only mountpoint that it may be changing: empty for none, null for any.</param>
    public void Add(int pid, string? actingOn = null)
    {
        Directory.CreateDirectory(directory);
        if (IdentifyStarted(pid) is not { } identity) return;
        // Never half a record: who dies while he writes one must not leave a worker that his successor does not know.
        var fresh = FileOf(pid) + ".new";
        File.WriteAllText(fresh, actingOn is null ? identity : $"{identity}{ActingMark}{actingOn}\n");
        File.Move(fresh, FileOf(pid), overwrite: true);
    }

    /// <summary>Says what a worker is about to change, so that a later agent that finds it stuck knows what it must not touch.</summary>
    public void Note(int pid, string actingOn) => Add(pid, actingOn);

    /// <summary>Never throws: a record too many is found out by the next start.</summary>
    public void Remove(int pid)
    {
        try
        {
            File.Delete(FileOf(pid));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The directory is gone or cannot be written: the process is dead all the same.
        }
    }

    /// <summary>
    /// Kills every recorded worker that still runs, and waits for its end.
    /// </summary>
    /// <returns>
    /// Those that are not dead after <paramref name="patience"/>, with what each may change: the kernel holds them; their records stay.
    /// </returns>
    public async Task<IReadOnlyList<(int Pid, Descriptor Process, string? ActingOn)>> KillAllAsync(
        TimeSpan patience, CancellationToken cancellationToken)
    {
        var alive = new List<(int Pid, Descriptor Process, string? ActingOn)>();
        if (!Directory.Exists(directory)) return alive;
        foreach (var file in Directory.EnumerateFiles(directory).Take(RecordsMax))
        {
            if (!int.TryParse(Path.GetFileName(file), NumberStyles.None, CultureInfo.InvariantCulture, out var pid)) continue;
            // First hold on to the process, then check that it is the one: afterwards the pid cannot change hands.
            var number = ProcessCalls.OpenProcess(pid, out _);
            var record = await File.ReadAllTextAsync(file, cancellationToken);
            var lines = record.Split('\n');
            if (number >= 0 && Identify(pid) is { } identity && (identity == lines[0] + "\n" || IsHeld(identity, lines[0])))
            {
                ProcessCalls.Signal(number, ProcessCalls.SIGKILL);
                var acting = lines.Length > 1 && lines[1].StartsWith(ActingMark, StringComparison.Ordinal) ? lines[1][ActingMark.Length..] : null;
                alive.Add((pid, new Descriptor(number), acting));
                continue;
            }
            if (number >= 0) new Descriptor(number).Dispose();
            File.Delete(file);
        }

        var until = Environment.TickCount64 + (long)patience.TotalMilliseconds;
        while (true)
        {
            foreach (var worker in alive.Where(worker => ProcessCalls.HasExited(worker.Process.Number)).ToList())
            {
                var (pid, process, _) = worker;
                alive.Remove(worker);
                ProcessCalls.Reap(process.Number);
                process.Dispose();
                Remove(pid);
            }
            if (alive.Count == 0 || Environment.TickCount64 >= until) return alive;
            await Task.Delay(TimeSpan.FromMilliseconds(2), cancellationToken);
        }
    }

    /// <summary>The same process, whose first thread has died already.</summary>
    private static bool IsHeld(string identity, string recorded) =>
        identity.EndsWith(" \n", StringComparison.Ordinal) && recorded.StartsWith(identity[..^1], StringComparison.Ordinal);

    private string FileOf(int pid) => Path.Combine(directory, pid.ToString(CultureInfo.InvariantCulture));

    /// <summary>Of a child that was started just now: for a moment it is the program already and shows no arguments yet.</summary>
    private string? IdentifyStarted(int pid)
    {
        const int AttemptsMax = 500;
        for (var attempt = 0; ; attempt++)
        {
            if (Identify(pid) is { } identity && !identity.EndsWith(" \n", StringComparison.Ordinal)) return identity;
            if (attempt == AttemptsMax || !IsAlive(pid)) return null;
            Thread.Sleep(1);
        }
    }

    private static bool IsAlive(int pid)
    {
        try
        {
            var stat = File.ReadAllText($"/proc/{pid}/stat");
            return stat[stat.LastIndexOf(')') + 2] is not ('Z' or 'X');
        }
        catch (Exception gone) when (gone is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    /// <summary>Boot id, start time (clock ticks since boot, field 22 of proc_pid_stat(5)) and program; null when it is gone.</summary>
    private string? Identify(int pid)
    {
        try
        {
            var stat = File.ReadAllText($"/proc/{pid}/stat");
            // The name, in brackets, may contain anything: count from its end.
            var fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
            // As it was called: where that leads to (/proc/PID/exe) is shown only to who has every capability of the worker.
            var called = File.ReadAllText($"/proc/{pid}/cmdline").Split('\0')[0];
            var program = called.Length > 0 ? called : null;
            // A zombie has no program any more and can do nothing, unless it has other threads, which the kernel holds.
            if (program is null && Directory.GetDirectories($"/proc/{pid}/task").Length < 2) return null;
            return $"{bootId} {fields[19]} {program}\n";
        }
        catch (Exception gone) when (gone is IOException or UnauthorizedAccessException or IndexOutOfRangeException)
        {
            return null;
        }
    }
}
