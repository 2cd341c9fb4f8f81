using System.Diagnostics;
using System.Globalization;

namespace MountLedger.EndToEnd;

/// <summary>Filesystems that a program mounts, through the agent as a program: what is recorded, and what survives whom.</summary>
[Collection(AgentSuite.Name)]
public sealed class AgentHelperTests(AgentSuite suite)
{
    private static int[] ProcessesGiven(string argument) =>
    [
        .. from directory in Directory.GetDirectories("/proc")
           where char.IsAsciiDigit(Path.GetFileName(directory)[0])
           where CommandOf(directory).Contains(argument, StringComparison.Ordinal)
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

    private static int[] Daemons(AgentProcess agent) => ProcessesGiven(Path.Combine(agent.StateDir, "staging") + "/");

    [RootFact]
    public async Task Bindfs_is_requested_first_prepared_then_and_leaves_nothing_behind()
    {
        var agent = await suite.SharedAsync();
        var source = agent.Below("source");
        File.WriteAllText(Path.Combine(source, "file"), "x");
        for (var round = 0; round < 2; round++)
        {
            var mounted = await agent.MountAsync("bindfs", "c", source, "fuse.bindfs", ["noexec"]);
            Assert.Equal("mounted", mounted.Outcome);
            Assert.Equal("x", File.ReadAllText(Path.Combine(agent.PathOf("bindfs"), "file")));
            Assert.Equal("attached", (await agent.MountAsync("bindfs", "d", source, "fuse.bindfs", ["noexec"])).Outcome);
            Assert.Equal("detached", (await agent.UnmountAsync("bindfs", "d")).Outcome);
            Assert.Equal("unmounted", (await agent.UnmountAsync("bindfs", "c")).Outcome);
        }
        Assert.Equal(
            ["mount_requested", "attachment_added", "mount_started", "mounted"], (await agent.EventsAsync("bindfs")).Take(4));
        await agent.UntilAsync(() => Task.FromResult(Daemons(agent).Length == 0), "no daemon is left");
        Assert.False(Directory.Exists(agent.PathOf("bindfs")));
    }

    [RootFact]
    public async Task Failure_of_a_helper_is_told_at_once_with_its_own_words()
    {
        var agent = await suite.SharedAsync();
        var failed = await agent.MountAsync("sshfs", "c", "root@127.0.0.1:/srv", "fuse.sshfs", ["port=1"]);
        Assert.Equal((422, "mount-failed"), (failed.Status, failed.Problem));
        Assert.Contains("sshfs ended with status 1, and said: read: Connection reset by peer", failed.Detail, StringComparison.Ordinal);
        Assert.Contains("mount_failed", await agent.EventsAsync("sshfs"));
        Assert.Empty(Daemons(agent));
    }

    [RootFact]
    public async Task Daemon_outlives_agent_and_worker_and_the_mount_is_the_same_one()
    {
        await using var agent = await suite.StartAsync();
        var source = agent.Below("source");
        Assert.Equal("mounted", (await agent.MountAsync("b", "c", source, "fuse.bindfs")).Outcome);
        var daemon = Assert.Single(Daemons(agent));
        var mount = Assert.Single(agent.Mounts());

        agent.KillWorkers();
        await agent.KillWithWorkersAsync();
        await agent.StartAgainAsync();
        Assert.Equal(0, await agent.TerminateAsync());
        await agent.StartAgainAsync();

        Assert.Equal(daemon, Assert.Single(Daemons(agent)));
        Assert.Equal(mount.MountId, Assert.Single(agent.Mounts()).MountId);
        Assert.Equal("mounted", (await agent.StatusAsync("b")).Phase);
        Assert.DoesNotContain("drift_detected", await agent.EventsAsync("b"));
        File.WriteAllText(Path.Combine(agent.PathOf("b"), "file"), "still served");
        Assert.Equal("unmounted", (await agent.UnmountAsync("b", "c")).Outcome);
        await agent.UntilAsync(() => Task.FromResult(Daemons(agent).Length == 0), "the daemon ends with its mount");
    }

    [RootTheory]
    [Trait("Category", "Long")]
    [InlineData("")]
    // Before the worker has written down which process works there: what it was given has to do.
    [InlineData("worker-helper-spawned")]
    public async Task Agent_and_worker_killed_while_a_helper_runs_leave_nothing_and_the_next_life_mounts_once(string killPoint)
    {
        var scratch = Directory.CreateTempSubdirectory("mountledger-helper-").FullName;
        try
        {
            // The first time it mounts and then hangs; later it is bindfs.
            var program = Path.Combine(scratch, "mount.fuse.slow");
            File.WriteAllText(program, $"#!/bin/sh\n[ -e {scratch}/again ] && exec bindfs \"$1\" \"$2\"\ntouch {scratch}/again\nbindfs \"$1\" \"$2\"\necho $$ >{scratch}/pid\nexec sleep 300\n");
            File.SetUnixFileMode(program, (UnixFileMode)Convert.ToInt32("755", 8));
            var config = Path.Combine(scratch, "config.json");
            File.WriteAllText(config, $$"""{ "helperTypes": { "fuse.slow": ["x"] }, "helperDirs": ["{{scratch}}"] }""");
            var armed = Path.Combine(scratch, "kill-point");
            File.WriteAllText(armed, $"1 {killPoint} 1");
            await using var agent = await suite.StartAsync(environment =>
            {
                environment["MOUNTLEDGER_CONFIG"] = config;
                environment["MOUNTLEDGER_KILL_POINT"] = armed;
            });
            var source = agent.Below("source");
            Assert.Equal(202, (await agent.MountAsync("s", "c", source, "fuse.slow", wait: 0)).Status);
            await agent.UntilAsync(() => Task.FromResult(File.Exists($"{scratch}/pid") && File.ReadAllText($"{scratch}/pid").EndsWith('\n')), "the helper has mounted and hangs");
            var helper = File.ReadAllText($"{scratch}/pid").Trim();
            Assert.Empty(agent.Mounts());
            Assert.Equal(killPoint.Length > 0, File.Exists($"{armed}.1"));

            await agent.KillWithWorkersAsync();
            File.Delete(armed);
            Assert.NotEqual("", CommandOf($"/proc/{helper}"));
            var clock = Stopwatch.StartNew();
            await agent.StartAgainAsync();
            await agent.UntilPhaseAsync("s", "mounted");
            await agent.UntilAsync(() => Task.FromResult(CommandOf($"/proc/{helper}").Length == 0), "the helper of the earlier life is dead");
            await agent.UntilAsync(() => Task.FromResult(Daemons(agent).Length == 1), "one daemon is left");
            Assert.Single(agent.Mounts());
            Assert.Equal("unmounted", (await agent.UnmountAsync("s", "c")).Outcome);
            await agent.UntilAsync(() => Task.FromResult(Daemons(agent).Length == 0), "none is left");
            // Nobody waited for the hanging one's end.
            Assert.InRange(clock.ElapsedMilliseconds, 0, 120_000);
        }
        finally
        {
            Directory.Delete(scratch, recursive: true);
        }
    }
}
