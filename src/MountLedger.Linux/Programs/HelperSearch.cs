using System.Globalization;
using System.Text;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// Finds what a helper left running: by the staging path among its arguments (that path has a name that nothing else on this
/// machine has), by the pipe that it prints to, and by its session.
/// </summary>
internal static class HelperSearch
{
    private const int ProcessesMax = 8192;
    private const int ArgumentsMax = 128 * 1024;
    private const string PipePrefix = "pipe:[";

    /// <summary>SIGKILL to every process that was given this path, also where it has left the group of its helper.</summary>
    public static void Kill(string path)
    {
        var argument = Encoding.UTF8.GetBytes(path);
        var buffer = new byte[ArgumentsMax];
        KillWhere(process => Mentions(process, argument, buffer));
    }

    /// <summary>SIGKILL to everything that a line of a helper's note tells.</summary>
    /// <param name="line">What <see cref="Identify"/> said of the helper, or <see cref="NameOf"/> of its output; anything else tells of nothing.</param>
    public static void KillNoted(string line)
    {
        if (line.StartsWith(PipePrefix, StringComparison.Ordinal)) KillWhere(process => Prints(process, line));
        else KillSession(line);
    }

    /// <summary>A process and when it began: the pid alone is used again.</summary>
    public static string? Identify(int pid) => StatOf($"/proc/{pid}") is { } stat ? $"{pid} {stat.Began}" : null;

    /// <summary>The name of a pipe of ours, which is known before anybody prints to it: <c>pipe:[INODE]</c>.</summary>
    public static string? NameOf(Descriptor pipe) => new FileInfo($"/proc/self/fd/{pipe.Number}").LinkTarget;

    private static void KillSession(string identity)
    {
        if (identity.Split(' ') is not [var number, _]) return;
        if (!int.TryParse(number, NumberStyles.None, CultureInfo.InvariantCulture, out var session) || session <= 1) return;
        // While a session has a member, its number is given to no other process: so a leader that is another one means that it has none.
        if (Identify(session) is { } leader && leader != identity) return;
        KillWhere(process => StatOf(process)?.Session == session);
    }

    private static void KillWhere(Func<string, bool> isMeant)
    {
        foreach (var directory in Directory.EnumerateDirectories("/proc").Take(ProcessesMax))
        {
            if (!int.TryParse(Path.GetFileName(directory.AsSpan()), NumberStyles.None, CultureInfo.InvariantCulture, out var pid)) continue;
            if (pid == Environment.ProcessId || !isMeant(directory)) continue;
            // First hold on to the process, then look again: afterwards the pid cannot change hands.
            var number = ProcessCalls.OpenProcess(pid, out _);
            if (number < 0) continue;
            using var process = new Descriptor(number);
            if (isMeant(directory)) ProcessCalls.Signal(number, ProcessCalls.SIGKILL);
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

    private static bool Prints(string process, string pipe)
    {
        try
        {
            return new FileInfo($"{process}/fd/1").LinkTarget == pipe || new FileInfo($"{process}/fd/2").LinkTarget == pipe;
        }
        catch (Exception gone) when (gone is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    private static bool Mentions(string process, ReadOnlySpan<byte> argument, byte[] buffer)
    {
        try
        {
            using var file = File.OpenRead($"{process}/cmdline");
            ReadOnlySpan<byte> arguments = buffer.AsSpan(0, file.ReadAtLeast(buffer, buffer.Length, throwOnEndOfStream: false));
            foreach (var range in arguments.Split((byte)0))
                if (arguments[range].SequenceEqual(argument)) return true;
        }
        catch (Exception gone) when (gone is IOException or UnauthorizedAccessException)
        {
            // It has ended meanwhile.
        }
        return false;
    }
}
