namespace MountLedger.EndToEnd;

/// <summary>Without a connection string the agent brings its own PostgreSQL: kept over every kind of end.</summary>
[Collection(AgentSuite.Name)]
public sealed class AgentOwnPostgresTests
{
    [RootFact]
    [Trait("Category", "Long")]
    public async Task Its_data_are_kept_over_a_stop_and_nothing_of_it_runs_meanwhile()
    {
        await using var agent = await AgentProcess.StartAsync(postgres: null);
        Assert.Equal("mounted", (await agent.MountAsync("a", "c")).Outcome);
        var mounts = agent.Mounts().Select(mount => mount.MountId).ToArray();
        Assert.NotNull(agent.PostmasterPid());

        Assert.Equal(0, await agent.TerminateAsync());
        Assert.Null(agent.PostmasterPid());
        Assert.Equal(mounts, agent.Mounts().Select(mount => mount.MountId));

        await agent.StartAgainAsync();
        Assert.Equal("mounted", (await agent.StatusAsync("a")).Phase);
        Assert.Equal(["mount_requested", "attachment_added", "mount_started", "mounted"], await agent.EventsAsync("a"));
        Assert.Equal(mounts, agent.Mounts().Select(mount => mount.MountId));
        Assert.Equal("unmounted", (await agent.UnmountAsync("a", "c")).Outcome);
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task It_is_found_again_after_kill_of_the_agent_alone()
    {
        await using var agent = await AgentProcess.StartAsync(postgres: null);
        Assert.Equal(200, (await agent.MountAsync("a", "c")).Status);
        var postmaster = agent.PostmasterPid();

        await agent.KillAsync();
        Assert.Equal(postmaster, agent.PostmasterPid());
        await agent.StartAgainAsync();

        Assert.Equal(postmaster, agent.PostmasterPid());
        Assert.Equal("mounted", (await agent.StatusAsync("a")).Phase);
        Assert.Equal(0, await agent.TerminateAsync());
        Assert.Null(agent.PostmasterPid());
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task After_kill_of_everything_what_was_answered_is_there()
    {
        await using var agent = await AgentProcess.StartAsync(postgres: null);
        for (var i = 0; i < 8; i++) Assert.Equal(200, (await agent.MountAsync($"m{i}", "c")).Status);

        await agent.KillWithWorkersAsync();
        await agent.KillPostgresAsync();
        Assert.Null(agent.PostmasterPid());
        await agent.StartAgainAsync();

        Assert.Equal(8, agent.Mounts().Length);
        for (var i = 0; i < 8; i++) Assert.Equal("mounted", (await agent.StatusAsync($"m{i}")).Phase);
        Assert.Equal("unmounted", (await agent.UnmountAsync("m0", "c")).Outcome);
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task When_it_dies_it_is_started_again_and_the_mounts_stay()
    {
        await using var agent = await AgentProcess.StartAsync(postgres: null);
        Assert.Equal(200, (await agent.MountAsync("a", "c")).Status);
        var mounts = agent.Mounts().Select(mount => mount.MountId).ToArray();

        var killed = agent.PostmasterPid();
        await agent.KillPostgresAsync();
        // Nothing is taken without a server: it is refused, unless this test was stopped for so long that there is another one.
        var first = await agent.MountAsync("b", "c");
        Assert.True(first.Status == 503 || (agent.PostmasterPid() is { } again && again != killed), $"{first}");
        await agent.UntilAsync(async () => (await agent.MountAsync("b", "c")).Outcome is "mounted" or "attached", "commands are taken again", secondsMax: 60);
        Assert.NotNull(agent.PostmasterPid());
        Assert.Subset(agent.Mounts().Select(mount => mount.MountId).ToHashSet(), mounts.ToHashSet());
    }
}
