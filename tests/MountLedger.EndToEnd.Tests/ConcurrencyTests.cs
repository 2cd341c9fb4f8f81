using System.Collections.Concurrent;

namespace MountLedger.EndToEnd;

/// <summary>Many callers at once on the real kernel: never stacked, never taken away under a holder, nothing left behind.</summary>
public sealed class ConcurrencyTests(PostgresServer server) : IClassFixture<PostgresServer>
{
    [RootFact]
    public async Task Many_callers_of_one_mountpoint_make_one_mount()
    {
        await using var host = await TestHost.StartAsync(server);
        var path = host.PathOf("a");
        var results = await Task.WhenAll(Enumerable.Range(0, 100).Select(i => host.MountAsync(path, $"c{i}")));

        Assert.All(results, result => Assert.IsType<CommandResult.Done>(result));
        Assert.Single(results, result => result is CommandResult.Done { Outcome: Outcome.Mounted });
        Assert.Equal(1, host.Kernel.Mounts);
        Assert.Equal(100, (await host.StateAsync(path)).Attachments.Count);

        await Task.WhenAll(Enumerable.Range(0, 100).Select(i => host.UnmountAsync(path, $"c{i}")));
        Assert.Equal(1, host.Kernel.Unmounts);
        Assert.Empty(TestHost.MountsAt(path));
    }

    [RootFact]
    public async Task Many_mountpoints_are_mounted_and_unmounted_side_by_side()
    {
        await using var host = await TestHost.StartAsync(server);
        var paths = Enumerable.Range(0, 64).Select(i => host.PathOf($"dir{i % 8}/m{i}")).ToArray();
        await Task.WhenAll(paths.Select(path => host.MountAsync(path, "c")));
        Assert.All(paths, path => Assert.Single(TestHost.MountsAt(path)));
        await Task.WhenAll(paths.Select(path => host.UnmountAsync(path, "c")));
        Assert.All(paths, path => Assert.Empty(TestHost.MountsAt(path)));
        Assert.Equal((64, 64), (host.Kernel.Mounts, host.Kernel.Unmounts));
    }

    [RootFact]
    public async Task Attach_and_detach_in_a_storm_keep_the_invariants()
    {
        await using var host = await TestHost.StartAsync(server);
        var paths = Enumerable.Range(0, 4).Select(i => host.PathOf($"m{i}")).ToArray();
        var violations = new ConcurrentBag<string>();

        await Task.WhenAll(Enumerable.Range(0, 16).Select(async worker =>
        {
            var random = new Random(worker);
            for (var round = 0; round < 40; round++)
            {
                var path = paths[random.Next(paths.Length)];
                var consumer = $"w{worker}";
                if (await host.MountAsync(path, consumer) is not CommandResult.Done done)
                {
                    violations.Add($"worker {worker} could not mount");
                    continue;
                }
                // Answered: from here until this worker detaches, exactly one mount has to be there.
                if (TestHost.MountsAt(path).Length != 1) violations.Add($"{path}: {TestHost.MountsAt(path).Length} mounts under a holder");
                if (await host.UnmountAsync(path, consumer) is not CommandResult.Done) violations.Add($"worker {worker} could not unmount");
            }
        }));

        Assert.True(violations.IsEmpty, string.Join('\n', violations));
        foreach (var path in paths)
        {
            await host.UntilAsync(path, state => state.Phase == Phase.Absent);
            Assert.Empty(TestHost.MountsAt(path));
            Assert.Equal(host.Kernel.MountsAt(path), host.Kernel.UnmountsAt(path));
        }
        // The ledger has it a moment before the memory, and whoever waited is answered a moment before the mountpoint is let go.
        await TestHost.UntilAsync(
            () => host.Node.Live.Count().Present + host.Node.Live.Count().Waiters + host.Node.Executor.Gate.Count == 0, "nothing of it stays in memory");
    }

    [RootFact]
    public async Task Nested_mountpoints_in_a_storm_never_hide_each_other()
    {
        await using var host = await TestHost.StartAsync(server);
        string[] paths = [host.PathOf("a"), host.PathOf("a/b"), host.PathOf("a/b/c"), host.PathOf("a/d")];
        var violations = new ConcurrentBag<string>();

        await Task.WhenAll(Enumerable.Range(0, 12).Select(async worker =>
        {
            var random = new Random(worker);
            for (var round = 0; round < 25; round++)
            {
                var path = paths[random.Next(paths.Length)];
                var result = await host.MountAsync(path, $"w{worker}");
                switch (result)
                {
                    case CommandResult.Rejected { Rejection: Rejection.WouldHide }: continue;
                    case CommandResult.Failed { Error.Errno: "EBUSY" }: continue;
                    case CommandResult.Done: break;
                    default: violations.Add($"{path}: {result}"); continue;
                }
                if (TestHost.MountsAt(path).Length != 1) violations.Add($"{path}: {TestHost.MountsAt(path).Length} mounts under a holder");
                if (host.Worker.ObserveAsync(path, null, CancellationToken.None) is var seen && (await seen).Mounts.IsEmpty)
                    violations.Add($"{path} is hidden from its holder");
                await host.UnmountAsync(path, $"w{worker}");
            }
        }));

        Assert.True(violations.IsEmpty, string.Join('\n', violations));
        foreach (var path in paths.Reverse()) await host.UntilAsync(path, state => state.Phase == Phase.Absent, secondsMax: 30);
        Assert.All(paths, path => Assert.Empty(TestHost.MountsAt(path)));
    }

    [RootFact]
    public async Task Children_go_before_their_parents_and_come_after_them()
    {
        await using var host = await TestHost.StartAsync(server);
        var (parent, child) = (host.PathOf("a"), host.PathOf("a/b"));
        await host.MountAsync(parent, "p");
        await host.MountAsync(child, "c");

        var busy = Assert.IsType<CommandResult.Failed>(await host.UnmountAsync(parent, "p"));
        Assert.Equal("EBUSY", busy.Error.Errno);
        Assert.Contains(child, busy.Error.Message, StringComparison.Ordinal);
        Assert.Equal(0, host.Kernel.UnmountsAt(parent));

        await host.UnmountAsync(child, "c");
        await host.UntilAsync(parent, state => state.Phase == Phase.Absent);
        Assert.False(Directory.Exists(parent));
    }

    [RootFact]
    public async Task A_parent_that_would_hide_a_child_is_rejected()
    {
        await using var host = await TestHost.StartAsync(server);
        await host.MountAsync(host.PathOf("a/b"), "c");
        var rejected = Assert.IsType<CommandResult.Rejected>(await host.MountAsync(host.PathOf("a"), "p"));
        Assert.Equal(host.PathOf("a/b"), Assert.IsType<Rejection.WouldHide>(rejected.Rejection).Descendant);
        Assert.Equal(0, (await host.StateAsync(host.PathOf("a"))).Version);
    }
}
