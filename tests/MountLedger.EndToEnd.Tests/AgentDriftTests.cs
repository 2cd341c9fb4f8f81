using System.Text.Json;

namespace MountLedger.EndToEnd;

/// <summary>Drift, and what an operator does about it, over HTTP against the real program and the real kernel.</summary>
[Collection(AgentSuite.Name)]
public sealed class AgentDriftTests(AgentSuite suite)
{
    [RootFact]
    public async Task A_paused_mountpoint_is_left_missing_and_made_again_when_it_is_resumed()
    {
        await using var agent = await suite.StartAsync();
        var path = agent.PathOf("a");
        await agent.MountAsync("a", "c");
        Assert.Equal(200, (await agent.PostAsync("/v1/pause", new { mountpoint = path, reason = "new disk" })).Status);

        Shell.Unmount(path);
        var drift = await DriftAsync(agent, "missing");
        Assert.True(drift.GetProperty("paused").GetBoolean());
        Assert.Contains("resume", (await agent.PostAsync("/v1/reconcile", new { mountpoint = path })).Json
            .GetProperty("items")[0].GetProperty("repair").GetString(), StringComparison.Ordinal);
        Assert.Empty(TestHost.MountsAt(path));

        Assert.Equal(200, (await agent.PostAsync("/v1/resume", new { mountpoint = path })).Status);
        await agent.UntilPhaseAsync("a", "mounted");
        await NoDriftAsync(agent);
        // A second time each is the same again and records nothing.
        var before = (await agent.EventsAsync("a")).Length;
        Assert.Equal(200, (await agent.PostAsync("/v1/resume", new { mountpoint = path })).Status);
        Assert.Equal(before, (await agent.EventsAsync("a")).Length);
    }

    [RootFact]
    public async Task What_is_mounted_over_ours_goes_when_an_operator_says_so_and_a_dry_run_says_it_first()
    {
        await using var agent = await suite.StartAsync();
        var path = agent.PathOf("a");
        await agent.MountAsync("a", "c");
        Shell.Run("mount", "-t", "tmpfs", "stranger", path);
        await DriftAsync(agent, "stacked");

        var plan = (await agent.PostAsync("/v1/reconcile", new { dryRun = true })).Json.GetProperty("items")[0];
        Assert.Equal(("stacked", "planned"), (plan.GetProperty("kind").GetString(), plan.GetProperty("outcome").GetString()));
        Assert.Equal(2, TestHost.MountsAt(path).Length);

        var done = (await agent.PostAsync("/v1/reconcile", new { })).Json.GetProperty("items")[0];
        Assert.Equal("done", done.GetProperty("outcome").GetString());
        Assert.Equal("scratch", Assert.Single(TestHost.MountsAt(path)).Source);
        await NoDriftAsync(agent);
    }

    [RootFact]
    public async Task What_took_the_place_of_ours_gives_it_back_when_an_operator_says_so()
    {
        await using var agent = await suite.StartAsync();
        var path = agent.PathOf("a");
        await agent.MountAsync("a", "c");
        await agent.PostAsync("/v1/pause", new { mountpoint = path });
        Shell.Unmount(path);
        Shell.Run("mount", "-t", "tmpfs", "stranger", path);
        await DriftAsync(agent, "source-mismatch");
        await agent.PostAsync("/v1/resume", new { mountpoint = path });

        var items = (await agent.PostAsync("/v1/reconcile", new { mountpoint = path })).Json.GetProperty("items");

        Assert.All(items.EnumerateArray(), item => Assert.Equal("done", item.GetProperty("outcome").GetString()));
        Assert.Equal("scratch", Assert.Single(TestHost.MountsAt(path)).Source);
        await NoDriftAsync(agent);
    }

    [RootFact]
    public async Task Files_that_were_written_below_are_covered_only_when_an_operator_says_so()
    {
        await using var agent = await suite.StartAsync();
        var path = agent.PathOf("a");
        await agent.MountAsync("a", "c");
        await agent.PostAsync("/v1/pause", new { mountpoint = path });
        Shell.Unmount(path);
        await DriftAsync(agent, "missing");
        File.WriteAllText(Path.Combine(path, "precious"), "");
        await agent.PostAsync("/v1/resume", new { mountpoint = path });
        await DriftAsync(agent, "shadowed-data");

        var items = (await agent.PostAsync("/v1/reconcile", new { mountpoint = path })).Json.GetProperty("items");

        Assert.All(items.EnumerateArray(), item => Assert.Equal("done", item.GetProperty("outcome").GetString()));
        Assert.Single(TestHost.MountsAt(path));
        await agent.UnmountAsync("a", "c");
        Assert.True(File.Exists(Path.Combine(path, "precious")));
    }

    [RootFact]
    public async Task Consumers_that_are_gone_lose_what_they_held_before_the_list_was_made()
    {
        await using var agent = await suite.StartAsync();
        await agent.MountAsync("a", "alive");
        await agent.MountAsync("a", "dead");
        await agent.MountAsync("b", "dead");
        var asOf = DateTimeOffset.UtcNow.ToString("O");
        await agent.MountAsync("c", "born-since");
        var route = $"/v1/hosts/{AgentProcess.HostName}/sync";

        var dry = await agent.PostAsync(route, new { consumers = new[] { "alive" }, asOf, dryRun = true });
        Assert.Equal(2, dry.Json.GetProperty("removed").GetArrayLength());
        Assert.Equal(4, await agent.CountAsync("select count(*) from mountledger.attachment"));

        var done = await agent.PostAsync(route, new { consumers = new[] { "alive" }, asOf });
        Assert.Equal(2, done.Json.GetProperty("removed").GetArrayLength());
        await agent.UntilPhaseAsync("b", "absent");
        Assert.Equal("mounted", (await agent.StatusAsync("a")).Phase);
        Assert.Equal("mounted", (await agent.StatusAsync("c")).Phase);
        Assert.Equal(2, await agent.CountAsync("select count(*) from mountledger.attachment"));
        Assert.Equal(2, await agent.CountAsync(
            "select count(*) from mountledger.mt_events where type = 'attachment_removed' and data ->> 'reason' = 'synced'"));

        // Again: nothing is left to do, and nothing is recorded.
        Assert.Equal(0, (await agent.PostAsync(route, new { consumers = new[] { "alive" }, asOf })).Json.GetProperty("removed").GetArrayLength());
        Assert.Equal(1, await agent.CountAsync("select count(*) from mountledger.mt_events where type = 'consumers_synced'"));
    }

    [RootFact]
    public async Task A_list_of_consumers_that_cannot_be_meant_is_refused()
    {
        var agent = await suite.SharedAsync();
        var route = $"/v1/hosts/{AgentProcess.HostName}/sync";
        var future = DateTimeOffset.UtcNow.AddHours(1).ToString("O");
        Assert.Equal("consumers", Field(await agent.PostAsync(route, new { asOf = "now" })));
        Assert.Equal("asOf", Field(await agent.PostAsync(route, new { consumers = Array.Empty<string>() })));
        Assert.Equal("asOf", Field(await agent.PostAsync(route, new { consumers = Array.Empty<string>(), asOf = future })));
        Assert.Equal("consumers[1]", Field(await agent.PostAsync(route, new { consumers = new[] { "a", "" }, asOf = "now" })));
        Assert.Equal("host", Field(await agent.PostAsync("/v1/hosts/elsewhere/sync", new { consumers = Array.Empty<string>(), asOf = "now" })));
        Assert.Equal(404, (await agent.PostAsync("/v1/pause", new { mountpoint = agent.PathOf("never-seen") })).Status);
        Assert.Equal("mountpoint", Field(await agent.PostAsync("/v1/pause", new { })));
    }

    [RootFact]
    public async Task A_list_of_fifty_thousand_consumers_is_taken()
    {
        await using var agent = await suite.StartAsync();
        await agent.MountAsync("a", "consumer-49999");
        await agent.MountAsync("b", "dead");
        var consumers = Enumerable.Range(0, 50_000).Select(i => $"consumer-{i}").ToArray();

        var done = await agent.PostAsync($"/v1/hosts/{AgentProcess.HostName}/sync", new { consumers, asOf = DateTimeOffset.UtcNow.ToString("O") });

        Assert.Equal((200, 1), (done.Status, done.Json.GetProperty("removed").GetArrayLength()));
        Assert.Equal("mounted", (await agent.StatusAsync("a")).Phase);
    }

    [RootFact]
    public async Task An_operators_request_with_a_key_is_carried_out_once_and_with_a_version_only_at_that_one()
    {
        await using var agent = await suite.StartAsync();
        var body = new { mountpoint = agent.PathOf("a"), reason = "new disk" };
        await agent.MountAsync("a", "c");
        var version = (await agent.StatusAsync("a")).Json.GetProperty("version").GetInt64();

        Assert.Equal(412, (await agent.PostAsync("/v1/pause", body, ("If-Match", $"\"{version + 1}\""))).Status);
        Assert.Equal(version, (await agent.StatusAsync("a")).Json.GetProperty("version").GetInt64());

        var first = await agent.PostAsync("/v1/pause", body, ("If-Match", $"\"{version}\""), ("Idempotency-Key", "pause-1"));
        Assert.Equal(200, first.Status);
        Assert.Equal(200, (await agent.PostAsync("/v1/resume", new { body.mountpoint })).Status);
        var again = await agent.PostAsync("/v1/pause", body, ("If-Match", $"\"{version}\""), ("Idempotency-Key", "pause-1"));
        Assert.Equal((200, first.Text), (again.Status, again.Text));
        // The answer is the first one's, and nothing was paused again.
        Assert.Equal(["repair_paused", "repair_resumed"], (await agent.EventsAsync("a"))[^2..]);

        Assert.Equal("Idempotency-Key", Field(await agent.PostAsync("/v1/pause", new { body.mountpoint, reason = "another" }, ("Idempotency-Key", "pause-1"))));
        Assert.Equal("If-Match", Field(await agent.PostAsync("/v1/reconcile", new { }, ("If-Match", "\"1\""))));
    }

    private static string? Field(Answer answer)
    {
        Assert.Equal(400, answer.Status);
        return answer.Json.GetProperty("errors")[0].GetProperty("field").GetString();
    }

    private static async Task<JsonElement> DriftAsync(AgentProcess agent, string kind)
    {
        JsonElement found = default;
        await agent.UntilAsync(async () =>
        {
            var items = (await agent.GetAsync("/v1/drift")).Json.GetProperty("items").EnumerateArray();
            found = items.FirstOrDefault(item => item.GetProperty("kind").GetString() == kind);
            return found.ValueKind == JsonValueKind.Object;
        }, $"drift {kind} was not reported");
        return found;
    }

    private static Task NoDriftAsync(AgentProcess agent) => agent.UntilAsync(
        async () => (await agent.GetAsync("/v1/drift")).Json.GetProperty("items").GetArrayLength() == 0, "drift did not end");
}
