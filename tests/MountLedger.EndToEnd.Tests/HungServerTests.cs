using System.Diagnostics;
using System.Globalization;
using static MountLedger.EndToEnd.Promptly;

namespace MountLedger.EndToEnd;

/// <summary>
/// FUSE servers that stop answering (SIGSTOP), with requests that they have read: a stack of two, so that the upper one has read what
/// the lower one does not answer. Nobody but the mountpoint concerned may notice.
/// </summary>
[Collection(AgentSuite.Name)]
public sealed class HungServerTests(AgentSuite suite)
{
    private static void Setting(Dictionary<string, string> environment)
    {
        environment["MOUNTLEDGER_OPERATION_SECONDS"] = DeadlineSeconds.ToString(CultureInfo.InvariantCulture);
        environment["MOUNTLEDGER_SHUTDOWN_SECONDS"] = "30";
    }

    /// <summary>The lower server, mounted by the test itself and stopped; whoever goes through it hangs until it is killed.</summary>
    private sealed class Lower : IDisposable
    {
        private readonly int pid;

        public Lower(AgentProcess agent)
        {
            Source = agent.Below("lower-source");
            Directory.CreateDirectory(System.IO.Path.Combine(Source, "sub"));
            Path = agent.Below("lower");
            Shell.Run("bindfs", "-o", "attr_timeout=0,entry_timeout=0", Source, Path);
            pid = Assert.Single(ProcessesGiven(Path));
        }

        public string Source { get; }

        public string Path { get; }

        public void Stop() => RootSignal.Send(pid, "STOP");

        public void Continue() => RootSignal.Send(pid, "CONT");

        /// <summary>Lets it answer, so that the agent's own disposal can unmount what is above it, and then it, which ends it.</summary>
        public void Dispose() => Continue();
    }

    private static int[] ProcessesGiven(string argument) =>
    [
        .. from directory in Directory.GetDirectories("/proc")
           where char.IsAsciiDigit(Path.GetFileName(directory)[0])
           where CommandOf(directory).Split('\0').Contains(argument)
           select int.Parse(Path.GetFileName(directory), CultureInfo.InvariantCulture),
    ];

    private static string CommandOf(string process)
    {
        try
        {
            return File.ReadAllText(Path.Combine(process, "cmdline"));
        }
        catch (IOException)
        {
            return "";
        }
    }

    /// <summary>Somebody who waits in the filesystem, with a request that its server has read.</summary>
    private static Process Victim(string path)
    {
        var victim = Process.Start(new ProcessStartInfo("stat", [Path.Combine(path, "sub")]) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        Assert.False(victim.WaitForExit(300), "the server answers although it is stopped");
        // On a loaded machine it may only now have begun; where the kernel does not say in what somebody waits, that it waits has to do.
        var clock = Stopwatch.StartNew();
        while (WaitsIn(victim.Id) is var call && !call.Contains("fuse", StringComparison.Ordinal) && !call.StartsWith("request_wait", StringComparison.Ordinal)
            && !(call == "0" && StuckFilesystem.StateOf(victim.Id) is 'S' or 'D'))
        {
            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(20) && !victim.HasExited, $"it waits in {call}, not in the filesystem");
            Thread.Sleep(10);
        }
        return victim;
    }

    /// <summary>proc(5): where in the kernel it waits; 0 when it does not, or when nobody may know.</summary>
    private static string WaitsIn(int pid) => File.ReadAllText($"/proc/{pid}/wchan");

    private static async Task OthersWorkAsync(AgentProcess agent, string name)
    {
        Assert.Equal("mounted", (await AtOnceAsync(() => agent.MountAsync(name, "c"))).Outcome);
        Assert.Equal(200, (await AtOnceAsync(() => agent.StatusAsync(name))).Status);
        Assert.Equal(200, (await AtOnceAsync(() => agent.GetAsync("/v1/mountpoints"))).Status);
        Assert.Equal("unmounted", (await AtOnceAsync(() => agent.UnmountAsync(name, "c"))).Outcome);
    }

    private static async Task<long> MetricAsync(AgentProcess agent, string name)
    {
        var text = (await agent.GetAsync("/metrics")).Text;
        return long.Parse(text.Split('\n').Single(line => line.StartsWith(name + " ", StringComparison.Ordinal)).Split(' ')[1], CultureInfo.InvariantCulture);
    }

    [RootFact]
    public async Task Force_ends_a_filesystem_whose_server_hangs_and_frees_who_waits_in_it()
    {
        await using var agent = await suite.StartAsync(Setting);
        using var lower = new Lower(agent);
        Assert.Equal("mounted", (await agent.MountAsync("hung", "c", lower.Path, "fuse.bindfs", ["attr_timeout=0", "entry_timeout=0"])).Outcome);
        lower.Stop();
        using var victim = Victim(agent.PathOf("hung"));

        await OthersWorkAsync(agent, "other");
        var busy = await agent.UnmountAsync("hung", "c");
        Assert.Equal("unmount-failed", busy.Problem);
        Assert.Contains("EBUSY", busy.Text, StringComparison.Ordinal);
        Assert.Equal("unmounting", (await AtOnceAsync(() => agent.StatusAsync("hung"))).Phase);
        await OthersWorkAsync(agent, "other");

        Assert.Equal("unmounted", (await agent.UnmountAsync("hung", "c", mode: "force")).Outcome);
        Assert.True(victim.WaitForExit(10_000), "who waited is free");
        Assert.Contains("\"mode\":\"force\"", (await agent.GetAsync($"/v1/history?path={Uri.EscapeDataString(agent.PathOf("hung"))}&type=unmount_requested")).Text.Replace(" ", "", StringComparison.Ordinal), StringComparison.Ordinal);
        Assert.Empty(agent.Mounts());
    }

    [RootFact]
    public async Task Lazy_takes_the_mount_away_and_leaves_who_waits_in_it_alone()
    {
        await using var agent = await suite.StartAsync(Setting);
        using var lower = new Lower(agent);
        Assert.Equal("mounted", (await agent.MountAsync("hung", "c", lower.Path, "fuse.bindfs", ["attr_timeout=0", "entry_timeout=0"])).Outcome);
        lower.Stop();
        using var victim = Victim(agent.PathOf("hung"));
        Assert.Equal("unmounted", (await agent.UnmountAsync("hung", "c", mode: "lazy")).Outcome);
        Assert.Empty(agent.Mounts());
        Assert.False(victim.HasExited);
        Assert.Equal("mounted", (await agent.MountAsync("hung", "c")).Outcome);
        lower.Continue();
        Assert.True(victim.WaitForExit(10_000));
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task Walk_that_hangs_costs_one_worker_and_neither_stop_nor_start_waits_for_it()
    {
        await using var agent = await suite.StartAsync(Setting);
        using var lower = new Lower(agent);
        Directory.CreateDirectory(Path.Combine(lower.Source, "sub", "point"));
        Assert.Equal("mounted", (await agent.MountAsync("hung", "c", lower.Path, "fuse.bindfs", ["attr_timeout=0", "entry_timeout=0"])).Outcome);
        Assert.Equal("mounted", (await agent.MountAsync("hung/sub/point", "c")).Outcome);
        lower.Stop();

        // The worker waits in the walk, with a request that the upper server has read.
        var gone = agent.UnmountAsync("hung/sub/point", "c", wait: 0);
        Assert.Equal(202, (await gone).Status);
        for (var i = 0; i < 3; i++) await OthersWorkAsync(agent, "other");
        await agent.UntilPhaseAsync("hung/sub/point", "uncertain");
        var status = await AtOnceAsync(() => agent.StatusAsync("hung/sub/point"));
        Assert.Contains($"fuse at {agent.PathOf("hung")}", status.Text, StringComparison.Ordinal);
        await agent.UntilAsync(async () => await MetricAsync(agent, "mountledger_workers_stuck") == 1, "one worker is stuck");
        Assert.Equal(1, await MetricAsync(agent, "mountledger_workers_written_off_total"));
        await OthersWorkAsync(agent, "other");
        Assert.InRange(await FastestMsAsync(() => agent.StatusAsync("hung/sub/point")), 0, 100);
        Assert.InRange(await FastestMsAsync(() => agent.GetAsync("/v1/mountpoints")), 0, 100);

        // Killed in that state, a new agent starts at once; told to stop, it does.
        await agent.KillWithWorkersAsync();
        await agent.StartAgainAsync();
        await OthersWorkAsync(agent, "other");
        Assert.Equal("uncertain", (await AtOnceAsync(() => agent.StatusAsync("hung/sub/point"))).Phase);
        var clock = Stopwatch.StartNew();
        Assert.Equal(0, await agent.TerminateAsync());
        Assert.InRange(clock.ElapsedMilliseconds, 0, 20_000);
        await agent.StartAgainAsync();
        await OthersWorkAsync(agent, "other");

        // When the server answers again, all of it is settled.
        lower.Continue();
        await agent.UntilPhaseAsync("hung/sub/point", "absent");
        Assert.Equal("unmounted", (await agent.UnmountAsync("hung", "c")).Outcome);
        await agent.UntilAsync(async () => await MetricAsync(agent, "mountledger_workers_stuck") == 0, "the stuck worker has ended");
        Assert.Empty(agent.Mounts());
    }

    [RootFact]
    [Trait("Category", "Long")]
    public Task Nothing_grows_over_twenty_operations_that_hang() => NothingGrowsAsync(20);

    [RootFact]
    [Trait("Category", "Long")]
    public Task Nothing_grows_over_five_hundred_operations_that_hang() => NothingGrowsAsync(500);

    private async Task NothingGrowsAsync(int operations)
    {
        await using var agent = await suite.StartAsync(Setting);
        using var lower = new Lower(agent);
        async Task OneAsync()
        {
            Assert.Equal("mounted", (await agent.MountAsync("hung", "c", lower.Path, "fuse.bindfs", ["attr_timeout=0", "entry_timeout=0"])).Outcome);
            lower.Stop();
            using var victim = Process.Start(new ProcessStartInfo("stat", [Path.Combine(agent.PathOf("hung"), "sub")]) { RedirectStandardOutput = true, RedirectStandardError = true })!;
            Assert.Equal("unmounted", (await agent.UnmountAsync("hung", "c", mode: "force")).Outcome);
            lower.Continue();
            Assert.True(victim.WaitForExit(10_000));
        }
        for (var i = 0; i < 5; i++) await OneAsync();
        // The worker that asks servers is there from the first question on, and an audit may come at any time.
        await agent.MountAsync("hung", "c", lower.Path, "fuse.bindfs", ["attr_timeout=0", "entry_timeout=0"]);
        Assert.Equal(200, (await agent.MountAsync("hung", "c", lower.Path, "fuse.bindfs", ["attr_timeout=0", "entry_timeout=0"])).Status);
        Assert.Equal("unmounted", (await agent.UnmountAsync("hung", "c")).Outcome);
        var before = await SizesAsync(agent);
        for (var i = 0; i < operations; i++) await OneAsync();
        // What has grown stays so; a worker that is just being started or ended does not.
        var clock = Stopwatch.StartNew();
        while (await SizesAsync(agent) is var after && (after.Descriptors > before.Descriptors + 12 || after.Threads > before.Threads + 12
            || after.Children > before.Children || after.Kilobytes > before.Kilobytes + 60_000))
        {
            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(20), $"(descriptors, threads, processes, kB) have grown from {before} to {after}");
            await Task.Delay(200);
        }
        Assert.Empty(agent.Mounts());
        await agent.UntilAsync(() => Task.FromResult(ProcessesGiven(lower.Path).Length <= 1), "of the servers only the lower one is left");
    }

    private static async Task<(int Descriptors, int Threads, int Children, int Kilobytes)> SizesAsync(AgentProcess agent)
    {
        await agent.UntilAsync(() => Task.FromResult(ProcessesGiven(Path.Combine(agent.PathOf("hung"))).Length == 0), "nobody waits any more");
        int[] all = [agent.Pid, .. agent.Workers()];
        int Of(int pid, string field) => int.Parse(
            File.ReadLines($"/proc/{pid}/status").Single(line => line.StartsWith(field, StringComparison.Ordinal)).Split((char[])[' ', '\t'], StringSplitOptions.RemoveEmptyEntries)[1],
            CultureInfo.InvariantCulture);
        try
        {
            return (agent.OpenDescriptors(), all.Sum(pid => Of(pid, "Threads:")), all.Length, all.Sum(pid => Of(pid, "VmRSS:")));
        }
        catch (Exception gone) when (gone is IOException or InvalidOperationException)
        {
            return await SizesAsync(agent); // A worker ended while it was looked at.
        }
    }
}
