using System.Diagnostics;
using System.Globalization;
using static MountLedger.EndToEnd.Promptly;
using static MountLedger.EndToEnd.StuckFilesystem;

namespace MountLedger.EndToEnd;

/// <summary>
/// FUSE servers that are stopped (SIGSTOP) in the middle of a mount or an unmount, at the very request: a small server of ours that stops at a place of
/// choice, and bindfs stopped at its mount(2). Nobody but the mountpoint concerned may notice.
/// </summary>
[Collection(AgentSuite.Name)]
public sealed class StuckServerTests(AgentSuite suite)
{
    private const int StartsAtOnceMs = 15_000;
    private const int StopsAtOnceMs = 20_000;

    [RootTheory]
    [InlineData("mount")]
    [InlineData("mounted")]
    [Trait("Category", "Long")]
    public async Task Helper_that_is_stopped_at_its_mount_is_given_up_at_its_deadline_and_leaves_nothing(string at)
    {
        using var stuck = new StuckFilesystem();
        await using var agent = await StartAsync(stuck, operationSeconds: 40, helperSeconds: 15);
        var source = stuck.Source(at);
        Assert.Equal(202, (await agent.MountAsync("stuck", "c", source, "fuse.stuck", [$"at={at}"], wait: 0)).Status);
        await StoppedAsync(agent, source);

        await OthersWorkAsync(agent);
        Assert.Equal("mounting", (await AtOnceAsync(() => agent.StatusAsync("stuck"))).Phase);
        Assert.Empty(agent.Mounts());
        // Nobody was ever told that it holds, so the failure ends it.
        await agent.UntilPhaseAsync("stuck", "absent");
        Assert.Contains("did not end within", (await HistoryAsync(agent, "mount_failed")).Text, StringComparison.Ordinal);
        await agent.UntilAsync(() => Task.FromResult(ProcessesGiven(source).Length == 0), "the stopped helper is dead");
        await NothingIsStagedAsync(agent);
        await OthersWorkAsync(agent);
    }

    [RootFact]
    public async Task Bindfs_that_is_stopped_right_after_its_mount_call_is_given_up_and_mounts_when_it_is_not()
    {
        using var stuck = new StuckFilesystem();
        // The real program, stopped by who traces it when the kernel has mounted and it has read nothing yet.
        var marker = Path.Combine(stuck.Programs, "stop");
        File.WriteAllText(marker, "");
        stuck.Program("bindfs", $"""
            #!/bin/sh
            [ -e {marker} ] || exec /usr/bin/bindfs "$@"
            exec strace -qq -f -o /dev/null -e trace=mount -e inject=mount:signal=SIGSTOP /usr/bin/bindfs "$@"
            """);
        await using var agent = await StartAsync(stuck, operationSeconds: 30, helperSeconds: DeadlineSeconds);
        var source = agent.Below("source");
        Assert.Equal(202, (await agent.MountAsync("stuck", "c", source, "fuse.bindfs", wait: 0)).Status);
        await StoppedAsync(agent, source);

        await OthersWorkAsync(agent);
        await agent.UntilPhaseAsync("stuck", "absent");
        Assert.Contains("did not end within", (await HistoryAsync(agent, "mount_failed")).Text, StringComparison.Ordinal);
        await agent.UntilAsync(() => Task.FromResult(ProcessesGiven(source).Length == 0), "the stopped bindfs is dead");
        await NothingIsStagedAsync(agent);

        File.Delete(marker);
        Assert.Equal("mounted", (await agent.MountAsync("stuck", "c", source, "fuse.bindfs")).Outcome);
        Assert.Equal("unmounted", (await agent.UnmountAsync("stuck", "c")).Outcome);
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task Killed_while_a_stopped_helper_mounts_the_next_agent_starts_at_once_and_a_stop_does_not_wait_for_it()
    {
        using var stuck = new StuckFilesystem();
        await using var agent = await StartAsync(stuck, operationSeconds: 40, helperSeconds: 30);
        var source = stuck.Source("mounted");
        Assert.Equal(202, (await agent.MountAsync("stuck", "c", source, "fuse.stuck", ["at=mounted"], wait: 0)).Status);
        var first = await StoppedAsync(agent, source);

        await agent.KillWithWorkersAsync();
        var clock = Stopwatch.StartNew();
        await agent.StartAgainAsync();
        Assert.InRange(clock.ElapsedMilliseconds, 0, StartsAtOnceMs);
        await OthersWorkAsync(agent);
        // The helper of the earlier life is dead; the one that mounts again is stopped like it.
        await agent.UntilAsync(() => Task.FromResult(!ProcessesGiven(source).Contains(first)), "the helper of the earlier life is dead");
        await StoppedAsync(agent, source);

        clock.Restart();
        Assert.Equal(0, await agent.TerminateAsync());
        Assert.InRange(clock.ElapsedMilliseconds, 0, StopsAtOnceMs);
        Kill(source);
        Assert.Empty(agent.Mounts());
    }

    [RootTheory]
    [InlineData("init", "lazy")]
    [InlineData("answered", "force")]
    [Trait("Category", "Long")]
    public async Task Server_that_stops_before_it_has_answered_anything_is_shown_stale_and_ended_when_it_is_asked_for(string at, string mode)
    {
        using var stuck = new StuckFilesystem();
        await using var agent = await StartAsync(stuck);
        var source = stuck.Source(at);
        var mounted = await agent.MountAsync("stuck", "c", source, "fuse.stuck", [$"at={at}"], wait: 0);
        Assert.True(mounted.Status is 200 or 202, mounted.ToString());
        await agent.UntilPhaseAsync("stuck", "mounted");
        // Who waits in it: the second server stops only when it is asked something.
        using var victim = Victim(Path.Combine(agent.PathOf("stuck"), "sub"));
        await StoppedAsync(agent, source);
        Assert.False(victim.HasExited);

        await OthersWorkAsync(agent);
        await agent.UntilAsync(async () => (await agent.StatusAsync("stuck")).Text.Contains("ETIMEDOUT", StringComparison.Ordinal), "it is shown stale");
        Assert.InRange(await FastestMsAsync(() => agent.StatusAsync("stuck")), 0, 100);
        Assert.InRange(await FastestMsAsync(() => agent.GetAsync("/v1/mountpoints")), 0, 100);
        Assert.NotEqual(200, (await AtOnceAsync(() => agent.MountAsync("stuck", "other", source, "fuse.stuck", [$"at={at}"]))).Status);

        await agent.KillWithWorkersAsync();
        var clock = Stopwatch.StartNew();
        await agent.StartAgainAsync();
        Assert.InRange(clock.ElapsedMilliseconds, 0, StartsAtOnceMs);
        Assert.Equal("mounted", (await AtOnceAsync(() => agent.StatusAsync("stuck"))).Phase);

        // Somebody waits in it, so it is busy; what was asked for then ends it, and is recorded.
        Assert.Equal("unmount-failed", (await agent.UnmountAsync("stuck", "c")).Problem);
        Assert.Equal("unmounting", (await AtOnceAsync(() => agent.StatusAsync("stuck"))).Phase);
        await OthersWorkAsync(agent);
        Assert.Equal("unmounted", (await agent.UnmountAsync("stuck", "c", mode: mode)).Outcome);
        Assert.Contains($"\"mode\":\"{mode}\"", (await HistoryAsync(agent, "unmount_requested")).Text.Replace(" ", "", StringComparison.Ordinal), StringComparison.Ordinal);
        Assert.Empty(agent.Mounts());
        Assert.Equal(mode == "force", victim.WaitForExit(mode == "force" ? 10_000 : 500));
        Kill(source);
        Assert.True(victim.WaitForExit(10_000));
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task Unmount_that_waits_in_the_kernel_for_a_stopped_server_is_uncertain_and_holds_up_nobody()
    {
        using var stuck = new StuckFilesystem(destroy: true);
        await using var agent = await StartAsync(stuck);
        var device = stuck.Device;
        Assert.Equal("mounted", (await agent.MountAsync("stuck", "c", device, "fuse.stuck", ["at=destroy"])).Outcome);
        Assert.Equal(202, (await AtOnceAsync(() => agent.UnmountAsync("stuck", "c", wait: 0))).Status);
        await StoppedAsync(agent, device);
        await OthersWorkAsync(agent);
        // The kernel has taken the mount out of the table and waits; whoever called it survives SIGKILL.
        await agent.UntilPhaseAsync("stuck", "uncertain");
        var status = await AtOnceAsync(() => agent.StatusAsync("stuck"));
        Assert.Contains("no answer from the worker within", status.Text, StringComparison.Ordinal);
        Assert.Empty(agent.Mounts());
        await OthersWorkAsync(agent);
        Assert.InRange(await FastestMsAsync(() => agent.StatusAsync("stuck")), 0, 100);

        await agent.KillWithWorkersAsync();
        var clock = Stopwatch.StartNew();
        await agent.StartAgainAsync();
        Assert.InRange(clock.ElapsedMilliseconds, 0, StartsAtOnceMs);
        await OthersWorkAsync(agent);
        Assert.Equal("uncertain", (await AtOnceAsync(() => agent.StatusAsync("stuck"))).Phase);
        clock.Restart();
        Assert.Equal(0, await agent.TerminateAsync());
        Assert.InRange(clock.ElapsedMilliseconds, 0, StopsAtOnceMs);
        await agent.StartAgainAsync();

        // As the reason says: let it answer, or end it.
        Kill(device);
        await agent.UntilPhaseAsync("stuck", "absent");
        await OthersWorkAsync(agent);
    }

    /// <param name="stuck">The filesystem.</param>
    /// <param name="operationSeconds">When a worker is given up.</param>
    /// <param name="helperSeconds">When a helper is: well before its worker, and after what the test does meanwhile.</param>
    private Task<AgentProcess> StartAsync(StuckFilesystem stuck, int operationSeconds = DeadlineSeconds, int helperSeconds = DeadlineSeconds - 1) => suite.StartAsync(environment =>
    {
        environment["MOUNTLEDGER_CONFIG"] = stuck.Config;
        environment["MOUNTLEDGER_OPERATION_SECONDS"] = operationSeconds.ToString(CultureInfo.InvariantCulture);
        environment["MOUNTLEDGER_HELPER_SECONDS"] = helperSeconds.ToString(CultureInfo.InvariantCulture);
        environment["MOUNTLEDGER_AUDIT_SECONDS"] = "2";
    });

    /// <summary>Waits until the server has stopped itself; returns its number.</summary>
    private static async Task<int> StoppedAsync(AgentProcess agent, string source)
    {
        var stopped = 0;
        await agent.UntilAsync(() => Task.FromResult((stopped = ProcessesGiven(source).FirstOrDefault(pid => StateOf(pid) is 'T' or 't')) != 0), "the server stops");
        return stopped;
    }

    private static Task NothingIsStagedAsync(AgentProcess agent) => agent.UntilAsync(
        () => Task.FromResult(!File.ReadAllText("/proc/self/mountinfo").Contains("fuse.stuck", StringComparison.Ordinal)), "nothing of it is mounted anywhere");

    private static async Task OthersWorkAsync(AgentProcess agent)
    {
        Assert.Equal("mounted", (await AtOnceAsync(() => agent.MountAsync("other", "c"))).Outcome);
        Assert.Equal(200, (await AtOnceAsync(() => agent.StatusAsync("other"))).Status);
        Assert.Equal(200, (await AtOnceAsync(() => agent.GetAsync("/v1/mountpoints"))).Status);
        Assert.Equal("unmounted", (await AtOnceAsync(() => agent.UnmountAsync("other", "c"))).Outcome);
    }

    private static Task<Answer> HistoryAsync(AgentProcess agent, string type) =>
        agent.GetAsync($"/v1/history?path={Uri.EscapeDataString(agent.PathOf("stuck"))}&type={type}");

    private static Process Victim(string path) =>
        Process.Start(new ProcessStartInfo("stat", [path]) { RedirectStandardOutput = true, RedirectStandardError = true })!;
}
