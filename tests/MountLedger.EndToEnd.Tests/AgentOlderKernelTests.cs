namespace MountLedger.EndToEnd;

/// <summary>The whole agent, with all that it starts, on a kernel that has none of the newer calls.</summary>
[Collection(AgentSuite.Name)]
public sealed class AgentOlderKernelTests(AgentSuite suite)
{
    [RootFact]
    public async Task Mounts_are_made_kept_over_a_crash_repaired_adopted_and_unmounted_without_the_newer_calls()
    {
        await using var agent = AgentProcess.Create(await suite.Server.CreateLedgerAsync());
        agent.Wrapper = [Path.Combine(AppContext.BaseDirectory, "mountledger-test-worker"), "--without", "all", "--exec"];
        await agent.StartAgainAsync();
        Assert.Equal("mounted", (await agent.MountAsync("a", "c", options: ["size=4M"])).Outcome);
        Assert.Equal("mounted", (await agent.MountAsync("b", "c", options: ["size=4M"])).Outcome);
        Assert.Equal("attached", (await agent.MountAsync("a", "d", options: ["size=4M"])).Outcome);
        Assert.Equal(System.Text.Json.JsonValueKind.Null, (await agent.StatusAsync("a")).Json.GetProperty("kernel").GetProperty("mountId").ValueKind);

        // While nobody looks, one of them goes and a stranger's comes.
        await agent.KillWithWorkersAsync();
        Shell.Unmount(agent.PathOf("b"));
        Directory.CreateDirectory(agent.PathOf("theirs"));
        Shell.Run("mount", "-t", "tmpfs", "-o", "size=1M,nosuid,nodev", "scratch", agent.PathOf("theirs"));
        await agent.StartAgainAsync();
        await agent.UntilAsync(() => Task.FromResult(agent.Mounts().Count(mount => mount.Path == agent.PathOf("b")) == 1), "b is mounted again");
        Assert.Single(agent.Mounts(), mount => mount.Path == agent.PathOf("a"));

        Assert.Equal("foreign-mount", (await agent.MountAsync("theirs", "c", options: ["size=2M"])).Problem);
        Assert.Equal(200, (await agent.MountAsync("theirs", "c", options: ["size=1M"])).Status);
        Assert.Equal(200, (await agent.UnmountAsync("theirs", "c")).Status);
        Assert.Single(agent.Mounts(), mount => mount.Path == agent.PathOf("theirs"));

        Assert.Equal("detached", (await agent.UnmountAsync("a", "c")).Outcome);
        using (File.Create(Path.Combine(agent.PathOf("a"), "open")))
        {
            var busy = await agent.UnmountAsync("a", "d");
            Assert.Equal((422, "unmount-failed"), (busy.Status, busy.Problem));
        }
        await agent.UntilAsync(async () => (await agent.StatusAsync("a")).Phase == "absent", "a is unmounted at last");
        Assert.Equal("unmounted", (await agent.UnmountAsync("b", "c")).Outcome);
        Assert.Equal(agent.PathOf("theirs"), Assert.Single(agent.Mounts()).Path);
        Shell.Unmount(agent.PathOf("theirs"));
        Assert.Equal(0, await agent.TerminateAsync());
    }
}
