using System.Collections;
using System.Text;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>Starting this program once more, as one of its other parts: with one end of a new socket pair, and nothing else of ours.</summary>
public static class ProgramStart
{
    /// <summary>The descriptor of the channel in every program that is started here.</summary>
    public const int Channel = 3;

    /// <summary>0 and the program that runs, or the error number.</summary>
    internal static int Run(string file, IReadOnlyList<string> arguments, out Launched? started)
    {
        started = null;
        var errno = SocketCalls.Pair(out var ours, out var theirs);
        if (errno != 0 || ours is null || theirs is null) return errno;
        int pid;
        using (theirs) errno = ProcessCalls.Spawn(file, arguments, CleanEnvironment(), theirs.Number, Channel, out pid);
        // Nobody has reaped it, so the number is still this child's.
        var process = errno == 0 ? ProcessCalls.OpenProcess(pid, out errno) : -1;
        if (process >= 0) started = new Launched(pid, new Descriptor(process), ours);
        else ours.Dispose(); // Its channel ends, and so does it.
        return errno;
    }

    /// <summary>The channel is this program's alone: what it starts does not get it, and so cannot keep it open.</summary>
    public static void KeepChannel() => _ = CapabilityCalls.Inherit(Channel, inherited: false);

    /// <summary>What a program that was started so has to say, for who reads its channel; nobody may be left to hear it.</summary>
    public static void Say(string text) => _ = SocketCalls.SendAll(Channel, Encoding.UTF8.GetBytes(text));

    /// <summary>What is started needs neither the agent's secrets nor a socket for diagnosis.</summary>
    private static List<string> CleanEnvironment()
    {
        string[] kept = ["PATH", "LANG", "TZ", "HOME", "TMPDIR"];
        var environment = new List<string> { "DOTNET_EnableDiagnostics=0" };
        foreach (DictionaryEntry pair in Environment.GetEnvironmentVariables())
        {
            var name = (string)pair.Key;
            if (kept.Contains(name) || (name.StartsWith("DOTNET_", StringComparison.Ordinal) && name != "DOTNET_EnableDiagnostics"))
                environment.Add($"{name}={pair.Value}");
        }
        return environment;
    }
}
