using System.Diagnostics;

namespace MountLedger.EndToEnd;

/// <summary>Programs that a test does the rest of the world with: somebody who mounts and unmounts by hand.</summary>
public static class Shell
{
    /// <summary>Runs a program and returns what it printed; fails the test when it fails.</summary>
    public static string Run(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(program) { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (var argument in arguments) start.ArgumentList.Add(argument);
        using var process = Process.Start(start)!;
        var errors = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEnd();
        Assert.True(process.WaitForExit(30_000), $"{program} hangs");
        Assert.True(process.ExitCode == 0, $"{program} {string.Join(' ', arguments)}: {errors.Result}");
        return output;
    }
}
