using System.Diagnostics;
using System.Globalization;

namespace MountLedger.Bench;

/// <summary>A directory of this run, and everything that was started in it: both are gone when it ends, whether the run is done or was stopped.</summary>
internal sealed class Workplace : IAsyncDisposable
{
    private static readonly TimeSpan QuitMax = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan DirectoryGoneMax = TimeSpan.FromSeconds(10);

    private readonly List<Func<ValueTask>> endings = [];
    private readonly Lock gate = new();
    private readonly Lazy<Task> ending;
    private bool isEnding;
    private int serial;

    private Workplace(string path)
    {
        Path = path;
        ending = new(() => Task.Run(EndAsync));
    }

    public string Path { get; }

    public static Workplace Create()
    {
        var directory = Directory.CreateTempSubdirectory("mountledger-b-");
        // The account that PostgreSQL runs as has to get through.
        File.SetUnixFileMode(directory.FullName, (UnixFileMode)0b111_101_101);
        return new Workplace(directory.FullName);
    }

    /// <exception cref="OperationCanceledException">The run ends.</exception>
    public string NewDirectory(string name)
    {
        lock (gate)
        {
            ThrowIfEnding();
            var path = System.IO.Path.Combine(Path, $"{name}{++serial}");
            Directory.CreateDirectory(path);
            return path;
        }
    }

    /// <summary>What is to be done when the run ends; the last one first. To be called before that is started which it ends.</summary>
    /// <exception cref="OperationCanceledException">The run ends.</exception>
    public void AtEnd(Func<ValueTask> ending)
    {
        lock (gate)
        {
            ThrowIfEnding();
            endings.Add(ending);
        }
    }

    /// <summary>Ends everything, once, whoever asks for it and how often.</summary>
    public async ValueTask DisposeAsync() => await ending.Value;

    private void ThrowIfEnding()
    {
        if (isEnding) throw new OperationCanceledException("the run ends");
    }

    private async Task EndAsync()
    {
        lock (gate) isEnding = true;
        foreach (var ending in Enumerable.Reverse(endings)) await ending();
        await EndProcessesAsync();
        var waited = Stopwatch.StartNew();
        for (var isFirst = true; ; isFirst = false)
        {
            // A measure that failed or was stopped in the middle has left its mounts, or mounts something even now.
            foreach (var line in File.ReadLines("/proc/self/mountinfo"))
            {
                var mounted = line.Split(' ')[4];
                if (mounted.StartsWith(Path + "/", StringComparison.Ordinal)) Kernel.Unmount(mounted);
            }
            try
            {
                Directory.Delete(Path, recursive: true);
                break;
            }
            catch (IOException) when (isFirst || waited.Elapsed < DirectoryGoneMax)
            {
                await Task.Delay(50);
            }
        }
        await EndProcessesAsync();
    }

    /// <summary>
    /// Ends what still works in the directory or names it on its command line: the PostgreSQL of an agent that was killed, or of a measure that was
    /// stopped while it started one; programs that ran by turns with us. They may quit (SIGQUIT: a PostgreSQL that takes its shared memory with it), then
    /// they are killed.
    /// </summary>
    private async Task EndProcessesAsync()
    {
        var waited = Stopwatch.StartNew();
        while (ProcessFigures.Concerning(Path) is [_, ..] left && waited.Elapsed < QuitMax * 2)
        {
            var signal = waited.Elapsed < QuitMax ? "-QUIT" : "-KILL";
            Programs.Run("kill", [signal, .. left.Select(pid => pid.ToString(CultureInfo.InvariantCulture))]);
            await Task.Delay(200);
        }
    }
}

/// <summary>Programs by argument vector.</summary>
internal static class Programs
{
    public static string Output(string program, params string[] arguments)
    {
        using var process = Start(program, arguments);
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return output.Trim();
    }

    /// <returns>The exit code; what it prints goes nowhere.</returns>
    public static int Run(string program, params string[] arguments)
    {
        using var process = Start(program, arguments);
        process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode;
    }

    /// <exception cref="InvalidOperationException">It failed.</exception>
    public static string Must(string program, params string[] arguments)
    {
        using var process = Start(program, arguments);
        var error = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0
            ? output
            : throw new InvalidOperationException($"{program} ended with {process.ExitCode}: {error.Result.Trim()}");
    }

    private static Process Start(string program, string[] arguments)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
        return Process.Start(start)!;
    }
}
