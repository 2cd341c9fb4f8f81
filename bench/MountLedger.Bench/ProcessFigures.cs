using System.Globalization;

namespace MountLedger.Bench;

/// <summary>What <c>/proc</c> says of a process. One that has ended has none of anything: these are samples, and processes come and go.</summary>
internal static class ProcessFigures
{
    /// <summary>Resident memory in KB, of which shared pages count in full.</summary>
    public static double ResidentKb(int pid) => Number($"/proc/{pid}/status", "VmRSS");

    /// <summary>
    /// Resident memory in KB, of which shared pages count by the number of those who share them: what processes with a large segment in common
    /// (PostgreSQL's) may be added up by.
    /// </summary>
    public static double ProportionalKb(int pid) => Number($"/proc/{pid}/smaps_rollup", "Pss");

    public static int Threads(int pid) => (int)Number($"/proc/{pid}/status", "Threads");

    public static int Descriptors(int pid) => Read(() => Directory.GetFileSystemEntries($"/proc/{pid}/fd").Length);

    /// <summary>Processor time in seconds since the process began, of the user and of the kernel for it.</summary>
    public static double ProcessorSeconds(int pid)
    {
        var fields = File.ReadAllText($"/proc/{pid}/stat");
        var numbers = fields[(fields.LastIndexOf(')') + 2)..].Split(' ');
        return (double.Parse(numbers[11], CultureInfo.InvariantCulture) + double.Parse(numbers[12], CultureInfo.InvariantCulture)) / 100;
    }

    /// <summary>The first argument of a process, which says what a <c>mountledgerd</c> does; empty when it has none.</summary>
    public static string Verb(int pid) => Read(() => File.ReadAllText($"/proc/{pid}/cmdline").Split('\0') is [_, var verb, ..] ? verb : "") ?? "";

    /// <summary>The children of a process, their children, and so on.</summary>
    public static IReadOnlyList<int> Descendants(int pid)
    {
        var parents = All().ToDictionary(one => one, one => (int)Number($"/proc/{one}/status", "PPid"));
        var found = new List<int> { pid };
        for (var i = 0; i < found.Count; i++) found.AddRange(parents.Where(one => one.Value == found[i]).Select(one => one.Key));
        return found[1..];
    }

    /// <summary>The processes that work in a directory: a PostgreSQL and all its children work in its data directory.</summary>
    public static IReadOnlyList<int> WorkingIn(string directory) =>
        [.. All().Where(pid => Read(() => new FileInfo($"/proc/{pid}/cwd").LinkTarget) == directory)];

    /// <summary>The processes that work below a directory, or name it on their command line.</summary>
    public static IReadOnlyList<int> Concerning(string directory) =>
        [.. All().Where(pid => Read(() => new FileInfo($"/proc/{pid}/cwd").LinkTarget)?.StartsWith(directory, StringComparison.Ordinal) == true
            || Read(() => File.ReadAllText($"/proc/{pid}/cmdline"))?.Contains(directory, StringComparison.Ordinal) == true)];

    private static IEnumerable<int> All() => Directory.GetDirectories("/proc").Select(Path.GetFileName)
        .Where(name => int.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out _)).Select(name => int.Parse(name!, CultureInfo.InvariantCulture));

    /// <summary>A number of a file of <c>NAME: number unit</c> lines; 0 when there is none.</summary>
    private static double Number(string file, string name)
    {
        var line = Read(() => File.ReadLines(file).FirstOrDefault(line => line.StartsWith(name + ":", StringComparison.Ordinal)));
        return line is null ? 0 : double.Parse(line.Split(':')[1].Trim().Split(' ')[0], CultureInfo.InvariantCulture);
    }

    private static T? Read<T>(Func<T> read)
    {
        try
        {
            return read();
        }
        catch (Exception gone) when (gone is IOException or UnauthorizedAccessException)
        {
            return default;
        }
    }
}
