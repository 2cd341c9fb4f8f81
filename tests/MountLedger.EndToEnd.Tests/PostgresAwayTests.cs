using System.Collections.Concurrent;
using System.Diagnostics;
using Npgsql;

namespace MountLedger.EndToEnd;

/// <summary>
/// What happens to PostgreSQL while an agent works, each done for real: it is told at once, nothing that was acknowledged is lost, what was not is there or
/// not at all, and recovery needs no hand.
/// </summary>
public sealed class PostgresAwayTests
{
    /// <summary>What the agent may take to say that the ledger is away. On a loaded machine; by itself it takes less than one second.</summary>
    private const double AtOnceSeconds = 3;

    /// <summary>What <c>/readyz</c> may take to say what a caller has been told.</summary>
    private const double ReadyzSeconds = 2;

    /// <summary>So often the same is asked when the machine stood still meanwhile.</summary>
    private const int TriesMax = 4;

    [RootTheory]
    [InlineData("stop")]
    [InlineData("kill")]
    [InlineData("freeze")]
    [Trait("Category", "Long")]
    public async Task A_server_that_goes_away_amid_commands_is_told_at_once_and_loses_nothing(string how)
    {
        await using var ledger = await MortalPostgres.StartAsync();
        await using var agent = await AgentProcess.StartAsync(ledger.ConnectionString);
        Assert.Equal("mounted", (await agent.MountAsync("stays", "c")).Outcome);
        var kept = agent.Mounts().Single();
        using var enough = new CancellationTokenSource();
        var acknowledged = new ConcurrentDictionary<string, string>();
        var callers = Enumerable.Range(0, 6).Select(caller => CallAsync(agent, $"n{caller}", acknowledged, enough.Token)).ToArray();
        await agent.UntilAsync(() => Task.FromResult(acknowledged.Count == 6), "every caller has had an answer");

        if (how == "stop") await ledger.StopAsync();
        else if (how == "kill") ledger.Kill();
        else ledger.Freeze();
        await agent.UntilAsync(async () => (await agent.ReadyAsync()).Status == 503, "it is noticed");
        // Which has nothing to record when nothing differs: it is told by the pulse alone, and readyz by its own query too.
        await agent.UntilAsync(async () => (await agent.PostAsync("/v1/reconcile", new { })).Status == 503, "the pulse notices too");

        await AssertAwayAsync(agent, kept);

        if (how == "freeze") ledger.Continue();
        else await ledger.StartAgainAsync();
        await agent.UntilReadyAsync();
        await Task.Delay(500);
        await enough.CancelAsync();
        await Task.WhenAll(callers);
        Assert.Equal("attached", (await agent.MountAsync("stays", "d")).Outcome);
        foreach (var (name, answer) in acknowledged)
        {
            await agent.UntilPhaseAsync(name, answer == "mounted" ? "mounted" : "absent");
            Assert.Equal(answer == "mounted" ? 1 : 0, TestHost.MountsAt(agent.PathOf(name)).Length);
        }
        Assert.Equal(kept.MountId, Assert.Single(TestHost.MountsAt(agent.PathOf("stays"))).MountId);
        Assert.Equal(0, (await agent.GetAsync("/v1/drift")).Json.GetProperty("items").GetArrayLength());
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task An_outcome_is_kept_while_the_server_is_away_and_appended_when_it_is_back()
    {
        await using var ledger = await MortalPostgres.StartAsync();
        using var slow = new SlowFuse();
        await using var agent = await AgentProcess.StartAsync(ledger.ConnectionString, environment => environment["MOUNTLEDGER_CONFIG"] = slow.Config);
        await agent.MountAsync("busy", "c");
        using var holder = Process.Start(new ProcessStartInfo("sleep", "600") { WorkingDirectory = agent.PathOf("busy") })!;
        try
        {
            // One that fails is recorded as failed, one that works as mounted.
            Assert.Equal(202, (await agent.MountAsync("slow", "c", agent.Below("source"), "fuse.slow", wait: 0)).Status);
            await slow.UntilItRunsAsync(agent);
            await ledger.StopAsync();
            slow.LetGo();
            await Task.Delay(1000);
            Assert.Empty(TestHost.MountsAt(agent.PathOf("slow"))); // Its start could not be recorded, so it has not been done.
            await ledger.StartAgainAsync();
            await agent.UntilPhaseAsync("slow", "mounted");
            Assert.Single(TestHost.MountsAt(agent.PathOf("slow")));
            await agent.UntilReadyAsync(); // What the agent knows by its memory comes before what it knows of the server.
            Assert.Equal("unmounted", (await agent.UnmountAsync("slow", "c")).Outcome);
        }
        finally
        {
            holder.Kill();
            await holder.WaitForExitAsync();
        }
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task A_server_without_free_connections_serves_those_who_have_one_and_is_told_to_who_has_none()
    {
        await using var ledger = await MortalPostgres.StartAsync();
        await using var agent = await AgentProcess.StartAsync(ledger.ConnectionString);
        Assert.Equal("mounted", (await agent.MountAsync("a", "c")).Outcome);
        var taken = new List<NpgsqlConnection>();
        var name = "";
        try
        {
            await TakeAllAsync();
            Assert.Equal("mounted", (await agent.MountAsync("b", "c")).Outcome);

            // The quickest of a few: a loaded machine adds to some.
            for (var attempt = 1; ; attempt++)
            {
                name = $"d{attempt}";
                await ledger.RunAsync("select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'mountledger'");
                await TakeAllAsync();
                var (refused, seconds) = await QuickestAsync(() => agent.MountAsync(name, "c"));
                Assert.Equal((503, "unavailable"), (refused.Status, refused.Problem));
                // The first ones may still meet the ends of the connections that it had.
                await agent.UntilAsync(async () => (await agent.MountAsync(name, "c")).Detail.Contains("53300", StringComparison.Ordinal), "it says why");
                Assert.InRange(seconds, 0, AtOnceSeconds);
                var clock = Stopwatch.StartNew();
                await agent.UntilAsync(async () => (await agent.ReadyAsync()).Status == 503, "readyz says it too");
                if (clock.Elapsed.TotalSeconds < ReadyzSeconds) break;
                Assert.True(attempt < TriesMax, $"readyz says it only after {clock.Elapsed.TotalSeconds} s");
                await GiveBackAsync();
                await agent.UntilReadyAsync();
                await TakeAllAsync();
            }
        }
        finally
        {
            await GiveBackAsync();
        }
        await agent.UntilReadyAsync();
        await agent.UntilAsync(async () => (await agent.MountAsync(name, "c")).Outcome == "mounted", "it mounts again");

        async Task GiveBackAsync()
        {
            foreach (var connection in taken) await connection.DisposeAsync();
            taken.Clear();
        }

        async Task TakeAllAsync()
        {
            while (true)
            {
                var connection = new NpgsqlConnection($"{ledger.ConnectionString};Pooling=false;Application Name=others");
                try
                {
                    await connection.OpenAsync();
                    taken.Add(connection);
                }
                catch (PostgresException e) when (e.SqlState == PostgresErrorCodes.TooManyConnections)
                {
                    await connection.DisposeAsync();
                    return;
                }
            }
        }
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task A_server_whose_disk_is_full_takes_nothing_says_so_and_goes_on_when_there_is_room()
    {
        await using var ledger = await MortalPostgres.StartAsync(diskMiB: 120);
        await using var agent = await AgentProcess.StartAsync(ledger.ConnectionString);
        Assert.Equal("mounted", (await agent.MountAsync("a", "c")).Outcome);
        var answered = new List<string>();
        string refusal;
        using (ledger.FillDisk())
        {
            Answer last;
            double seconds;
            var number = 0;
            do
            {
                (last, seconds) = await TimedAsync(() => agent.MountAsync($"n{number}", new string('c', 100)));
                if (last.Status == 200) answered.Add($"n{number}");
                Assert.True(number++ < 5000, "the disk is never full");
            }
            while (last.Status == 200);
            Assert.True((last.Status, last.Problem) == (503, "unavailable"), $"{last}\n{agent.Log}");
            refusal = last.Detail;
            if (seconds > AtOnceSeconds) (_, seconds) = await QuickestAsync(() => agent.MountAsync("refused", "c"));
            Assert.InRange(seconds, 0, AtOnceSeconds);
            await agent.UntilAsync(async () => (await agent.ReadyAsync()).Status == 503, "readyz says so");
            Assert.Equal(200, (await agent.StatusAsync("a")).Status);
        }
        await agent.UntilReadyAsync();
        Assert.Equal("mounted", (await agent.MountAsync("after", "c")).Outcome);
        Assert.NotEmpty(refusal);
        foreach (var name in answered.TakeLast(20)) Assert.Equal("mounted", (await agent.StatusAsync(name)).Phase);
        // What was refused is there or not at all; either way the two agree.
        await agent.UntilAsync(async () => (await agent.StatesAsync()).Count(state => state.Phase == Phase.Mounted) == agent.Mounts().Length, "ledger and kernel agree");
    }

    [RootFact]
    public async Task A_server_that_is_read_only_answers_queries_and_takes_no_command()
    {
        await using var ledger = await MortalPostgres.StartAsync();
        await using var agent = await AgentProcess.StartAsync(ledger.ConnectionString);
        Assert.Equal("mounted", (await agent.MountAsync("a", "c")).Outcome);
        await ledger.RunAsync("alter system set default_transaction_read_only = on");
        await ledger.RunAsync("select pg_reload_conf()");
        await agent.UntilAsync(
            async () => await agent.ReadyAsync() is { Status: 503, Text: var text } && text.Contains("read-only", StringComparison.Ordinal), "readyz says so");
        Assert.Equal((503, "unavailable"), await agent.MountAsync("b", "c") is var refused ? (refused.Status, refused.Problem) : default);
        Assert.Contains("read-only", (await agent.UnmountAsync("a", "c")).Detail, StringComparison.Ordinal);
        Assert.Equal("mounted", (await agent.StatusAsync("a")).Phase);
        Assert.Single(agent.Mounts());

        await ledger.RunAsync("alter system reset default_transaction_read_only");
        await ledger.RunAsync("select pg_reload_conf()");
        await agent.UntilReadyAsync();
        Assert.Equal("unmounted", (await agent.UnmountAsync("a", "c")).Outcome);
    }

    private static async Task AssertAwayAsync(AgentProcess agent, ObservedMount kept)
    {
        foreach (var command in (Func<Task<Answer>>[])[
            () => agent.MountAsync("b", "c"), () => agent.UnmountAsync("stays", "c"), () => agent.PostAsync("/v1/reconcile", new { }),
            () => agent.PostAsync("/v1/pause", new { mountpoint = agent.PathOf("stays") }), () => agent.PostAsync($"/v1/hosts/{AgentProcess.HostName}/down", new { }),
            () => agent.GetAsync($"/v1/history?host={AgentProcess.HostName}"), () => agent.GetAsync("/v1/state?at=1s"), () => agent.GetAsync("/readyz")])
        {
            var (refused, seconds) = await QuickestAsync(command);
            Assert.Equal((503, "unavailable"), (refused.Status, refused.Problem));
            Assert.InRange(seconds, 0, AtOnceSeconds);
        }
        Assert.Equal(200, (await agent.GetAsync("/healthz")).Status);
        // The present is known, and how old what is known is.
        foreach (var (query, seconds) in (List<(Answer, double)>)[
            await QuickestAsync(() => agent.StatusAsync("stays")), await QuickestAsync(() => agent.GetAsync("/v1/mountpoints?limit=3")),
            await QuickestAsync(() => agent.GetAsync("/v1/hosts")), await QuickestAsync(() => agent.GetAsync("/v1/drift"))])
        {
            Assert.Equal(200, query.Status);
            Assert.InRange(DateTimeOffset.UtcNow - query.Json.GetProperty("asOf").GetDateTimeOffset(), TimeSpan.Zero, TimeSpan.FromMinutes(1));
            Assert.InRange(seconds, 0, AtOnceSeconds);
        }
        Assert.Equal("mounted", (await agent.StatusAsync("stays")).Phase);
        Assert.Equal(kept.MountId, Assert.Single(TestHost.MountsAt(agent.PathOf("stays"))).MountId);
    }

    /// <summary>Mounts and unmounts in turn, each with a key of its own that is repeated until there is an answer.</summary>
    private static async Task CallAsync(AgentProcess agent, string name, ConcurrentDictionary<string, string> acknowledged, CancellationToken enough)
    {
        for (var round = 0; !enough.IsCancellationRequested; round++)
        {
            foreach (var isMount in (bool[])[true, false])
            {
                var key = ("Idempotency-Key", $"{name}-{round}-{isMount}");
                Answer answer;
                do answer = isMount ? await agent.MountAsync(name, "c", headers: key) : await agent.UnmountAsync(name, "c", headers: key);
                while (answer.Status == 503 && await PausedAsync());
                Assert.Equal((200, isMount ? "mounted" : "unmounted"), (answer.Status, answer.Outcome));
                acknowledged[name] = answer.Outcome!;
                if (enough.IsCancellationRequested) return;
            }
        }

        static async Task<bool> PausedAsync()
        {
            await Task.Delay(50, CancellationToken.None);
            return true;
        }
    }

    /// <summary>The last answer of several, which are refused all the same, and the least time that one took.</summary>
    private static async Task<(Answer Answer, double Seconds)> QuickestAsync(Func<Task<Answer>> ask)
    {
        var (answer, least) = await TimedAsync(ask);
        for (var i = 1; i < TriesMax && least > AtOnceSeconds; i++)
        {
            (answer, var seconds) = await TimedAsync(ask);
            least = Math.Min(least, seconds);
        }
        return (answer, least);
    }

    private static async Task<(Answer Answer, double Seconds)> TimedAsync(Func<Task<Answer>> ask)
    {
        var clock = Stopwatch.StartNew();
        return (await ask(), clock.Elapsed.TotalSeconds);
    }
}
