using System.Diagnostics;
using MountLedger.Agent;

namespace MountLedger.Postgres.Tests;

/// <summary>The agent's own PostgreSQL: made once, found again, survives the death of everything, and stops when told to.</summary>
public sealed class EmbeddedPostgresTests : IAsyncLifetime
{
    private readonly DirectoryInfo directory = Directory.CreateTempSubdirectory("mountledger-test-");
    private readonly List<EmbeddedPostgres> started = [];

    public Task InitializeAsync() => Task.CompletedTask;

    public async Task DisposeAsync()
    {
        foreach (var server in started)
        {
            await server.StopAsync(TimeSpan.FromSeconds(20), default);
            await server.DisposeAsync();
        }
        directory.Delete(recursive: true);
    }

    [PostgresFact]
    public async Task A_running_one_is_found_again()
    {
        var first = await StartAsync();
        var processes = EmbeddedPostgresProcesses.Of(DataOf(directory.FullName));

        var second = await StartAsync();

        Assert.False(first.WasRunning);
        Assert.True(second.WasRunning);
        Assert.Equal(first.ConnectionString, second.ConnectionString);
        Assert.Contains(processes[0], EmbeddedPostgresProcesses.Of(DataOf(directory.FullName)));
    }

    [PostgresFact]
    public async Task After_a_kill_of_everything_it_starts_again_with_all_that_was_acknowledged()
    {
        var state = MountState.Initial(new StreamKey("h1", "/srv/a"));
        await using (var database = LedgerTest.OpenPatiently((await StartAsync()).ConnectionString))
        {
            await new Migrator(database).MigrateAsync(default);
            // One of three in time: a machine that stood still meanwhile says nothing of how long an agent waits.
            var inTime = TimeSpan.FromSeconds(3);
            var took = TimeSpan.MaxValue;
            for (var attempt = 1; attempt <= 3 && took > inTime; attempt++)
            {
                // From the second on a conflict, which is an answer too: by a connection that the kill breaks.
                await AppendAsync(database, state);
                KillAll(directory.FullName);

                var waited = Stopwatch.StartNew();
                await Assert.ThrowsAsync<LedgerUnavailableException>(() => AppendAsync(database, state));
                await Assert.ThrowsAsync<LedgerUnavailableException>(async () => await new PostgresEventStore(database).LoadAsync(state.Stream, default));
                took = waited.Elapsed;

                await StartAsync();
            }
            Assert.InRange(took, TimeSpan.Zero, inTime);
            Assert.Equal(1, (await new PostgresEventStore(database).LoadAsync(state.Stream, default)).Version);
        }
    }

    [PostgresFact]
    public async Task A_stopped_one_keeps_its_data_and_leaves_no_process()
    {
        var server = await StartAsync();
        await using (var database = LedgerTest.OpenPatiently(server.ConnectionString)) await new Migrator(database).MigrateAsync(default);

        Assert.True(await server.StopAsync(TimeSpan.FromSeconds(20), default));

        Assert.Empty(EmbeddedPostgresProcesses.Of(DataOf(directory.FullName)));
        await using var again = LedgerTest.OpenPatiently((await StartAsync()).ConnectionString);
        Assert.Empty(await new Migrator(again).MigrateAsync(default));
    }

    [PostgresFact]
    public async Task A_stale_process_id_file_and_a_half_done_cluster_are_no_obstacle()
    {
        var server = await StartAsync();
        await server.StopAsync(TimeSpan.FromSeconds(20), default);
        var data = DataOf(directory.FullName);
        // The id of a process that lives and is none of PostgreSQL's.
        await File.WriteAllTextAsync(System.IO.Path.Combine(data, "postmaster.pid"), $"{Environment.ProcessId}\n{data}\n");
        Directory.CreateDirectory(data + ".new/base");
        await File.WriteAllTextAsync(data + ".new/PG_VERSION", "15\n");

        Assert.False((await StartAsync()).WasRunning);
        Assert.False(Directory.Exists(data + ".new"));
    }

    [PostgresFact]
    public async Task A_crash_in_the_middle_of_the_first_start_is_redone()
    {
        var data = DataOf(directory.FullName);
        Directory.CreateDirectory(data + ".new/base/1");
        await File.WriteAllTextAsync(data + ".new/PG_VERSION", "15\n");

        await StartAsync();

        Assert.True(File.Exists(System.IO.Path.Combine(data, "PG_VERSION")));
    }

    [PostgresFact]
    public async Task A_long_state_directory_gets_a_short_socket()
    {
        var deep = directory.CreateSubdirectory($"long-{new string('x', 100)}").FullName;
        if (Environment.IsPrivilegedProcess) File.SetUnixFileMode(directory.FullName, File.GetUnixFileMode(directory.FullName) | UnixFileMode.OtherExecute);

        var server = await EmbeddedPostgres.StartAsync(deep, default);
        started.Add(server);

        Assert.InRange(server.SocketDirectory.Length, 1, 90);
        await using var database = LedgerTest.OpenPatiently(server.ConnectionString);
        await new Migrator(database).MigrateAsync(default);
        await server.StopAsync(TimeSpan.FromSeconds(20), default);
        Directory.Delete(server.SocketDirectory);
    }

    [PostgresFact]
    public async Task Nothing_listens_on_the_network_and_the_socket_is_closed_to_others()
    {
        var server = await StartAsync();

        Assert.Equal(UnixFileMode.None, File.GetUnixFileMode(server.SocketDirectory) & (UnixFileMode.OtherRead | UnixFileMode.OtherWrite | UnixFileMode.OtherExecute));
        await using var database = LedgerTest.OpenPatiently(server.ConnectionString);
        foreach (var (setting, value) in ((string, string)[])[("listen_addresses", ""), ("fsync", "on"), ("data_checksums", "on"), ("server_encoding", "UTF8")])
        {
            await using var command = database.DataSource.CreateCommand($"show {setting}");
            Assert.Equal(value, await command.ExecuteScalarAsync());
        }
    }

    [Fact]
    public void A_user_namespace_with_one_id_has_no_other_account()
    {
        var single = UidMap.Parse(["         0       1000          1"]);
        var whole = UidMap.Parse(["         0          0 4294967295"]);

        Assert.Equal((true, false, true), (single.Contains(0), single.Contains(101), whole.Contains(101)));
    }

    private static string DataOf(string stateDirectory) => System.IO.Path.Combine(stateDirectory, "postgres", "data");

    private async Task<EmbeddedPostgres> StartAsync()
    {
        var server = await EmbeddedPostgres.StartAsync(directory.FullName, default);
        started.Add(server);
        return server;
    }

    /// <summary>Kills all processes of the server of this state directory.</summary>
    internal static void KillAll(string stateDirectory)
    {
        foreach (var pid in EmbeddedPostgresProcesses.Of(DataOf(stateDirectory)))
        {
            try
            {
                using var process = Process.GetProcessById(pid);
                process.Kill();
            }
            catch (Exception gone) when (gone is ArgumentException or InvalidOperationException)
            {
                // It has ended since they were listed.
            }
        }
    }

    private static async Task AppendAsync(LedgerDatabase database, MountState state)
    {
        var change = new MountEvent.RepairPaused(null);
        await new PostgresEventStore(database).AppendAsync(
            new AppendBatch(
                state.Stream, 0, [change], new AppendOrigin("a", "c", null, null, null, LocalAgent: true),
                state.Evolve(change, 1, DateTimeOffset.UnixEpoch, "a"), null, AttachmentChanges.None, false, null),
            default);
    }
}
