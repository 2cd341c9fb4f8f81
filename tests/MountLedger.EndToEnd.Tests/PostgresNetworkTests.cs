using System.Diagnostics;
using Npgsql;
using static MountLedger.EndToEnd.AgentRequests;

namespace MountLedger.EndToEnd;

/// <summary>
/// The network between agent and PostgreSQL is cut in the middle of an append, is slow, or falls silent. Whatever the fate of that append was, the next answer
/// fits it, also when it would be committed after that answer. The network is a part of this process: when that gets no time, the agent says for a moment
/// that the ledger is away.
/// </summary>
public sealed class PostgresNetworkTests
{
    /// <summary>So often the same is measured when the machine stood still meanwhile.</summary>
    private const int RoundsMax = 4;

    private static readonly TimeSpan CutMax = TimeSpan.FromSeconds(60);

    [RootTheory]
    [InlineData(true)]
    [InlineData(false)]
    [Trait("Category", "Long")]
    public async Task A_detach_whose_answer_was_lost_does_not_take_away_who_attaches_next(bool delivered)
    {
        await using var ledger = await MortalPostgres.StartAsync();
        await using var network = new PostgresProxy(ledger.ConnectionString);
        await using var agent = await AgentProcess.StartAsync(network.ConnectionString);
        agent.Postgres = network.ConnectionString;
        for (var round = 0; round < 5; round++)
        {
            Assert.Equal(200, (await ServedAsync(() => agent.MountAsync("a", "c"))).Status);
            var cut = network.CutAt("attachment_removed", delivered);
            await LoseAsync(agent, cut, () => agent.UnmountAsync("a", "c"));

            // The same consumer wants it again. Attached already, nothing is appended, so no version protects this answer.
            var mounted = await ServedAsync(() => agent.MountAsync("a", "c"));
            if (!delivered) await cut.ReleaseAsync();
            Assert.True(mounted is { Status: 200, Phase: "mounted" }, $"{mounted}\n{agent.Log}");
            await Task.Delay(200);
            Assert.Equal("mounted", (await agent.StatusAsync("a")).Phase);
            Assert.Single(TestHost.MountsAt(agent.PathOf("a")));
        }
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task An_append_that_waits_for_a_lock_when_its_connection_is_lost_is_not_committed_behind_an_answer()
    {
        await using var ledger = await MortalPostgres.StartAsync();
        await using var network = new PostgresProxy(ledger.ConnectionString);
        await using var agent = await AgentProcess.StartAsync(network.ConnectionString);
        Assert.Equal(200, (await ServedAsync(() => agent.MountAsync("a", "c"))).Status);
        Task<Answer> again;
        await using (var connection = new NpgsqlConnection(ledger.ConnectionString + ";Pooling=false"))
        {
            await connection.OpenAsync();
            await using var transaction = await connection.BeginTransactionAsync();
            // Writers wait, readers do not.
            await using var command = new NpgsqlCommand("lock table mountledger.mt_events in share mode", connection, transaction);
            await command.ExecuteNonQueryAsync();
            var cut = network.CutAt("attachment_removed", deliver: true);
            await LoseAsync(agent, cut, () => agent.UnmountAsync("a", "c"));
            again = ServedAsync(() => agent.MountAsync("a", "c"));
            await Task.WhenAny(again, Task.Delay(2000));
            await transaction.CommitAsync();
        }
        Assert.Equal(200, (await again).Status);
        await Task.Delay(500);
        Assert.Equal("mounted", (await agent.StatusAsync("a")).Phase);
        Assert.Equal(1, (await agent.StatusAsync("a")).Json.GetProperty("attachments").GetArrayLength());
        Assert.Single(TestHost.MountsAt(agent.PathOf("a")));
    }

    [RootTheory]
    [InlineData(true)]
    [InlineData(false)]
    [Trait("Category", "Long")]
    public async Task A_request_whose_answer_was_lost_is_repeated_by_its_key_and_done_once(bool delivered)
    {
        await using var ledger = await MortalPostgres.StartAsync();
        await using var network = new PostgresProxy(ledger.ConnectionString);
        await using var agent = await AgentProcess.StartAsync(network.ConnectionString);
        agent.Postgres = network.ConnectionString;
        await ServedAsync(() => agent.MountAsync("warm", "c"));
        for (var round = 0; round < 3; round++)
        {
            var (name, key) = ($"n{round}", ("Idempotency-Key", $"key-{round}"));
            Task<Answer> AskAsync() => agent.MountAsync(name, "c", headers: key);
            var cut = network.CutAt("attachment_added", delivered);
            await LoseAsync(agent, cut, AskAsync);
            var repeated = await ServedAsync(AskAsync);
            if (!delivered) await cut.ReleaseAsync();
            Assert.True(repeated is { Status: 200, Outcome: "mounted" }, $"{repeated}\n{agent.Log}");
            Assert.Equal(repeated.Text, (await ServedAsync(AskAsync)).Text);
            Assert.Single(TestHost.MountsAt(agent.PathOf(name)));
            Assert.Equal(1, await agent.CountAsync(
                $"select count(*) from mountledger.mt_events where type = 'mount_requested' and stream_id = '{agent.PathOf(name)}'"));
        }
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task A_slow_network_makes_commands_slow_and_nothing_else()
    {
        await using var ledger = await MortalPostgres.StartAsync();
        await using var network = new PostgresProxy(ledger.ConnectionString);
        await using var agent = await AgentProcess.StartAsync(network.ConnectionString);
        agent.Postgres = network.ConnectionString;
        await ServedAsync(() => agent.MountAsync("warm", "c"));
        network.Delay(100);
        // One round in which nobody is told that the ledger is away.
        for (var round = 1; ; round++)
        {
            var one = await agent.MountAsync($"a{round}", "c");
            var all = await Task.WhenAll(Enumerable.Range(0, 8).Select(number => agent.MountAsync($"n{round}-{number}", "c")));
            var last = await agent.UnmountAsync($"a{round}", "c");
            var ready = await agent.ReadyAsync();
            if (round < RoundsMax && (ready.Status == 503 || all.Append(one).Append(last).Any(answer => answer.Status == 503)))
            {
                await agent.UntilReadyAsync();
                continue;
            }
            Assert.All(all.Append(one), answer => Assert.Equal("mounted", answer.Outcome));
            Assert.Equal("unmounted", last.Outcome);
            Assert.Equal(200, ready.Status);
            return;
        }
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task A_network_that_falls_silent_is_told_at_once_and_comes_back_by_itself()
    {
        await using var ledger = await MortalPostgres.StartAsync();
        await using var network = new PostgresProxy(ledger.ConnectionString);
        await using var agent = await AgentProcess.StartAsync(network.ConnectionString);
        agent.Postgres = network.ConnectionString;
        Assert.Equal(200, (await ServedAsync(() => agent.MountAsync("a", "c"))).Status);
        // Whoever is the first waits until it is noticed. The quickest of a few silences counts: a loaded machine adds to some.
        const double NoticedSeconds = 4;
        var clock = Stopwatch.StartNew();
        for (var silence = 1; ; silence++)
        {
            network.FallSilent();
            clock.Restart();
            var refused = await agent.UnmountAsync("a", "c");
            var seconds = clock.Elapsed.TotalSeconds;
            Assert.Equal((503, "unavailable"), (refused.Status, refused.Problem));
            if (seconds < NoticedSeconds) break;
            Assert.True(silence < 3, $"{seconds} s until the silence was noticed");
            network.Speak();
            await agent.UntilReadyAsync();
            Assert.Equal(200, (await ServedAsync(() => agent.MountAsync("a", "c"))).Status);
        }
        // From now on it is known. The quickest of a few: what the agent takes, not what a loaded machine adds.
        var quickest = double.MaxValue;
        for (var i = 0; i < 5; i++)
        {
            clock.Restart();
            Assert.Equal(503, (await agent.MountAsync("b", "c")).Status);
            quickest = Math.Min(quickest, clock.Elapsed.TotalSeconds);
        }
        Assert.InRange(quickest, 0, 1);
        var status = await agent.StatusAsync("a");
        Assert.Equal((200, "mounted"), (status.Status, status.Phase));
        Assert.True(status.Json.TryGetProperty("asOf", out _));

        network.Speak();
        await agent.UntilReadyAsync();
        var mounted = await ServedAsync(() => agent.MountAsync("a", "c"));
        Assert.True(mounted.Status == 200, $"{mounted}\n{agent.Log}");
        await Task.Delay(500);
        Assert.Equal("mounted", (await agent.StatusAsync("a")).Phase);
        Assert.Single(TestHost.MountsAt(agent.PathOf("a")));
    }

    /// <summary>Sends a request until it has met the cut, which one does not that is refused at once. All that anybody is told is that the ledger is away.</summary>
    private static async Task LoseAsync(AgentProcess agent, PostgresProxy.Cut cut, Func<Task<Answer>> ask)
    {
        var clock = Stopwatch.StartNew();
        do
        {
            Assert.True(clock.Elapsed < CutMax, $"it never gets to the network\n{agent.Log}");
            var lost = await ask();
            Assert.True(lost.Status == 503, $"{lost}\n{agent.Log}");
        }
        // One that was given up on its way may still get there.
        while (await Task.WhenAny(cut.Done, Task.Delay(2000)) != cut.Done);
    }
}
