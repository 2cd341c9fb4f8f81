using System.Globalization;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// Finds what a helper left running, also where it has left its group, by the staging path among its arguments: that
/// path has a name that nothing else on this machine has.
/// </summary>
internal static class HelperSearch
{
    private const int ProcessesMax = 8192;
    private const int ArgumentsMax = 128 * 1024;

    /// <summary>SIGKILL to every process that was given this path.</summary>
    /// <returns>How many.</returns>
    public static int Kill(string path)
    {
        var killed = 0;
        foreach (var directory in Directory.EnumerateDirectories("/proc").Take(ProcessesMax))
        {
            if (!int.TryParse(Path.GetFileName(directory.AsSpan()), NumberStyles.None, CultureInfo.InvariantCulture, out var pid)) continue;
            if (pid == Environment.ProcessId || !Mentions(directory, path)) continue;
            // First hold on to the process, then look again: afterwards the pid cannot change hands.
            var number = ProcessCalls.OpenProcess(pid, out _);
            if (number < 0) continue;
            using var process = new Descriptor(number);
            if (Mentions(directory, path) && ProcessCalls.Signal(number, ProcessCalls.SIGKILL) == 0) killed++;
        }
        return killed;
    }

    /// <summary>A process and when it began: the pid alone is used again.</summary>
    public static string? Identify(int pid) => StatOf($"/proc/{pid}") is { } stat ? $"{pid} {stat.Began}" : null;

    /// <summary>SIGKILL to every process of the session that this helper leads or led.</summary>
    /// <param name="identity">What <see cref="Identify"/> said of it.</param>
    public static void KillSession(string identity)
    {
        if (!int.TryParse(identity.Split(' ')[0], NumberStyles.None, CultureInfo.InvariantCulture, out var session) || session <= 1) return;
        // While a session has a member, its number is given to no other process: so a leader that is another one means that it has none.
        if (Identify(session) is { } leader && leader != identity) return;
        foreach (var directory in Directory.EnumerateDirectories("/proc").Take(ProcessesMax))
        {
            if (!int.TryParse(Path.GetFileName(directory.AsSpan()), NumberStyles.None, CultureInfo.InvariantCulture, out var pid)) continue;
            if (StatOf(directory)?.Session != session) continue;
            var number = ProcessCalls.OpenProcess(pid, out _);
            if (number < 0) continue;
            using var process = new Descriptor(number);
            if (StatOf(directory)?.Session == session) ProcessCalls.Signal(number, ProcessCalls.SIGKILL);
        }
    }

    /// <summary>proc_pid_stat(5): fields 6 and 22; the name, in brackets, may hold anything.</summary>
    private static (int Session, string Began)? StatOf(string process)
    {
        try
        {
            var stat = File.ReadAllText($"{process}/stat");
            var fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
            return (int.Parse(fields[3], CultureInfo.InvariantCulture), fields[19]);
        }
        catch (Exception gone) when (gone is IOException or UnauthorizedAccessException or IndexOutOfRangeException)
        {
            return null;
        }
    }

    private static bool Mentions(string process, string path)
    {
        try
        {
            using var file = File.OpenRead($"{process}/cmdline");
            var buffer = new byte[ArgumentsMax];
            var length = file.ReadAtLeast(buffer, ArgumentsMax, throwOnEndOfStream: false);
            return System.Text.Encoding.UTF8.GetString(buffer, 0, length).Split('\0').Contains(path, StringComparer.Ordinal);
        }
        catch (Exception gone) when (gone is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }
}
