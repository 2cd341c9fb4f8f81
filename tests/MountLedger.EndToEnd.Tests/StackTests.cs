using System.Diagnostics;

namespace MountLedger.EndToEnd;

/// <summary>
/// Mounts of others on top of ours, below ours and above ours, and directories that others take away: what becomes of an
/// unmount and of the next attach (the table in docs/architecture.md). None of it takes away what is not ours.
/// </summary>
public sealed class StackTests(PostgresServer server) : IClassFixture<PostgresServer>
{
    [RootTheory]
    [InlineData(UnmountMode.Normal)]
    [InlineData(UnmountMode.Lazy)]
    [InlineData(UnmountMode.Force)]
    public async Task What_covers_our_mount_has_to_go_first(UnmountMode mode)
    {
        await using var host = await TestHost.StartAsync(server);
        var path = host.PathOf("a");
        await host.MountAsync(path, "c");
        Foreign(path);

        var error = await UnmountFailsAsync(host, path, mode);

        Assert.Equal("EBUSY", error.Errno);
        Assert.Contains("another mount covers it (ramfs foreign)", error.Message, StringComparison.Ordinal);
        Assert.Equal(["scratch", "foreign"], TestHost.MountsAt(path).Select(mount => mount.Source));
        await GoesByItselfAfterAsync(host, path, () => Shell.Unmount(path));
    }

    [RootFact]
    public async Task What_is_mounted_in_our_mount_has_to_go_first()
    {
        await using var host = await TestHost.StartAsync(server);
        var path = host.PathOf("a");
        await host.MountAsync(path, "c");
        var below = Foreign(Path.Combine(path, "below"));

        var error = await UnmountFailsAsync(host, path);

        Assert.Contains($"mounts below it: {below}", error.Message, StringComparison.Ordinal);
        Assert.Single(TestHost.MountsAt(below));
        await GoesByItselfAfterAsync(host, path, () => Shell.Unmount(below));
    }

    [RootFact]
    public async Task What_hides_our_mount_from_above_has_to_go_first()
    {
        await using var host = await TestHost.StartAsync(server);
        var path = host.PathOf("above/a");
        await host.MountAsync(path, "c");
        var above = Foreign(host.PathOf("above"));
        // A look-alike of the whole path, with a mount at the end.
        Foreign(path);

        var error = await UnmountFailsAsync(host, path);

        Assert.Equal(["scratch", "foreign"], TestHost.MountsAt(path).Select(mount => mount.Source));
        Assert.Contains("covers it", error.Message, StringComparison.Ordinal);
        Shell.Unmount(path);
        // The look-alike's directory is still there, and no mount any more.
        await host.UntilAsync(path, state => state.Error is { Errno: "EAGAIN" });
        Assert.Equal("scratch", Assert.Single(TestHost.MountsAt(path)).Source);
        await GoesByItselfAfterAsync(host, path, () => Shell.Unmount(above));
        Assert.False(Directory.Exists(above), "the directories were ours, below what has gone");
    }

    [RootFact]
    public async Task Our_mount_in_a_foreign_one_is_an_ordinary_one()
    {
        await using var host = await TestHost.StartAsync(server);
        var above = Foreign(host.PathOf("above"));
        var path = host.PathOf("above/x/a");
        Assert.IsType<CommandResult.Done>(await host.MountAsync(path, "c"));
        Assert.Equal(Outcome.Unmounted, Assert.IsType<CommandResult.Done>(await host.UnmountAsync(path, "c")).Outcome);
        Assert.Empty(Directory.EnumerateFileSystemEntries(above));
        Assert.Single(TestHost.MountsAt(above));
    }

    [RootFact]
    public async Task A_foreign_mount_that_goes_with_ours_in_it_takes_ours_along_and_the_next_attach_makes_it_again()
    {
        await using var host = await TestHost.StartAsync(server);
        Foreign(host.PathOf("above"));
        var path = host.PathOf("above/a");
        await host.MountAsync(path, "c");
        Shell.Run("umount", "--lazy", host.PathOf("above"));

        Assert.IsType<CommandResult.Done>(await host.MountAsync(path, "d"));
        Assert.Single(TestHost.MountsAt(path));

        Shell.Unmount(path);
        await host.UnmountAsync(path, "c");
        Assert.IsType<CommandResult.Done>(await host.UnmountAsync(path, "d"));
        Assert.Equal(Phase.Absent, (await host.StateAsync(path)).Phase);
    }

    [RootFact]
    public async Task A_mountpoint_removed_from_another_namespace_is_gone_and_the_next_attach_makes_it_again()
    {
        await using var host = await TestHost.StartAsync(server);
        var path = host.PathOf("a");
        await host.MountAsync(path, "c");
        Elsewhere($"umount {path} && rmdir {path}");
        Assert.Empty(TestHost.MountsAt(path));

        Assert.IsType<CommandResult.Done>(await host.MountAsync(path, "d"));
        Assert.Single(TestHost.MountsAt(path));

        Elsewhere($"umount {path} && rmdir {path}");
        await host.UnmountAsync(path, "c");
        Assert.IsType<CommandResult.Done>(await host.UnmountAsync(path, "d"));
        Assert.Equal(Phase.Absent, (await host.StateAsync(path)).Phase);
        Assert.Empty(Directory.EnumerateFileSystemEntries(host.Root));
    }

    [RootTheory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_mount_whose_directory_was_renamed_is_left_where_it_is(bool fromAnotherNamespace)
    {
        await using var host = await TestHost.StartAsync(server);
        var (path, moved) = (host.PathOf("dir/a"), host.PathOf(fromAnotherNamespace ? "dir/b" : "elsewhere/a"));
        await host.MountAsync(path, "c");
        if (fromAnotherNamespace) Elsewhere($"umount {path} && mv {path} {moved}");
        else Directory.Move(host.PathOf("dir"), host.PathOf("elsewhere"));
        // Somebody else puts a mount where ours was.
        Foreign(path);

        Assert.IsNotType<CommandResult.Done>(await host.MountAsync(path, "d"));
        await host.UnmountAsync(path, "d");
        var error = await UnmountFailsAsync(host, path);

        Assert.Contains($"is now at {moved}: unmount it there by hand", error.Message, StringComparison.Ordinal);
        Assert.Equal(("foreign", "scratch"), (Assert.Single(TestHost.MountsAt(path)).Source, Assert.Single(TestHost.MountsAt(moved)).Source));
        await GoesByItselfAfterAsync(host, path, () => Shell.Unmount(moved));
        Assert.Equal("foreign", Assert.Single(TestHost.MountsAt(path)).Source);
    }

    [RootFact]
    public async Task A_foreign_mount_in_place_of_ours_stays_when_ours_is_unmounted()
    {
        await using var host = await TestHost.StartAsync(server);
        var path = host.PathOf("a");
        await host.MountAsync(path, "c");
        Shell.Unmount(path);
        Foreign(path);

        Assert.IsType<CommandResult.Done>(await host.UnmountAsync(path, "c"));

        Assert.Equal("foreign", Assert.Single(TestHost.MountsAt(path)).Source);
        Assert.Equal(Phase.Absent, (await host.StateAsync(path)).Phase);
    }

    private static string Foreign(string path)
    {
        Directory.CreateDirectory(path);
        Shell.Run("mount", "-t", "ramfs", "foreign", path);
        return path;
    }

    /// <summary>What somebody does in a mount namespace of his own, where our mounts are not in his way.</summary>
    private static void Elsewhere(string command) => Shell.Run("unshare", "--mount", "--propagation", "private", "sh", "-c", command);

    private static async Task<OperationError> UnmountFailsAsync(TestHost host, string path, UnmountMode mode = UnmountMode.Normal) =>
        Assert.IsType<CommandResult.Failed>(await host.UnmountAsync(path, "c", mode: mode)).Error;

    /// <summary>The unmount that failed is tried again, and works once what was in its way is gone.</summary>
    private static async Task GoesByItselfAfterAsync(TestHost host, string path, Action clear)
    {
        Assert.Equal(Phase.Unmounting, (await host.StateAsync(path)).Phase);
        clear();
        await host.UntilAsync(path, state => state.Phase == Phase.Absent);
    }
}
