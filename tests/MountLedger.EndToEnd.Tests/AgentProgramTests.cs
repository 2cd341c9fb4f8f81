using System.Text.Json;

namespace MountLedger.EndToEnd;

/// <summary>The agent as a program: its settings, its exit codes, and the rebuild of the projections.</summary>
[Collection(AgentSuite.Name)]
public sealed class AgentProgramTests(AgentSuite suite)
{
    [RootFact]
    public async Task Rebuilt_projections_are_what_they_were()
    {
        await using var agent = await suite.StartAsync();
        await agent.MountAsync("a", "c");
        await agent.MountAsync("a", "d");
        await agent.MountAsync("b", "c");
        await agent.UnmountAsync("b", "c");
        await agent.PostAsync($"/v1/hosts/{AgentProcess.HostName}/down", new { reason = "new disk" });
        var before = (await agent.StatusAsync("a")).Text;
        Assert.Equal(0, await agent.TerminateAsync());
        Assert.Equal(2, await agent.CountAsync("with gone as (delete from mountledger.mountpoint returning 1) select count(*) from gone"));
        Assert.Equal(2, await agent.CountAsync("with gone as (delete from mountledger.attachment returning 1) select count(*) from gone"));

        agent.Launch(["rebuild", .. agent.Flags]);
        Assert.Equal(0, await agent.ExitCodeAsync());
        Assert.Contains("rebuilt 3 streams of 1 host(s)", agent.Log, StringComparison.Ordinal);

        await agent.StartAgainAsync();
        Assert.Equal(before, (await agent.StatusAsync("a")).Text);
        Assert.Equal("absent", (await agent.StatusAsync("b")).Phase);
        Assert.Equal(2, await agent.CountAsync("select count(*) from mountledger.attachment"));
        Assert.Equal("host-unavailable", (await agent.MountAsync("c", "c")).Problem);
        Assert.Equal("unmounted", (await agent.UnmountAsync("a", "d") is { Status: 200 } ? await agent.UnmountAsync("a", "c") : null)!.Outcome);
    }

    [RootFact]
    public async Task A_configuration_file_with_some_of_the_settings_is_enough()
    {
        await using var agent = AgentProcess.Create(await suite.Server.CreateLedgerAsync());
        var file = Path.Combine(agent.Below("etc"), "mountledger.json");
        File.WriteAllText(file, $$"""
            {
              // Where the ledger is.
              "postgres": {{JsonSerializer.Serialize(agent.Postgres)}},
              "roots": [{{JsonSerializer.Serialize(agent.Root)}}],
              "stateDir": {{JsonSerializer.Serialize(agent.StateDir)}},
            }
            """);
        agent.Launch("--config", file, "--socket", agent.Socket, "--host", AgentProcess.HostName);
        await agent.UntilReadyAsync();
        Assert.Equal("mounted", (await agent.MountAsync("a", "c")).Outcome);
    }

    [RootTheory]
    [InlineData("""{"host": "NODE 1"}""", "host-name")]
    [InlineData("""{"roots": ["relative"]}""", "absolute-path")]
    [InlineData("""{"roots": []}""", "required")]
    [InlineData("""{"pollSeconds": -1}""", "seconds-range")]
    [InlineData("""{"pollSecond": 1}""", "pollSecond")]
    [InlineData("""{"host": 1}""", "line 1")]
    [InlineData("""{"host": """, "line 1")]
    [InlineData("[]", "line 1")]
    public async Task A_configuration_that_cannot_be_used_ends_it_with_2_and_one_line(string text, string says)
    {
        await using var agent = AgentProcess.Create("Host=/nowhere");
        var file = Path.Combine(agent.Below("etc"), "mountledger.json");
        File.WriteAllText(file, text);
        agent.Launch("--config", file, "--socket", agent.Socket, "--state-dir", agent.StateDir);

        Assert.Equal(2, await agent.ExitCodeAsync());
        var line = Assert.Single(agent.Log.TrimEnd('\n').Split('\n'));
        Assert.StartsWith("mountledgerd: ", line, StringComparison.Ordinal);
        Assert.Contains(says, line, StringComparison.Ordinal);
        Assert.False(File.Exists(agent.Socket));
    }
}
