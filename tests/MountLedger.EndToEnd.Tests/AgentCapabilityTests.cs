using System.Diagnostics;
using System.Globalization;

namespace MountLedger.EndToEnd;

/// <summary>
/// The agent, which listens and talks to the database, has no capability in any thread; its launcher has them, starts the workers, and is of no use to
/// anybody without the agent.
/// </summary>
[Collection(AgentSuite.Name)]
public sealed class AgentCapabilityTests(AgentSuite suite)
{
    private const string None = "0000000000000000";

    private static readonly string[] Sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

    [RootFact]
    public async Task No_thread_of_the_agent_has_a_capability_and_everything_works()
    {
        await using var agent = await suite.StartAsync();
        HasNoCapability(agent.Pid);

        Assert.Equal("mounted", (await agent.MountAsync("kernel", "c")).Outcome);
        var source = agent.Below("source");
        File.WriteAllText(Path.Combine(source, "file"), "x");
        Assert.Equal("mounted", (await agent.MountAsync("helper", "c", source, "fuse.bindfs")).Outcome);
        Assert.Equal("x", File.ReadAllText(Path.Combine(agent.PathOf("helper"), "file")));
        HasNoCapability(agent.Pid);

        // Whoever keeps it busy is found, another user too: by the worker, as the agent may not look at others.
        Shell.Run("chmod", "777", agent.PathOf("kernel"));
        using (var holder = Process.Start(new ProcessStartInfo("setpriv", ["--reuid", "65534", "--regid", "65534", "--clear-groups", "sleep", "60"])
        {
            WorkingDirectory = agent.PathOf("kernel"),
        })!)
        {
            var busy = await agent.UnmountAsync("kernel", "c");
            Assert.Equal("unmount-failed", busy.Problem);
            // The search has a short limit, which a loaded machine may reach; each further try searches again.
            await agent.UntilAsync(
                async () => (await agent.StatusAsync("kernel")).Text.Contains(holder.Id.ToString(CultureInfo.InvariantCulture), StringComparison.Ordinal),
                "the holder is named");
            holder.Kill();
            await holder.WaitForExitAsync();
        }
        await agent.UntilPhaseAsync("kernel", "absent");
        Assert.Equal("unmounted", (await agent.UnmountAsync("helper", "c")).Outcome);
        HasNoCapability(agent.Pid);

        // What was looked for is there to be found: the launcher and the worker have them.
        foreach (var privileged in (int[])[agent.Launcher()!.Value, agent.Workers()[0]])
            Assert.Equal(SetOf($"/proc/self/status", "CapPrm"), SetOf($"/proc/{privileged}/status", "CapPrm"));
    }

    [RootFact]
    public async Task Its_process_is_the_one_that_was_started_and_nothing_of_the_first_life_is_left()
    {
        await using var agent = await suite.StartAsync();
        // The shell became the program, the program became itself without capabilities: one process, which its starter can wait for.
        Assert.Contains("mountledgerd", File.ReadAllText($"/proc/{agent.Pid}/comm"), StringComparison.Ordinal);
        Assert.DoesNotContain(File.ReadAllText($"/proc/{agent.Launcher()}/environ").Split('\0'), variable => variable.StartsWith("MOUNTLEDGER_POSTGRES", StringComparison.Ordinal));
        var socket = SocketForDebuggers(agent.Pid);
        Assert.True(File.Exists(socket), socket);
        var launcher = agent.Launcher()!.Value;

        Assert.Equal(0, await agent.TerminateAsync());

        // It is reaped by its parent, or by whoever gets the orphans of that: a moment later.
        await agent.UntilAsync(() => Task.FromResult(!Directory.Exists($"/proc/{launcher}")), "the launcher has ended with it");
        Assert.False(File.Exists(socket), socket);
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task Worker_that_dies_is_replaced_and_an_agent_that_is_killed_takes_launcher_and_worker_along()
    {
        await using var agent = await suite.StartAsync();
        var first = Assert.Single(agent.Workers());
        agent.KillWorkers();
        Assert.Equal("mounted", (await agent.MountAsync("a", "c")).Outcome);
        Assert.DoesNotContain(first, agent.Workers());
        await agent.UntilAsync(() => Task.FromResult(!Directory.Exists($"/proc/{first}")), "the launcher reaps what it has started");
        var launcher = agent.Launcher()!.Value;

        await agent.KillAsync();
        await agent.UntilAsync(() => Task.FromResult(agent.Launcher() is null && agent.Workers().Count == 0), "launcher and worker end");

        await agent.StartAgainAsync();
        Assert.NotEqual(launcher, agent.Launcher());
        HasNoCapability(agent.Pid);
        Assert.Equal("mounted", (await agent.StatusAsync("a")).Phase);
        Assert.Equal("unmounted", (await agent.UnmountAsync("a", "c")).Outcome);
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task Launcher_that_is_stopped_holds_nothing_up_but_the_start_of_workers_and_is_gone_with_the_next_agent()
    {
        await using var agent = await suite.StartAsync();
        Assert.Equal("mounted", (await agent.MountAsync("a", "c")).Outcome);
        var launcher = agent.Launcher()!.Value;
        RootSignal.Send(launcher, "STOP");

        // What there is goes on working.
        Assert.Equal("mounted", (await agent.MountAsync("b", "c")).Outcome);
        agent.KillWorkers();
        var clock = Stopwatch.StartNew();
        var refused = agent.MountAsync("c", "c");
        await Task.Delay(200);
        Assert.False(refused.IsCompleted);
        Assert.Equal(200, (await agent.StatusAsync("a")).Status);
        Assert.Equal(200, (await agent.GetAsync("/v1/mountpoints")).Status);
        // Well before the start of a worker is given up, which would be waited out.
        Assert.InRange(clock.ElapsedMilliseconds, 0, 7000);
        var answer = await refused;
        Assert.Equal((422, "mount-failed"), (answer.Status, answer.Problem));
        Assert.Contains($"kill -CONT {launcher}", answer.Text, StringComparison.Ordinal);
        Assert.InRange(clock.ElapsedMilliseconds, 0, 20_000);

        RootSignal.Send(launcher, "CONT");
        // It fails at once until the launcher has answered what it was asked before: a moment.
        await agent.UntilAsync(async () => (await agent.MountAsync("c", "c")).Outcome == "mounted", "the launcher starts workers again", secondsMax: 5);
        // What it started too late for anybody is of use to nobody, and ends.
        await agent.UntilAsync(() => Task.FromResult(agent.Workers().Count == 1), "one worker is left");

        RootSignal.Send(launcher, "STOP");
        await agent.KillWithWorkersAsync();
        // The kernel lets a stopped process go on whose parent has died (orphaned process group): it sees the end of its channel.
        await agent.UntilAsync(() => Task.FromResult(agent.Launcher() is null), "the stopped launcher ends with its agent");
        await agent.StartAgainAsync();
        Assert.Equal("unmounted", (await agent.UnmountAsync("a", "c")).Outcome);

        RootSignal.Send(agent.Launcher()!.Value, "STOP");
        clock.Restart();
        Assert.Equal(0, await agent.TerminateAsync());
        Assert.InRange(clock.ElapsedMilliseconds, 0, 15_000);
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task Without_its_launcher_the_agent_ends_with_an_error_and_the_next_one_goes_on()
    {
        await using var agent = await suite.StartAsync();
        Assert.Equal("mounted", (await agent.MountAsync("a", "c")).Outcome);
        var mount = Assert.Single(agent.Mounts()).MountId;
        RootSignal.Send(agent.Launcher()!.Value, "KILL");
        Assert.Equal(1, await agent.ExitCodeAsync());
        Assert.Contains("the launcher", agent.Log, StringComparison.Ordinal);
        Assert.Equal(mount, Assert.Single(agent.Mounts()).MountId);

        await agent.StartAgainAsync();
        Assert.Equal("unmounted", (await agent.UnmountAsync("a", "c")).Outcome);
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task Own_postgresql_runs_as_another_account_and_is_stopped_by_an_agent_without_capabilities()
    {
        await using var agent = await AgentProcess.StartAsync(postgres: null);
        HasNoCapability(agent.Pid);
        var postmaster = agent.PostmasterPid()!.Value;
        Assert.NotEqual("0", UserOf(postmaster));
        // What starts it has ended; only the server stays.
        await agent.UntilAsync(() => Task.FromResult(PartsOf("own-postgres", agent.StateDir) == 0), "the program that started it has ended");
        Assert.Equal("mounted", (await agent.MountAsync("a", "c")).Outcome);
        Assert.Equal("unmounted", (await agent.UnmountAsync("a", "c")).Outcome);
        Assert.Equal(0, await agent.TerminateAsync());
        Assert.Null(agent.PostmasterPid());
    }

    [RootFact]
    public async Task Started_without_capabilities_it_has_no_launcher_and_says_what_it_lacks()
    {
        await using var agent = AgentProcess.Create(await suite.Server.CreateLedgerAsync());
        agent.Wrapper = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"];
        await agent.StartAgainAsync();
        Assert.Null(agent.Launcher());
        Assert.Single(agent.Workers());
        var answer = await agent.MountAsync("a", "c");
        Assert.Equal((422, "mount-failed"), (answer.Status, answer.Problem));
        Assert.Contains("EPERM", answer.Text, StringComparison.Ordinal);
        Assert.Equal(0, await agent.TerminateAsync());
    }

    [RootFact]
    public async Task Without_the_right_to_empty_the_bounding_set_nothing_of_it_can_be_had_all_the_same()
    {
        await using var agent = AgentProcess.Create(await suite.Server.CreateLedgerAsync());
        agent.Wrapper = ["setpriv", "--bounding-set", "-setpcap", "--inh-caps", "-setpcap"];
        await agent.StartAgainAsync();
        var tasks = Directory.GetDirectories($"/proc/{agent.Pid}/task");
        Assert.NotEmpty(tasks);
        foreach (var task in tasks)
        {
            var status = StatusOf(task + "/status");
            if (status.Length == 0) continue; // A thread that has ended meanwhile.
            foreach (var set in Sets.Except(["CapBnd"])) Assert.Contains($"{set}:\t{None}", status);
            Assert.DoesNotContain($"CapBnd:\t{None}", status);
            Assert.Contains("NoNewPrivs:\t1", status);
        }
        Assert.Equal("mounted", (await agent.MountAsync("a", "c")).Outcome);
        Assert.Equal("unmounted", (await agent.UnmountAsync("a", "c")).Outcome);
    }

    private static void HasNoCapability(int pid)
    {
        var tasks = Directory.GetDirectories($"/proc/{pid}/task");
        Assert.True(tasks.Length > 5, "these are all its threads");
        foreach (var status in tasks.Select(task => task + "/status").Append($"/proc/{pid}/status").Where(File.Exists))
            foreach (var set in Sets)
                Assert.Equal((status, set, None), (status, set, SetOf(status, set)));
    }

    /// <summary>A thread that has ended meanwhile has none.</summary>
    private static string SetOf(string status, string set) =>
        StatusOf(status) is [_, ..] lines ? lines.Single(line => line.StartsWith(set + ":", StringComparison.Ordinal)).Split(':')[1].Trim() : None;

    /// <summary>The lines of <c>/proc/PID/task/TID/status</c>; none of a thread that has ended meanwhile.</summary>
    private static string[] StatusOf(string status)
    {
        try
        {
            return File.ReadAllLines(status);
        }
        catch (IOException)
        {
            return [];
        }
    }

    private static string UserOf(int pid) =>
        File.ReadLines($"/proc/{pid}/status").Single(line => line.StartsWith("Uid:", StringComparison.Ordinal)).Split('\t')[1];

    /// <summary>
    /// Its name holds when the process was started (proc(5), field 22 of stat), which tells it from those that killed processes of the same id have left;
    /// what the program becomes by exec has the same.
    /// </summary>
    private static string SocketForDebuggers(int pid)
    {
        var stat = File.ReadAllText($"/proc/{pid}/stat");
        return Path.Combine(Path.GetTempPath(), $"dotnet-diagnostic-{pid}-{stat[(stat.LastIndexOf(')') + 2)..].Split(' ')[19]}-socket");
    }

    private static int PartsOf(string name, string argument) => Directory.GetDirectories("/proc").Where(directory => char.IsAsciiDigit(Path.GetFileName(directory)[0])).Count(directory =>
    {
        try
        {
            var command = File.ReadAllText(Path.Combine(directory, "cmdline")).Split('\0');
            return command.Contains(name) && command.Contains(argument);
        }
        catch (IOException)
        {
            return false;
        }
    });
}
