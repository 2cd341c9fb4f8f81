using System.Diagnostics;

namespace MountLedger.EndToEnd;

/// <summary>Waiting costs nothing and ends; the same thing twice at once has one outcome and one answer.</summary>
public sealed class LivenessTests(PostgresServer server) : IClassFixture<PostgresServer>
{
    private const int TurnsOfAnIdleSecondMax = 20;

    [RootFact]
    public async Task Relatives_that_may_not_begin_do_not_wake_each_other()
    {
        await using var host = await TestHost.StartAsync(server);
        var (parent, child) = (host.PathOf("a"), host.PathOf("a/b"));
        await host.MountAsync(parent, "p");
        await host.MountAsync(child, "c");
        await host.HostAsync(up: false);
        await host.CrashAndRestartAsync(() => Shell.Run("umount", "--recursive", parent));
        await host.UntilAsync(parent, state => state.Phase == Phase.Mounting);
        await host.UntilAsync(child, state => state.Phase == Phase.Mounting);

        var before = host.Node.Executor.Turns;
        await Task.Delay(1000);
        Assert.InRange(host.Node.Executor.Turns - before, 0, TurnsOfAnIdleSecondMax);

        await host.HostAsync(up: true);
        await host.UntilAsync(child, state => state.Phase == Phase.Mounted);
        Assert.Equal((1, 1), (TestHost.MountsAt(parent).Length, TestHost.MountsAt(child).Length));
    }

    [RootFact]
    public async Task A_child_that_waits_for_a_failing_parent_does_not_hurry_it()
    {
        await using var host = await TestHost.StartAsync(server);
        var (parent, child) = (host.PathOf("a"), host.PathOf("a/b"));
        var spec = new MountSpec(Path.Combine(host.Root, "nowhere"), "bind", ["nodev", "nosuid"]);
        var began = Stopwatch.GetTimestamp();
        await host.MountAsync(parent, "p", spec: spec, onFailure: OnFailure.Retry);
        var waiting = await host.Node.HandleAsync(host.MountOf(child, "c") with { Wait = TimeSpan.FromMilliseconds(1500) }, CancellationToken.None);

        Assert.IsType<CommandResult.Pending>(waiting);
        // At once, then after 0.5 s, 1 s, 2 s …: not more than a handful in this time.
        var attempts = (await host.StateAsync(parent)).Error!.Attempt;
        Assert.InRange(attempts, 1, 2 + (int)Math.Log2((Stopwatch.GetElapsedTime(began).TotalSeconds / 0.5) + 1));
    }

    [RootFact]
    public async Task A_parent_waits_for_its_child_and_not_for_its_own_delay()
    {
        await using var host = await TestHost.StartAsync(server);
        // A machine that stands still until that delay is over says nothing.
        for (var round = 0; !await GoesBeforeItsNextTryAsync(host, host.PathOf($"a{round}")); round++)
            Assert.True(round < 3, "the parent went only when its own delay was over, each time");
    }

    private static async Task<bool> GoesBeforeItsNextTryAsync(TestHost host, string parent)
    {
        var child = parent + "/b";
        await host.MountAsync(parent, "p");
        await host.MountAsync(child, "c");
        await host.UnmountAsync(parent, "p");
        // By now the next try is some seconds away.
        var waiting = await host.UntilAsync(parent, state => state.Error is { Attempt: >= 3 });
        await host.UnmountAsync(child, "c");
        return (await host.UntilAsync(parent, state => state.Phase == Phase.Absent)).UpdatedAt < waiting.Error!.RetryAt;
    }

    [RootFact]
    public async Task Sixteen_times_the_same_request_for_a_busy_unmount_have_the_same_answer()
    {
        await using var host = await TestHost.StartAsync(server);
        var path = host.PathOf("a");
        await host.MountAsync(path, "a");
        using var busy = File.Create(Path.Combine(path, "busy"));
        var results = await Task.WhenAll(Enumerable.Range(0, 16).Select(_ => Task.Run(() => host.Node.HandleAsync(
            host.UnmountOf(path, "a") with { Actor = "x", Request = new RequestKey("key-1", "body") }, CancellationToken.None))));

        Assert.All(results, result => Assert.True(
            result is CommandResult.Failed { Error.Errno: "EBUSY" } or CommandResult.Replayed { Status: 422 }, $"{result}"));
        Assert.Single(await host.EventsAsync(path), name => name == "attachment_removed");
    }

    [RootFact]
    public async Task Of_two_requests_for_one_image_at_once_one_gets_it()
    {
        await using var host = await TestHost.StartAsync(server);
        var image = Path.Combine(host.Outside("images"), "disk.img");
        Shell.Run("truncate", "-s", "16M", image);
        Shell.Run("mkfs.ext4", "-q", image);
        var spec = new MountSpec(image, "ext4", ["nodev", "nosuid"]);
        for (var round = 0; round < 5; round++)
        {
            var results = await Task.WhenAll(Enumerable.Range(0, 4).Select(i => host.MountAsync(host.PathOf($"m{i}"), "c", spec: spec)));
            Assert.Single(results, result => result is CommandResult.Done);
            Assert.All(results.OfType<CommandResult.Failed>(), failed => Assert.Equal("EBUSY", failed.Error.Errno));
            for (var i = 0; i < 4; i++) await host.UnmountAsync(host.PathOf($"m{i}"), "c");
        }
    }
}
