using System.Diagnostics;
using System.Globalization;
using Xunit;

namespace MountLedger.Tests;

/// <summary>Signals to other processes.</summary>
public static class RootSignal
{
    private static readonly TimeSpan TakesEffectWithin = TimeSpan.FromSeconds(10);

    /// <summary>
    /// Sends a signal by <c>kill(1)</c>; a process that has ended already gets none. SIGSTOP is waited for: it is one thread that takes
    /// it and stops the others, and on a busy machine these can still do what they are asked after <c>kill</c> has returned.
    /// </summary>
    /// <param name="signal">Its name without SIG.</param>
    public static void Send(int pid, string signal)
    {
        using var kill = Process.Start(new ProcessStartInfo("kill", ["-" + signal, pid.ToString(CultureInfo.InvariantCulture)]) { RedirectStandardError = true })!;
        var error = kill.StandardError.ReadToEnd();
        kill.WaitForExit();
        Assert.True(kill.ExitCode == 0 || !Directory.Exists($"/proc/{pid}"), error);
        if (signal == "STOP") Assert.True(SpinWait.SpinUntil(() => !Runs(pid), TakesEffectWithin), $"process {pid} stops");
    }

    /// <summary>A thread of it may still do something; one that waits within the kernel (D) does nothing before it stops.</summary>
    private static bool Runs(int pid)
    {
        try
        {
            return Directory.GetDirectories($"/proc/{pid}/task").Any(task => StateOf(task) is 'R' or 'S');
        }
        catch (IOException)
        {
            return false;
        }
    }

    private static char StateOf(string task)
    {
        try
        {
            var stat = File.ReadAllText(Path.Combine(task, "stat"));
            return stat[stat.LastIndexOf(')') + 2];
        }
        catch (IOException)
        {
            // The thread has ended.
            return 'X';
        }
    }
}
