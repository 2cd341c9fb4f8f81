using System.Diagnostics;
using MountLedger.Linux;

namespace MountLedger.EndToEnd;

/// <summary>Programs that a test does the rest of the world with: somebody who mounts and unmounts by hand.</summary>
public static class Shell
{
    private static readonly TimeSpan BusyMax = TimeSpan.FromSeconds(10);

    /// <summary>Runs a program and returns what it printed; fails the test when it fails.</summary>
    public static string Run(string program, params string[] arguments)
    {
        var (exitCode, output, errors) = Ended(program, arguments);
        Assert.True(exitCode == 0, $"{program} {string.Join(' ', arguments)}: {errors}");
        return output;
    }

    /// <summary>
    /// Unmounts by hand. Whoever looks at a mount keeps it busy in that very moment, and the agent looks at its mounts again and again: so it is tried again
    /// for a while.
    /// </summary>
    /// <param name="path">Where the mount is.</param>
    /// <param name="by">A program and its arguments before the path; by default <c>umount</c>.</param>
    public static void Unmount(string path, params string[] by)
    {
        string[] command = by.Length > 0 ? [.. by, path] : ["umount", path];
        var clock = Stopwatch.StartNew();
        while (true)
        {
            var (exitCode, _, errors) = Ended(command[0], command[1..]);
            if (exitCode == 0) return;
            var isBusy = errors.Contains("busy", StringComparison.Ordinal);
            Assert.True(isBusy && clock.Elapsed < BusyMax, $"{string.Join(' ', command)}: {errors}");
            Thread.Sleep(20);
        }
    }

    /// <summary>Takes a mount away that somebody may still use. One that goes by itself meanwhile is gone all the same.</summary>
    public static void UnmountLazily(string path)
    {
        var (exitCode, _, errors) = Ended("umount", "--lazy", "--no-canonicalize", path);
        Assert.True(exitCode == 0 || MountInfoReader.Read(out _).TrueForAll(entry => entry.Mount.Path != path), $"umount --lazy {path}: {errors}");
    }

    private static (int ExitCode, string Output, string Errors) Ended(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(program) { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (var argument in arguments) start.ArgumentList.Add(argument);
        using var process = Process.Start(start)!;
        var errors = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEnd();
        Assert.True(process.WaitForExit(30_000), $"{program} hangs");
        return (process.ExitCode, output, errors.Result);
    }
}
