using System.Net.Http.Json;
using System.Text.Json;
using Npgsql;

namespace MountLedger.Storm;

/// <summary>
/// <c>host sync</c> whose agent is killed with -9 in the midst of it, and after its last removal but before its end is recorded: the same list again finishes
/// it, whatever was left, and the history shows it once.
/// </summary>
public sealed class SyncTests
{
    private static readonly string[] Alive = ["alive"];

    [RootTheory]
    // Where it is held, for which time, and how many of the three dead consumers have been removed by then.
    [InlineData("before-append-AttachmentRemoved", 1, 0)]
    [InlineData("after-append-AttachmentRemoved", 2, 2)]
    [InlineData("after-append-UnmountStarted", 1, 3)]
    [Trait("Category", "Long")]
    public async Task What_is_left_of_a_sync_whose_agent_was_killed_is_done_by_the_same_list_again(string point, int count, int removedBefore)
    {
        await using var agent = await StormAgent.StartAsync();
        // One mountpoint, so that the removals follow each other.
        foreach (var consumer in (string[])["dead-1", "dead-2", "dead-3"]) await MountAsync(agent, "a", consumer);
        await MountAsync(agent, "b", "alive");
        var asOf = DateTimeOffset.UtcNow;
        await MountAsync(agent, "c", "born-since");

        agent.Arm(point, count);
        var interrupted = SyncAsync(agent, asOf);
        Assert.Equal(agent.Process.Pid, await agent.HeldAsync(TimeSpan.FromSeconds(30)));
        await agent.KillAsync(Victim.AgentAndWorkers);
        await Assert.ThrowsAnyAsync<HttpRequestException>(() => interrupted);
        Assert.Equal(removedBefore, await CountAsync(agent, "type = 'attachment_removed' and data ->> 'reason' = 'synced'"));
        Assert.Equal(0, await CountAsync(agent, "type = 'consumers_synced'"));

        await agent.Process.StartAgainAsync();
        Assert.Equal(3 - removedBefore, (await SyncAsync(agent, asOf)).GetProperty("removed").GetArrayLength());

        await agent.Process.UntilAsync(() => Task.FromResult(agent.Process.Mounts().Length == 2), "what nobody holds any more is unmounted");
        Assert.Equal(
            [Path.Combine(agent.Root, "b"), Path.Combine(agent.Root, "c")], agent.Process.Mounts().Select(mount => mount.Path).Order(StringComparer.Ordinal));
        Assert.Equal(3, await CountAsync(agent, "type = 'attachment_removed' and data ->> 'reason' = 'synced'"));
        Assert.Equal(1, await CountAsync(agent, "type = 'consumers_synced'"));
        Assert.Equal(1, await CountAsync(agent, "type = 'consumers_synced' and (data ->> 'attachmentsRemoved')::int = 3 and (data ->> 'consumersAlive')::int = 1"));

        // A third time there is nothing left to do, and nothing to record.
        Assert.Equal(0, (await SyncAsync(agent, asOf)).GetProperty("removed").GetArrayLength());
        Assert.Equal(1, await CountAsync(agent, "type = 'consumers_synced'"));
    }

    private static async Task MountAsync(StormAgent agent, string name, string consumer)
    {
        using var answer = await agent.Process.Http.PostAsJsonAsync(
            "/v1/mounts", new { mountpoint = Path.Combine(agent.Root, name), source = "scratch", fstype = "tmpfs", options = Array.Empty<string>(), volume = "vol", consumer });
        Assert.True(answer.IsSuccessStatusCode, await answer.Content.ReadAsStringAsync());
    }

    private static async Task<JsonElement> SyncAsync(StormAgent agent, DateTimeOffset asOf)
    {
        using var answer = await agent.Process.Http.PostAsJsonAsync($"/v1/hosts/{AgentProcess.HostName}/sync", new { consumers = Alive, asOf = asOf.ToString("O") });
        Assert.True(answer.IsSuccessStatusCode, await answer.Content.ReadAsStringAsync());
        return await answer.Content.ReadFromJsonAsync<JsonElement>();
    }

    private static async Task<long> CountAsync(StormAgent agent, string where)
    {
        await using var connection = new NpgsqlConnection($"{agent.Ledger};Pooling=false");
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand($"select count(*) from mountledger.mt_events where {where}", connection);
        return (long)(await command.ExecuteScalarAsync())!;
    }
}
