using System.Text.Json;
using Npgsql;

namespace MountLedger.EndToEnd;

/// <summary>
/// The ledger is restored from a backup while the kernel went on. Nothing is touched where the two differ until an operator says which side is right;
/// both ways, with the agent stopped and running, over restarts, and with a memory that is damaged, lost or cannot be written.
/// </summary>
[Collection(AgentSuite.Name)]
public sealed class LedgerBehindTests(AgentSuite suite)
{
    [RootFact]
    [Trait("Category", "Long")]
    public async Task What_was_recorded_after_the_backup_is_left_alone_and_brought_in_when_the_mounts_are_right()
    {
        await using var agent = await suite.StartAsync();
        var backup = await WorldAsync(agent);
        var mounts = Ids(agent);
        await agent.KillAsync();
        await suite.Server.RestoreAsync(agent.Postgres!, backup);
        await agent.StartAgainAsync();

        await AssertLeftAloneAsync(agent, mounts);
        await agent.KillWithWorkersAsync();
        await agent.StartAgainAsync();
        await AssertLeftAloneAsync(agent, mounts);

        var plan = await DecideAsync(agent, "keep-mounts", dryRun: true);
        Assert.Equal(4, plan.Length);
        Assert.All(plan, line => Assert.Equal("planned", line.GetProperty("outcome").GetString()));
        await AssertLeftAloneAsync(agent, mounts);
        var done = await DecideAsync(agent, "keep-mounts", reason: "the backup was of last night");
        Assert.All(done, line => Assert.Equal("done", line.GetProperty("outcome").GetString()));

        await NoDriftAsync(agent);
        Assert.Equal(mounts, Ids(agent));
        Assert.Equal(["first"], await ConsumersAsync(agent, "unchanged"));
        Assert.Equal(["first", "second"], await ConsumersAsync(agent, "joined"));
        Assert.Equal(["only"], await ConsumersAsync(agent, "new"));
        Assert.Equal("absent", (await agent.StatusAsync("left")).Phase);
        Assert.Equal(["new-owner"], await ConsumersAsync(agent, "other"));
        Assert.Equal(3, await agent.CountAsync(
            "select count(*) from mountledger.mt_events where type = 'drift_resolved' and data ->> 'detail' = 'keep-mounts: the backup was of last night' "
            + "and user_name = 'root' and stream_id not like '%/left'"));

        // They are ours, with their directories: the last detach takes them away.
        Assert.Equal("unmounted", (await agent.UnmountAsync("new", "only")).Outcome);
        Assert.False(Directory.Exists(agent.PathOf("new")));
        Assert.Equal("unmounted", (await agent.UnmountAsync("other", "new-owner")).Outcome);
        Assert.Equal(["first"], await ConsumersAsync(agent, "unchanged"));
        Assert.Equal("detached", (await agent.UnmountAsync("joined", "second")).Outcome);
        await agent.KillAsync();
        await agent.StartAgainAsync();
        Assert.Equal(0, (await agent.GetAsync("/v1/drift")).Json.GetProperty("items").GetArrayLength());
    }

    [RootFact]
    public async Task What_was_recorded_after_the_backup_is_forgotten_when_the_ledger_is_right()
    {
        await using var agent = await suite.StartAsync();
        var backup = await WorldAsync(agent);
        var mounts = Ids(agent);
        // The agent runs, and finds out by itself.
        await suite.Server.RestoreAsync(agent.Postgres!, backup);
        await agent.UntilAsync(async () => (await BehindAsync(agent)).Length == 4, "the ledger is found to be behind");
        await agent.UntilReadyAsync();
        await AssertLeftAloneAsync(agent, mounts);

        var done = await DecideAsync(agent, "trust-ledger");
        Assert.All(done, line => Assert.Equal("done", line.GetProperty("outcome").GetString()));

        // As usual: what the ledger wants and is not there is mounted, what is there and the ledger does not know is foreign, and stays.
        await agent.UntilPhaseAsync("left", "mounted");
        await agent.UntilAsync(() => Task.FromResult(TestHost.MountsAt(agent.PathOf("left")).Length == 1), "it is mounted again");
        Assert.Equal(["first"], await ConsumersAsync(agent, "joined"));
        Assert.Equal(["old-owner"], await ConsumersAsync(agent, "other"));
        await agent.UntilAsync(async () => await DriftOfAsync(agent, "new") is ["foreign"], "the new mount is foreign");
        Assert.Single(TestHost.MountsAt(agent.PathOf("new")));
        Assert.Equal("unmounted", (await agent.UnmountAsync("left", "first")).Outcome);

        await agent.KillAsync();
        await agent.StartAgainAsync();
        Assert.Empty(await BehindAsync(agent));
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task One_mountpoint_can_be_decided_this_way_and_the_others_that_way()
    {
        await using var agent = await suite.StartAsync();
        var backup = await WorldAsync(agent);
        await agent.KillAsync();
        await suite.Server.RestoreAsync(agent.Postgres!, backup);
        await agent.StartAgainAsync();
        await agent.PostAsync("/v1/reconcile", new { mountpoint = agent.PathOf("joined"), ledgerBehind = "keep-mounts" });
        await agent.PostAsync("/v1/reconcile", new { mountpoint = agent.PathOf("left"), ledgerBehind = "trust-ledger" });
        Assert.Equal(2, (await BehindAsync(agent)).Length);
        await agent.KillAsync();
        await agent.StartAgainAsync();
        Assert.Equal(2, (await BehindAsync(agent)).Length);
        Assert.Equal(["first", "second"], await ConsumersAsync(agent, "joined"));
        await agent.UntilPhaseAsync("left", "mounted");
        Assert.Equal("reason", (await agent.PostAsync("/v1/reconcile", new { reason = "no choice" })).Json.GetProperty("errors")[0].GetProperty("field").GetString());
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task A_restore_of_the_newest_state_is_no_news()
    {
        await using var agent = await suite.StartAsync();
        await agent.MountAsync("a", "c");
        await agent.MountAsync("b", "c");
        await agent.UnmountAsync("b", "c");
        await agent.KillAsync();
        var backup = await suite.Server.BackUpAsync(agent.Postgres!);
        await suite.Server.RestoreAsync(agent.Postgres!, backup);
        await agent.StartAgainAsync();
        Assert.Empty(await BehindAsync(agent));
        Assert.Equal("unmounted", (await agent.UnmountAsync("a", "c")).Outcome);
    }

    [RootTheory]
    [InlineData("torn")]
    [InlineData("damaged")]
    [InlineData("missing")]
    [InlineData("a directory")]
    [Trait("Category", "Long")]
    public async Task A_memory_that_is_damaged_or_lost_neither_stops_the_agent_nor_lets_it_unmount(string how)
    {
        await using var agent = await suite.StartAsync();
        var backup = await WorldAsync(agent);
        var mounts = Ids(agent);
        await agent.KillAsync();
        var heads = Path.Combine(agent.StateDir, "heads");
        var bytes = File.ReadAllBytes(heads);
        switch (how)
        {
            case "torn":
                File.WriteAllBytes(heads, bytes[..^20]);
                break;
            case "damaged":
                for (var i = bytes.Length / 2; i < (bytes.Length / 2) + 300; i++) bytes[i] ^= 0x55;
                File.WriteAllBytes(heads, bytes);
                break;
            default:
                File.Delete(heads);
                break;
        }
        if (how == "a directory") Directory.CreateDirectory(heads);
        await agent.StartAgainAsync();
        Assert.Empty(await BehindAsync(agent));
        Assert.Equal(mounts, Ids(agent));
        if (how == "a directory") Directory.Delete(heads);
        await agent.KillAsync();

        // With the ledger restored as well, nothing that may be needed is taken away; the epoch is kept apart, and says that the ledger is old.
        await suite.Server.RestoreAsync(agent.Postgres!, backup);
        if (how != "a directory" && how != "missing") File.WriteAllText(heads, "nonsense\n");
        else if (File.Exists(heads)) File.Delete(heads);
        await agent.StartAgainAsync();
        await Task.Delay(1500);
        Assert.Equal(mounts, Ids(agent));
        Assert.NotEmpty(await BehindAsync(agent));
        Assert.All(await DecideAsync(agent, "keep-mounts"), line => Assert.Equal("done", line.GetProperty("outcome").GetString()));
        Assert.Equal(mounts, Ids(agent));
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task A_full_disk_keeps_nobody_from_mounting_and_the_memory_is_whole_again_afterwards()
    {
        await using var agent = AgentProcess.Create(await suite.Server.CreateLedgerAsync());
        Directory.CreateDirectory(agent.StateDir);
        Shell.Run("mount", "-t", "tmpfs", "-o", "size=128k", "state", agent.StateDir);
        await agent.StartAgainAsync();
        var backup = await WorldAsync(agent);
        var ballast = Path.Combine(agent.StateDir, "ballast");
        Shell.Run("/bin/sh", "-c", $"dd if=/dev/zero of={ballast} bs=1k 2>/dev/null; true");
        for (var i = 0; i < 30; i++) Assert.Equal("mounted", (await agent.MountAsync($"full{i}", "c")).Outcome);
        await agent.UntilAsync(() => Task.FromResult(agent.Log.Contains("cannot be kept", StringComparison.Ordinal)), "the agent says so");
        await agent.UntilAsync(async () => (await agent.ReadyAsync()).Text.Contains("cannot be kept", StringComparison.Ordinal), "readyz says so");

        File.Delete(ballast);
        await agent.UntilAsync(() => Task.FromResult(agent.Log.Contains("is kept in", StringComparison.Ordinal)), "it is kept again");
        var mounts = Ids(agent);
        await agent.KillAsync();
        await suite.Server.RestoreAsync(agent.Postgres!, backup);
        await agent.StartAgainAsync();
        Assert.Equal(34, (await BehindAsync(agent)).Length);
        Assert.Equal(mounts, Ids(agent));
        await DecideAsync(agent, "keep-mounts");
        await NoDriftAsync(agent);
        Assert.Equal(mounts, Ids(agent));
        Assert.Equal(["c"], await ConsumersAsync(agent, "full29"));
    }

    /// <summary>Mountpoints of every kind, of which a backup is made in between.</summary>
    private async Task<string> WorldAsync(AgentProcess agent)
    {
        await agent.MountAsync("unchanged", "first");
        await agent.MountAsync("joined", "first");
        await agent.MountAsync("left", "first");
        await agent.MountAsync("other", "old-owner");
        var backup = await suite.Server.BackUpAsync(agent.Postgres!);
        await agent.UntilReadyAsync();
        await agent.UntilAsync(async () => (await agent.MountAsync("joined", "second")).Status == 200, "the ledger is there again");
        Assert.Equal("mounted", (await agent.MountAsync("new", "only")).Outcome);
        Assert.Equal("unmounted", (await agent.UnmountAsync("left", "first")).Outcome);
        Assert.Equal("unmounted", (await agent.UnmountAsync("other", "old-owner")).Outcome);
        Assert.Equal("mounted", (await agent.MountAsync("other", "new-owner", options: ["size=1m"])).Outcome);
        return backup;
    }

    private static async Task AssertLeftAloneAsync(AgentProcess agent, (string, ulong?)[] mounts)
    {
        Assert.Equal(
            [agent.PathOf("joined"), agent.PathOf("left"), agent.PathOf("new"), agent.PathOf("other")], (await BehindAsync(agent)).Order(StringComparer.Ordinal));
        foreach (var answer in (Answer[])[
            await agent.MountAsync("new", "only"), await agent.MountAsync("left", "first"), await agent.UnmountAsync("joined", "first"),
            await agent.UnmountAsync("other", "new-owner", mode: "lazy"), await agent.MountAsync("joined", "first")])
        {
            Assert.True((answer.Status, answer.Problem) == (409, "ledger-behind"), $"{answer}\n{agent.Log}");
            Assert.Contains("reconcile --ledger-behind", answer.Detail, StringComparison.Ordinal);
        }
        // Others are served.
        Assert.Equal("attached", (await agent.MountAsync("unchanged", "third")).Outcome);
        Assert.Equal("detached", (await agent.UnmountAsync("unchanged", "third")).Outcome);
        var own = (await agent.GetAsync("/v1/hosts")).Json.GetProperty("items").EnumerateArray().Single(host => host.GetProperty("own").GetBoolean());
        Assert.Equal(4, own.GetProperty("ledgerBehind").GetInt32());
        Assert.Contains("ledger-behind: 4", (await agent.ReadyAsync()).Text, StringComparison.Ordinal);
        Assert.Equal(mounts, Ids(agent));
    }

    private static (string, ulong?)[] Ids(AgentProcess agent) => [.. agent.Mounts().Select(mount => (mount.Path, mount.MountId)).Order()];

    private static async Task<string[]> BehindAsync(AgentProcess agent) => (await agent.GetAsync("/v1/drift")) is { Status: 200 } answer
        ? [.. answer.Json.GetProperty("items").EnumerateArray()
            .Where(item => item.GetProperty("kind").GetString() == "ledger-behind").Select(item => item.GetProperty("mountpoint").GetString()!)]
        : [];

    private static async Task<string[]> DriftOfAsync(AgentProcess agent, string name) =>
        [.. (await agent.GetAsync("/v1/drift")).Json.GetProperty("items").EnumerateArray()
            .Where(item => item.GetProperty("mountpoint").GetString() == agent.PathOf(name)).Select(item => item.GetProperty("kind").GetString()!)];

    private static async Task<JsonElement[]> DecideAsync(AgentProcess agent, string side, bool dryRun = false, string? reason = null)
    {
        var answer = await agent.PostAsync("/v1/reconcile", new { ledgerBehind = side, dryRun, reason });
        Assert.Equal(200, answer.Status);
        return [.. answer.Json.GetProperty("items").EnumerateArray()];
    }

    private static async Task<string[]> ConsumersAsync(AgentProcess agent, string name) =>
        [.. (await agent.StatusAsync(name)).Json.GetProperty("attachments").EnumerateArray().Select(item => item.GetProperty("consumer").GetString()!).Order(StringComparer.Ordinal)];

    private static Task NoDriftAsync(AgentProcess agent) => agent.UntilAsync(
        async () => (await agent.GetAsync("/v1/drift")).Json.GetProperty("items").GetArrayLength() == 0, "drift is over");
}
