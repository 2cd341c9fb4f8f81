using System.Collections.Concurrent;
using System.Diagnostics;
using MountLedger.Agent;

namespace MountLedger.Postgres.Tests;

/// <summary>PostgreSQL dies amid gathered appends: what was acknowledged is there, and what is there is whole.</summary>
public sealed class GatheringCrashTests : IAsyncLifetime
{
    private const int Callers = 16;
    private const int Kills = 3;

    private readonly DirectoryInfo directory = Directory.CreateTempSubdirectory("mountledger-test-");
    private EmbeddedPostgres? server;

    public Task InitializeAsync() => Task.CompletedTask;

    public async Task DisposeAsync()
    {
        if (server is not null)
        {
            await server.StopAsync(TimeSpan.FromSeconds(20), default);
            await server.DisposeAsync();
        }
        directory.Delete(recursive: true);
    }

    [PostgresFact]
    public async Task A_kill_of_PostgreSQL_amid_gathered_appends_loses_nothing_that_was_acknowledged()
    {
        server = await EmbeddedPostgres.StartAsync(directory.FullName, default);
        await using var database = LedgerTest.OpenPatiently(server.ConnectionString);
        await new Migrator(database).MigrateAsync(default);
        var acknowledged = new ConcurrentDictionary<string, long>();
        using var end = new CancellationTokenSource();
        var callers = Enumerable.Range(0, Callers).Select(caller => Task.Run(() => AppendUntilAsync(database, $"/srv/{caller}", acknowledged, end.Token))).ToList();

        for (var kill = 0; kill < Kills; kill++)
        {
            await Task.Delay(300 + 130 * kill);
            EmbeddedPostgresTests.KillAll(directory.FullName);
            await server.DisposeAsync();
            server = await EmbeddedPostgres.StartAsync(directory.FullName, default);
        }
        await Task.Delay(300);
        // On a loaded machine one of them may not have had an answer yet.
        var waited = Stopwatch.StartNew();
        while (acknowledged.Count < Callers && waited.Elapsed < TimeSpan.FromSeconds(30)) await Task.Delay(20);
        await end.CancelAsync();
        await Task.WhenAll(callers);

        var store = new PostgresEventStore(database);
        Assert.Equal(Callers, acknowledged.Count);
        foreach (var (path, version) in acknowledged)
        {
            var state = await store.LoadAsync(new StreamKey("h1", path), default);
            Assert.True(state.Version >= version, $"{path}: version {version} was acknowledged, {state.Version} is there");
            var events = await store.ReadStreamAsync(state.Stream, 1, default);
            Assert.Equal(Enumerable.Range(1, (int)state.Version).Select(number => (long)number), events.Select(recorded => recorded.Version));
        }
    }

    private static async Task AppendUntilAsync(
        LedgerDatabase database, string path, ConcurrentDictionary<string, long> acknowledged, CancellationToken end)
    {
        var store = new PostgresEventStore(database);
        var stream = new StreamKey("h1", path);
        MountState? state = null;
        while (!end.IsCancellationRequested)
        {
            try
            {
                state ??= await store.LoadAsync(stream, default);
                var change = new MountEvent.AttachmentAdded("vol", $"vm-{state.Version}", OnFailure.Forget);
                var after = state.Evolve(change, state.Version + 1, DateTimeOffset.UnixEpoch, "alice");
                var batch = new AppendBatch(
                    stream, state.Version, [change], new AppendOrigin("alice", "cmd", null, null, null, LocalAgent: true), after, null,
                    new AttachmentChanges([after.Attachments[new AttachmentKey("vol", $"vm-{state.Version}")]], [], false), false, null);
                if (await store.AppendAsync(batch, default) is AppendResult.Appended appended)
                {
                    acknowledged[path] = appended.Events[^1].Version;
                    state = after;
                }
                else
                {
                    state = null;
                }
            }
            catch (LedgerUnavailableException)
            {
                state = null; // It may have been committed.
                await Task.Delay(20, default);
            }
        }
    }
}
