using System.Globalization;
using System.Runtime.InteropServices;
using MountLedger.Postgres;

namespace MountLedger.Storm;

/// <summary>
/// The agent under the storm with its workers and its own PostgreSQL, and what holds them at a point. The agent is the test build from this
/// program's output directory.
/// </summary>
internal sealed partial class StormAgent : IAsyncDisposable
{
    private const int SIGCONT = 18;
    private static readonly TimeSpan LookInterval = TimeSpan.FromMilliseconds(2);

    private readonly string _armFile;
    private int _number;

    private StormAgent(AgentProcess process, string armFile) => (Process, _armFile) = (process, armFile);

    public AgentProcess Process { get; }

    public string Root => Process.Root;

    /// <summary>The ledger, as the agent's own role sees it.</summary>
    public string Ledger => ClusterSetup.ConnectionString(Path.Combine(Process.StateDir, "postgres", "run"));

    public static async Task<StormAgent> StartAsync()
    {
        var armFile = "";
        var process = AgentProcess.Create(postgres: null, environment =>
        {
            // A dead server of its own is noticed when the lease is to be renewed.
            environment["MOUNTLEDGER_LEASE_SECONDS"] = "2";
            environment["MOUNTLEDGER_POLL_SECONDS"] = "5";
            // What the kernel tells must be noticed without it.
            environment["MOUNTLEDGER_AUDIT_SECONDS"] = "600";
            environment["MOUNTLEDGER_KILL_POINT"] = armFile = Path.Combine(Path.GetTempPath(), $"mountledger-kill-{Environment.ProcessId}-{Guid.NewGuid():N}");
        });
        var agent = new StormAgent(process, armFile);
        try
        {
            await process.StartAgainAsync();
            return agent;
        }
        catch
        {
            await agent.DisposeAsync();
            throw;
        }
    }

    /// <summary>From now on the first process that gets to this point for the count-th time is held there.</summary>
    public void Arm(string point, int count)
    {
        _number++;
        // In one step: a half-written line would be another point.
        File.WriteAllText($"{_armFile}.new", $"{_number} {point} {count}");
        File.Move($"{_armFile}.new", _armFile, overwrite: true);
    }

    public void Disarm() => File.Delete(_armFile);

    /// <returns>The pid of the process that is held at the point; null when none got there in time.</returns>
    public async Task<int?> HeldAsync(TimeSpan patience)
    {
        var mark = $"{_armFile}.{_number}";
        var until = DateTime.UtcNow + patience;
        do
        {
            if (File.Exists(mark) && File.ReadAllText(mark) is [.., '\n'] text)
            {
                Disarm();
                File.Delete(mark);
                return int.Parse(text, CultureInfo.InvariantCulture);
            }
            await Task.Delay(LookInterval);
        }
        while (DateTime.UtcNow < until && !(Process.HasExited && !File.Exists(mark)));
        Disarm();
        return null;
    }

    /// <summary>Lets a process go on that was held; one that has been killed meanwhile needs no more.</summary>
    public static void Continue(int pid) => _ = Kill(pid, SIGCONT);

    public async Task KillAsync(Victim victim)
    {
        switch (victim)
        {
            case Victim.Agent:
                await Process.KillAsync();
                break;
            case Victim.Worker:
                Process.KillWorkers();
                break;
            case Victim.Postgres:
                await Process.KillPostgresAsync();
                break;
            case Victim.AgentAndWorkers:
                await Process.KillWithWorkersAsync();
                break;
            case Victim.Everything:
                await Process.KillWithWorkersAsync();
                await Process.KillPostgresAsync();
                break;
        }
    }

    public async ValueTask DisposeAsync()
    {
        await Process.DisposeAsync();
        foreach (var file in Directory.GetFiles(Path.GetDirectoryName(_armFile)!, Path.GetFileName(_armFile) + "*")) File.Delete(file);
    }

    [LibraryImport("libc", EntryPoint = "kill")]
    private static partial int Kill(int pid, int signal);
}
