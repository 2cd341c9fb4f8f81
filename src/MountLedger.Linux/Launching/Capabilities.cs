using System.Globalization;
using System.Text;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>The capability sets of this process, capabilities(7), and how the agent gets rid of its own.</summary>
public static class Capabilities
{
    private static readonly string[] Sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

    /// <summary>The sets that hold a capability, such as <c>CapBnd</c>; empty: none, and none can be had.</summary>
    /// <exception cref="IOException">/proc is not there.</exception>
    public static IReadOnlyList<string> SetsInUse() =>
    [
        .. from line in File.ReadLines("/proc/self/status")
           let parts = line.Split(':', StringSplitOptions.TrimEntries)
           where Sets.Contains(parts[0]) && ulong.Parse(parts[1], NumberStyles.HexNumber, CultureInfo.InvariantCulture) != 0
           select parts[0],
    ];

    /// <summary>
    /// Whether there is something to give up. Root of a user namespace keeps what it has: it is worth nothing outside, and
    /// that namespace is the border then.
    /// </summary>
    public static bool CanBeGivenUp() => SetsInUse().Contains("CapPrm") && !IsInUserNamespace();

    /// <summary>Whether this process is in a user namespace of its own, not the first one.</summary>
    public static bool IsInUserNamespace() =>
        !File.Exists("/proc/self/uid_map")
            ? false
            : File.ReadAllText("/proc/self/uid_map").Split(null as char[], StringSplitOptions.RemoveEmptyEntries) is not ["0", "0", "4294967295"];

    /// <summary>
    /// Starts a launcher, which keeps the capabilities, and becomes the same program with the same arguments again, in the same process, without any: a set of
    /// capabilities belongs to a thread, and a .NET program has several before its first line runs, but execve ends all but the one that calls it.
    /// Does not return.
    /// </summary>
    /// <param name="launcherFile">The program that is started as the launcher, with one end of the channel as descriptor <see cref="ProgramStart.Channel"/>.</param>
    /// <param name="launcherArguments">Its arguments.</param>
    /// <exception cref="IOException">A step fails; the message says which. The capabilities may be gone by then: end the process.</exception>
    public static void GiveUp(string launcherFile, IReadOnlyList<string> launcherArguments)
    {
        ThrowIf(PacketCalls.Pair(out var ours, out var theirs), "socketpair");
        int pid;
        using (theirs)
        {
            var environment = InitialEnvironment().Where(pair => !pair.StartsWith("MOUNTLEDGER_POSTGRES=", StringComparison.Ordinal));
            ThrowIf(
                ProcessCalls.Spawn(launcherFile, launcherArguments, [.. environment, "DOTNET_EnableDiagnostics=0"], theirs!.Number, ProgramStart.Channel, out pid),
                $"start {launcherFile}");
        }

        RemoveDiagnosticSocket();
        // Without CAP_SETPCAP the bounding set stays, but with no_new_privs an exec gives no capability to who has none.
        ThrowIf(ProcessCalls.ForbidNewPrivileges(), "PR_SET_NO_NEW_PRIVS");
        var way = CapabilityCalls.CloseTheWayBack();
        if (way is not (0 or Errno.EPERM)) ThrowIf(way, "PR_CAPBSET_DROP");
        ThrowIf(CapabilityCalls.Drop(), "capset");
        ThrowIf(CapabilityCalls.Inherit(ours!.Number, inherited: true), "fcntl");

        var variable = string.Create(CultureInfo.InvariantCulture, $"{Launcher.Variable}={ours.Number}:{pid}");
        var program = Environment.ProcessPath ?? "/proc/self/exe";
        var errno = CapabilityCalls.Become(
            program, Strings("/proc/self/cmdline"), [.. Strings("/proc/self/environ"), Encoding.UTF8.GetBytes(variable)]);
        throw new IOException($"{program} cannot be run without capabilities ({Errno.Name(errno)}): let root read and run it as its owner, or everybody");
    }

    /// <summary>The runtime listens for debuggers on a socket that is named by pid and start time: its second life could not have one, as the first one's is there.</summary>
    private static void RemoveDiagnosticSocket()
    {
        try
        {
            foreach (var file in Directory.GetFiles(Path.GetTempPath(), $"dotnet-diagnostic-{Environment.ProcessId}-*-socket")) File.Delete(file);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Then this process cannot be debugged, which nobody else minds.
        }
    }

    private static IEnumerable<string> InitialEnvironment() => Strings("/proc/self/environ").Select(Encoding.UTF8.GetString);

    /// <summary>As bytes: neither arguments nor environment have to be text.</summary>
    private static List<byte[]> Strings(string file)
    {
        var strings = new List<byte[]>();
        ReadOnlySpan<byte> rest = File.ReadAllBytes(file);
        for (int end; (end = rest.IndexOf((byte)0)) >= 0; rest = rest[(end + 1)..]) strings.Add(rest[..end].ToArray());
        return strings;
    }

    private static void ThrowIf(int errno, string what)
    {
        if (errno != 0) throw new IOException($"capabilities cannot be given up: {what}: {Errno.Name(errno)}");
    }
}
