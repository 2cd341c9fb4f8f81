namespace MountLedger.EndToEnd;

/// <summary>What somebody does to our mounts by hand while the agent runs, as far as the next caller is concerned.</summary>
public sealed class DriftTests(PostgresServer server) : IClassFixture<PostgresServer>
{
    [RootFact]
    public async Task Who_joins_a_mount_that_was_taken_away_gets_it_made_again()
    {
        await using var host = await TestHost.StartAsync(server);
        var path = host.PathOf("a");
        await host.MountAsync(path, "a");
        Shell.Unmount(path);

        Assert.IsType<CommandResult.Done>(await host.MountAsync(path, "b"));

        Assert.Single(TestHost.MountsAt(path));
        Assert.Equal(2, host.Kernel.Mounts);
        Assert.Contains("drift_detected", await host.EventsAsync(path));
        Assert.Empty((await host.StateAsync(path)).Drift);
    }

    [RootFact]
    public async Task Nobody_is_given_a_foreign_mount_that_took_the_place_of_ours()
    {
        await using var host = await TestHost.StartAsync(server);
        var path = host.PathOf("a");
        await host.MountAsync(path, "a");
        Shell.Unmount(path);
        Shell.Run("mount", "-t", "tmpfs", "stranger", path);

        var failed = Assert.IsType<CommandResult.Failed>(await host.MountAsync(path, "b"));

        Assert.Equal("EBUSY", failed.Error.Errno);
        Assert.Equal("stranger", Assert.Single(TestHost.MountsAt(path)).Source);
        Assert.Equal("a", Assert.Single((await host.StateAsync(path)).Attachments).Consumer);
    }

    [RootFact]
    public async Task Nobody_is_given_what_a_foreign_mount_covers()
    {
        await using var host = await TestHost.StartAsync(server);
        var path = host.PathOf("a");
        await host.MountAsync(path, "a");
        Shell.Run("mount", "-t", "tmpfs", "stranger", path);

        var rejected = Assert.IsType<CommandResult.Rejected>(await host.MountAsync(path, "b"));

        Assert.Equal("foreign-mount", rejected.Rejection.Name);
        Assert.Equal(2, TestHost.MountsAt(path).Length);
    }

    [RootFact]
    public async Task A_lazy_unmount_takes_no_foreign_mount_along()
    {
        await using var host = await TestHost.StartAsync(server);
        var path = host.PathOf("a");
        await host.MountAsync(path, "a");
        var below = Directory.CreateDirectory(Path.Combine(path, "s")).FullName;
        Shell.Run("mount", "-t", "tmpfs", "stranger", below);

        var failed = Assert.IsType<CommandResult.Failed>(await host.UnmountAsync(path, "a", mode: UnmountMode.Lazy));

        Assert.Equal("EBUSY", failed.Error.Errno);
        Assert.Contains(below, failed.Error.Message, StringComparison.Ordinal);
        Assert.Single(TestHost.MountsAt(below));
        Shell.Unmount(below);
        await host.UntilAsync(path, state => state.Phase == Phase.Absent);
    }
}
