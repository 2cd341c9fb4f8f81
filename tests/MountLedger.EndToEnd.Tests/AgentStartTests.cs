using MountLedger.Agent;
using MountLedger.Postgres;
using Npgsql;

namespace MountLedger.EndToEnd;

/// <summary>Who may start, and what an agent does while its ledger is away.</summary>
[Collection(AgentSuite.Name)]
public sealed class AgentStartTests(AgentSuite suite)
{
    [RootFact]
    public async Task A_second_agent_in_the_same_mount_namespace_is_refused_with_the_pid_of_the_first()
    {
        await using var first = await suite.StartAsync();
        var locks = Directory.GetFiles(first.Below("lock"), "*.lock");
        await using var second = AgentProcess.Create(
            await suite.Server.CreateLedgerAsync(), environment => environment["MOUNTLEDGER_LOCK_DIR"] = first.Below("lock"));
        second.Launch();

        Assert.Equal(1, await second.ExitCodeAsync());
        Assert.Contains($"another agent (pid {first.Pid}) serves this mount namespace", second.Log, StringComparison.Ordinal);
        Assert.Contains(Path.GetFileName(Assert.Single(locks)), second.Log, StringComparison.Ordinal);
        Assert.Equal(200, (await first.MountAsync("a", "c")).Status);
    }

    [RootFact]
    public async Task A_second_agent_on_the_same_socket_is_refused_and_the_first_goes_on()
    {
        await using var first = await suite.StartAsync();
        await using var second = AgentProcess.Create(first.Postgres, environment => environment["MOUNTLEDGER_LOCK_DIR"] = first.Below("other-lock"));
        File.CreateSymbolicLink(second.Socket, first.Socket);
        second.Launch();

        Assert.Equal(2, await second.ExitCodeAsync());
        Assert.Contains("another program answers on", second.Log, StringComparison.Ordinal);
        Assert.Equal(200, (await first.MountAsync("a", "c")).Status);
    }

    [RootFact]
    public async Task An_agent_of_a_host_that_another_machine_serves_is_refused()
    {
        await using var agent = AgentProcess.Create(await suite.Server.CreateLedgerAsync());
        await using (var database = LedgerDatabase.Open(agent.Postgres!))
        {
            await new HostLease(database).TakeAsync(
                AgentProcess.HostName, "agent-elsewhere", "machine-elsewhere", "boot-elsewhere", 41, TimeSpan.FromMinutes(10), CancellationToken.None);
        }
        agent.Launch();

        Assert.Equal(1, await agent.ExitCodeAsync());
        Assert.Contains("agent-elsewhere", agent.Log, StringComparison.Ordinal);
        Assert.Contains("machine-elsewhere", agent.Log, StringComparison.Ordinal);
        Assert.Equal(0, await agent.CountAsync("select count(*) from mountledger.mt_events"));
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task An_agent_whose_host_is_taken_over_by_another_machine_stops_acting()
    {
        await using var agent = await suite.StartAsync(environment => environment["MOUNTLEDGER_LEASE_SECONDS"] = "1.5");
        Assert.Equal(200, (await agent.MountAsync("a", "c")).Status);
        await using (var database = LedgerDatabase.Open(agent.Postgres!))
        {
            await using var connection = new NpgsqlConnection($"{agent.Postgres};Pooling=false");
            await connection.OpenAsync();
            await using var command = new NpgsqlCommand(
                "update mountledger.host set epoch = epoch + 1, lease_agent = 'other', lease_machine_id = 'other', "
                + "lease_expires_at = now() + interval '1 hour'", connection);
            await command.ExecuteNonQueryAsync();
        }

        // Even before it has noticed: its appends carry the old epoch.
        var refused = await agent.MountAsync("b", "c");
        Assert.Equal(503, refused.Status);
        await agent.UntilAsync(async () => await agent.ReadyAsync() is { Status: 503, Text: var text } && text.Contains("another agent", StringComparison.Ordinal), "it says so");
        Assert.Equal(503, (await agent.UnmountAsync("a", "c")).Status);
        Assert.Equal(agent.PathOf("a"), Assert.Single(agent.Mounts()).Path);
    }

    [RootFact]
    public async Task A_database_that_is_newer_than_the_program_is_refused()
    {
        await using var agent = AgentProcess.Create(await suite.Server.CreateLedgerAsync());
        await using (var connection = new NpgsqlConnection($"{agent.Postgres};Pooling=false"))
        {
            await connection.OpenAsync();
            await using var command = new NpgsqlCommand(
                "insert into mountledger.schema_migration (number, name, checksum) select 9999, '9999_from_the_future', checksum "
                + "from mountledger.schema_migration limit 1", connection);
            await command.ExecuteNonQueryAsync();
        }
        agent.Launch();

        Assert.Equal(1, await agent.ExitCodeAsync());
        Assert.Contains("is newer than this program: it has migration 9999", agent.Log, StringComparison.Ordinal);
    }

    [RootFact]
    public async Task A_ledger_that_is_away_at_the_start_is_waited_for()
    {
        await using var ledger = await StoppablePostgres.StartAsync();
        await ledger.StopAsync();
        await using var agent = AgentProcess.Create(ledger.ConnectionString);
        agent.Launch();
        await agent.UntilAsync(
            async () => await agent.ReadyAsync() is { Status: 503, Text: var text } && text.Contains("cannot", StringComparison.OrdinalIgnoreCase)
                || (await agent.ReadyAsync()).Text.Contains("ledger", StringComparison.Ordinal),
            "it says what it waits for");
        Assert.Equal(200, (await agent.GetAsync("/healthz")).Status);
        var refused = await agent.MountAsync("a", "c");
        Assert.Equal((503, "unavailable"), (refused.Status, refused.Problem));
        Assert.Contains("the agent is starting", refused.Detail, StringComparison.Ordinal);

        await ledger.StartAgainAsync();
        await agent.UntilReadyAsync();
        Assert.Equal("mounted", (await agent.MountAsync("a", "c")).Outcome);
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task A_ledger_that_goes_away_is_told_at_once_and_comes_back_by_itself()
    {
        await using var ledger = await StoppablePostgres.StartAsync();
        await using var agent = await AgentProcess.StartAsync(ledger.ConnectionString);
        Assert.Equal(200, (await agent.MountAsync("a", "c")).Status);
        var mounts = agent.Mounts().Select(mount => mount.MountId).ToArray();
        await ledger.StopAsync();

        var started = System.Diagnostics.Stopwatch.GetTimestamp();
        var refused = await agent.MountAsync("b", "c");
        Assert.Equal((503, "unavailable"), (refused.Status, refused.Problem));
        Assert.Equal(503, (await agent.UnmountAsync("a", "c")).Status);
        Assert.Equal(503, (await agent.GetAsync($"/v1/history?host={AgentProcess.HostName}")).Status);
        Assert.Equal(503, (await agent.ReadyAsync()).Status);
        Assert.InRange(System.Diagnostics.Stopwatch.GetElapsedTime(started).TotalSeconds, 0, 8);
        Assert.Equal(200, (await agent.GetAsync("/healthz")).Status);
        Assert.Equal(mounts, agent.Mounts().Select(mount => mount.MountId));

        await ledger.StartAgainAsync();
        await agent.UntilReadyAsync();
        var mounted = await agent.MountAsync("b", "c");
        Assert.True(mounted.Outcome == "mounted", mounted.Text);
        Assert.Equal("unmounted", (await agent.UnmountAsync("a", "c")).Outcome);
    }

    /// <summary>A PostgreSQL of one test, that it can stop and start again.</summary>
    private sealed class StoppablePostgres : IAsyncDisposable
    {
        private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("mountledger-pg-");
        private EmbeddedPostgres? _server;

        public string ConnectionString { get; private set; } = "";

        public static async Task<StoppablePostgres> StartAsync()
        {
            var server = new StoppablePostgres();
            await server.StartAgainAsync();
            return server;
        }

        public async Task StartAgainAsync()
        {
            _server = await EmbeddedPostgres.StartAsync(_directory.FullName, CancellationToken.None);
            ConnectionString = _server.ConnectionString;
        }

        public async Task StopAsync()
        {
            if (_server is not { } server) return;
            _server = null;
            await server.StopAsync(TimeSpan.FromSeconds(20), CancellationToken.None);
            await server.DisposeAsync();
        }

        public async ValueTask DisposeAsync()
        {
            await StopAsync();
            _directory.Delete(recursive: true);
        }
    }
}
