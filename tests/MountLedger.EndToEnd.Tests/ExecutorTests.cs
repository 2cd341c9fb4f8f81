using System.Collections.Immutable;
using System.Diagnostics;
using MountLedger.Linux;
using MountLedger.Postgres;

namespace MountLedger.EndToEnd;

/// <summary>
/// The executor is driven by the projection: by wake-ups alone, by the poll alone; and what it was doing when its worker
/// died is settled by looking.
/// </summary>
public sealed class ExecutorTests(PostgresServer server) : IClassFixture<PostgresServer>
{
    private static readonly ExecutorOptions NoPoll = new() { PollInterval = Timeout.InfiniteTimeSpan };

    [RootFact]
    public async Task Everything_works_at_full_speed_without_the_poll()
    {
        await using var host = await TestHost.StartAsync(server, NoPoll);
        var started = Stopwatch.GetTimestamp();
        for (var i = 0; i < 20; i++)
        {
            Assert.IsType<CommandResult.Done>(await host.MountAsync(host.PathOf($"m{i}"), "c"));
            Assert.IsType<CommandResult.Done>(await host.UnmountAsync(host.PathOf($"m{i}"), "c"));
        }
        // Not a measurement: the least that a poll could have cost is a second each time.
        Assert.True(Stopwatch.GetElapsedTime(started) < TimeSpan.FromSeconds(20), "something waited for a poll that never comes");
    }

    [RootFact]
    public async Task What_somebody_else_appends_is_done_by_its_notification_alone()
    {
        await using var host = await TestHost.StartAsync(server, NoPoll);
        await using var database = LedgerDatabase.Open(host.ConnectionString);
        using var stop = new CancellationTokenSource();
        var ready = new TaskCompletionSource();
        var listening = Task.Run(async () =>
        {
            await foreach (var wakeUp in new WakeUps(database).ListenAsync("test", stop.Token))
            {
                if (wakeUp.StreamId is { } stream) await host.Node.OnAppendedElsewhereAsync(stream, stop.Token);
                else ready.TrySetResult();
            }
        });
        await ready.Task;

        await AppendElsewhereAsync(host, host.PathOf("a"));

        await host.UntilAsync(host.PathOf("a"), state => state.Phase == Phase.Mounted);
        Assert.Single(TestHost.MountsAt(host.PathOf("a")));
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => listening);
    }

    [RootFact]
    public async Task With_every_wake_up_lost_the_poll_does_all_the_work()
    {
        // Nobody listens, and what is appended elsewhere wakes nobody here.
        await using var host = await TestHost.StartAsync(server, new() { PollInterval = TimeSpan.FromMilliseconds(50) });
        for (var i = 0; i < 5; i++) await AppendElsewhereAsync(host, host.PathOf($"m{i}"));
        for (var i = 0; i < 5; i++)
        {
            await host.UntilAsync(host.PathOf($"m{i}"), state => state.Phase == Phase.Mounted);
            Assert.Single(TestHost.MountsAt(host.PathOf($"m{i}")));
        }
    }

    [RootFact]
    public async Task Doubled_and_false_wake_ups_change_nothing()
    {
        await using var host = await TestHost.StartAsync(server, NoPoll);
        var path = host.PathOf("a");
        await host.MountAsync(path, "c");
        for (var i = 0; i < 200; i++)
        {
            host.Node.Executor.Wake(path, reload: i % 2 == 0);
            host.Node.Executor.Wake(host.PathOf($"nothing{i % 3}"), reload: true);
        }
        await Task.Delay(200);
        Assert.Equal((1, 0), (host.Kernel.Mounts, host.Kernel.Unmounts));
        Assert.Equal(4, (await host.StateAsync(path)).Version);
    }

    [RootFact]
    public async Task A_worker_that_is_killed_is_replaced_and_the_next_operation_works()
    {
        await using var host = await TestHost.StartAsync(server);
        await host.MountAsync(host.PathOf("a"), "c");
        var first = host.Worker.WorkerPid;
        Process.GetProcessById(first!.Value).Kill();

        Assert.IsType<CommandResult.Done>(await host.MountAsync(host.PathOf("b"), "c"));
        Assert.IsType<CommandResult.Done>(await host.UnmountAsync(host.PathOf("a"), "c"));
        Assert.NotEqual(first, host.Worker.WorkerPid);
    }

    [RootFact]
    public async Task A_mount_whose_worker_dies_before_it_acts_is_uncertain_then_settled_and_made()
    {
        await using var host = await TestHost.StartAsync(server);
        var path = host.PathOf("a");
        host.Kernel.Before = (operation, _) =>
        {
            host.Kernel.Before = static (_, _) => Task.CompletedTask;
            Process.GetProcessById(host.Worker.WorkerPid!.Value).Kill();
            return Task.Delay(100);
        };
        Assert.IsType<CommandResult.Done>(await host.MountAsync(path, "c"));
        Assert.Single(TestHost.MountsAt(path));
        var events = await host.EventsAsync(path);
        Assert.Equal("mounted", events[^1]);
    }

    [RootFact]
    public async Task An_unmount_whose_answer_is_lost_is_settled_by_looking()
    {
        await using var host = await TestHost.StartAsync(server);
        var path = host.PathOf("a");
        await host.MountAsync(path, "c");
        host.Kernel.After = (operation, result) =>
        {
            host.Kernel.After = static (_, other) => other;
            return new UnmountResult.Unknown("the answer was lost");
        };
        Assert.Equal(Outcome.Unmounted, Assert.IsType<CommandResult.Done>(await host.UnmountAsync(path, "c")).Outcome);
        Assert.Equal(1, host.Kernel.UnmountsAt(path));
        Assert.Equal(["unmount_started", "operation_uncertain", "unmounted"], (await host.EventsAsync(path))[^3..]);
    }

    [RootFact]
    public async Task A_confirmed_attachment_outlives_failing_repairs()
    {
        await using var host = await TestHost.StartAsync(server);
        var path = host.PathOf("a");
        var source = host.Outside("source");
        await host.MountAsync(path, "c", spec: new MountSpec(source, "bind", ["nodev", "nosuid"]));
        await host.CrashAndRestartAsync(() =>
        {
            Shell.Unmount(path);
            Directory.Delete(source);
        });
        var failing = await host.UntilAsync(path, state => state.Phase == Phase.Failed);
        Assert.Equal("ENOENT", failing.Error!.Errno);
        Assert.Single(failing.Attachments);

        Directory.CreateDirectory(source);
        await host.UntilAsync(path, state => state.Phase == Phase.Mounted);
        Assert.Single(TestHost.MountsAt(path));
        Assert.Empty((await host.StateAsync(path)).Drift);
    }

    [RootFact]
    public async Task A_request_with_retry_stays_until_it_can_be_met()
    {
        await using var host = await TestHost.StartAsync(server);
        var path = host.PathOf("a");
        var source = Path.Combine(Path.GetDirectoryName(host.Root)!, "later");
        var spec = new MountSpec(source, "bind", ["nodev", "nosuid"]);
        Assert.IsType<CommandResult.Failed>(await host.MountAsync(path, "c", spec: spec, onFailure: OnFailure.Retry));
        Assert.Equal(Phase.Failed, (await host.StateAsync(path)).Phase);
        Directory.CreateDirectory(source);
        await host.UntilAsync(path, state => state.Phase == Phase.Mounted);
    }

    /// <summary>What another process does that appends to this host's ledger without being its agent.</summary>
    private static async Task AppendElsewhereAsync(TestHost host, string path)
    {
        await using var database = LedgerDatabase.Open(host.ConnectionString);
        var store = new PostgresEventStore(database);
        var command = host.MountOf(path, "elsewhere");
        var state = await store.LoadAsync(command.Stream, CancellationToken.None);
        var events = ((Decision.Accept)MountDecider.Decide(command, state, new DecisionContext(host.Worker.Identity))).Events;
        var folded = events.Aggregate(state, (next, change) => next.Evolve(change, next.Version + 1, DateTimeOffset.UnixEpoch, "elsewhere"));
        var result = await store.AppendAsync(
            new AppendBatch(
                state.Stream, state.Version, [.. events.Cast<LedgerEvent>()],
                new AppendOrigin("elsewhere", "cmd", null, Epoch: null, Agent: null, LocalAgent: false), folded, null,
                new AttachmentChanges([.. folded.Attachments], [], ConfirmAll: false), RequireHostUp: true, Request: null),
            CancellationToken.None);
        Assert.IsType<AppendResult.Appended>(result);
    }
}
