using System.Diagnostics;

namespace MountLedger.Bench;

/// <summary>A directory of this run, and everything that was started in it: both are gone when it ends.</summary>
internal sealed class Workplace : IAsyncDisposable
{
    private readonly List<Func<ValueTask>> endings = [];
    private int serial;

    private Workplace(string path) => Path = path;

    public string Path { get; }

    public static Workplace Create()
    {
        var directory = Directory.CreateTempSubdirectory("mountledger-b-");
        // The account that PostgreSQL runs as has to get through.
        File.SetUnixFileMode(directory.FullName, (UnixFileMode)0b111_101_101);
        return new Workplace(directory.FullName);
    }

    public string NewDirectory(string name)
    {
        var path = System.IO.Path.Combine(Path, $"{name}{++serial}");
        Directory.CreateDirectory(path);
        return path;
    }

    public void AtEnd(Func<ValueTask> ending) => endings.Add(ending);

    public async ValueTask DisposeAsync()
    {
        foreach (var ending in Enumerable.Reverse(endings)) await ending();
        // What is mounted is only in this process's namespace; another one removes the directories below without entering it.
        Programs.Run("umount", "--recursive", "--lazy", "--quiet", Path);
        try
        {
            Directory.Delete(Path, recursive: true);
        }
        catch (IOException)
        {
            foreach (var line in File.ReadLines("/proc/self/mountinfo"))
            {
                var mounted = line.Split(' ')[4];
                if (mounted.StartsWith(Path + "/", StringComparison.Ordinal)) Kernel.Unmount(mounted);
            }
            Directory.Delete(Path, recursive: true);
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
