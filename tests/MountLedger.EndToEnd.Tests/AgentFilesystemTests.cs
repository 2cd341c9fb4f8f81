using System.Diagnostics;

namespace MountLedger.EndToEnd;

/// <summary>Every kind of source through the HTTP interface, and what the kernel refuses.</summary>
[Collection(AgentSuite.Name)]
public sealed class AgentFilesystemTests(AgentSuite suite)
{
    [RootFact]
    public Task Ext4_in_an_image() => ImageAsync("ext4", 16 << 20, "mkfs.ext4", "-q");

    [RootFact]
    public Task Xfs_in_an_image() => ImageAsync("xfs", 320 << 20, "mkfs.xfs", "-q");

    [RootFact]
    public async Task Squashfs_in_an_image_is_read_only()
    {
        var agent = await suite.SharedAsync();
        var content = agent.Below("squash-content");
        File.WriteAllText(Path.Combine(content, "file"), "packed");
        var image = Path.Combine(agent.Below("images"), "squashfs.img");
        Shell.Run("mksquashfs", content, image, "-quiet", "-no-progress", "-noappend");

        Assert.Equal("mounted", (await agent.MountAsync("squash", "c", image, "squashfs")).Outcome);
        Assert.Equal("packed", File.ReadAllText(Path.Combine(agent.PathOf("squash"), "file")));
        Assert.Throws<IOException>(() => File.WriteAllText(Path.Combine(agent.PathOf("squash"), "other"), ""));
        Assert.Equal("unmounted", (await agent.UnmountAsync("squash", "c")).Outcome);
        await NoLoopDeviceAsync(agent, image);
    }

    [RootFact]
    public async Task Overlay_of_two_directories()
    {
        var agent = await suite.SharedAsync();
        var (lower, upper, work) = (agent.Below("lower"), agent.Below("upper"), agent.Below("work"));
        File.WriteAllText(Path.Combine(lower, "file"), "below");
        Assert.Equal(
            "mounted",
            (await agent.MountAsync("over", "c", "overlay", "overlay", [$"lowerdir={lower}", $"upperdir={upper}", $"workdir={work}"])).Outcome);
        Assert.Equal("below", File.ReadAllText(Path.Combine(agent.PathOf("over"), "file")));
        File.WriteAllText(Path.Combine(agent.PathOf("over"), "new"), "above");
        Assert.Equal("above", File.ReadAllText(Path.Combine(upper, "new")));
        Assert.Equal("unmounted", (await agent.UnmountAsync("over", "c")).Outcome);
        Assert.False(Directory.Exists(agent.PathOf("over")));
    }

    [RootFact]
    public async Task Bind_of_a_directory_read_only()
    {
        var agent = await suite.SharedAsync();
        var source = agent.Below("bind-source");
        File.WriteAllText(Path.Combine(source, "file"), "here");
        Assert.Equal("mounted", (await agent.MountAsync("bound", "c", source, "bind", ["ro"])).Outcome);
        Assert.Equal("here", File.ReadAllText(Path.Combine(agent.PathOf("bound"), "file")));
        Assert.Throws<IOException>(() => File.WriteAllText(Path.Combine(agent.PathOf("bound"), "other"), ""));
        Assert.Equal("unmounted", (await agent.UnmountAsync("bound", "c")).Outcome);
        Assert.True(File.Exists(Path.Combine(source, "file")));
    }

    [RootFact]
    public async Task A_corrupt_image_is_told_with_its_errno_and_leaves_nothing()
    {
        var agent = await suite.SharedAsync();
        var image = agent.Image("corrupt.img", 4 << 20);
        var failed = await agent.MountAsync("corrupt", "c", image, "ext4");

        Assert.Equal((422, "mount-failed"), (failed.Status, failed.Problem));
        Assert.Equal("EINVAL", failed.Json.GetProperty("error").GetProperty("errno").GetString());
        Assert.Equal("mount", failed.Json.GetProperty("error").GetProperty("operation").GetString());
        Assert.Contains(image, failed.Detail, StringComparison.Ordinal);
        Assert.False(Directory.Exists(agent.PathOf("corrupt")));
        Assert.Empty(failed.Json.GetProperty("current").GetProperty("attachments").EnumerateArray());
        Assert.Contains("mount_failed", await agent.EventsAsync("corrupt"));
        await NoLoopDeviceAsync(agent, image);
    }

    [RootFact]
    public async Task A_source_that_is_not_there_is_told_with_its_errno()
    {
        var agent = await suite.SharedAsync();
        var failed = await agent.MountAsync("gone", "c", agent.PathOf("no-such-image"), "xfs");
        Assert.Equal((422, "mount-failed"), (failed.Status, failed.Problem));
        Assert.Equal("ENOENT", failed.Json.GetProperty("error").GetProperty("errno").GetString());
    }

    [RootFact]
    public async Task A_busy_mount_is_told_with_its_holders_and_goes_when_they_do()
    {
        var agent = await suite.SharedAsync();
        Assert.Equal(200, (await agent.MountAsync("busy", "c")).Status);
        using (var holder = Process.Start(new ProcessStartInfo("sleep", "60") { WorkingDirectory = agent.PathOf("busy") })!)
        {
            try
            {
                var failed = await agent.UnmountAsync("busy", "c");
                Assert.Equal((422, "unmount-failed"), (failed.Status, failed.Problem));
                var error = failed.Json.GetProperty("error");
                Assert.Equal("EBUSY", error.GetProperty("errno").GetString());
                // The search for holders has a short limit, which a loaded machine may reach; each further try searches again.
                await agent.UntilAsync(
                    async () => (await agent.StatusAsync("busy")).Json.GetProperty("error").GetProperty("holders").EnumerateArray().Any(
                        found => found.GetProperty("pid").GetInt32() == holder.Id
                            && found.GetProperty("command").GetString()!.Contains("sleep", StringComparison.Ordinal)),
                    "its holder is named");
                Assert.Equal("unmounting", (await agent.StatusAsync("busy")).Phase);
            }
            finally
            {
                holder.Kill();
                await holder.WaitForExitAsync();
            }
        }
        await agent.UntilPhaseAsync("busy", "absent");
        Assert.False(Directory.Exists(agent.PathOf("busy")));
    }

    [RootFact]
    public async Task A_foreign_mount_that_matches_is_adopted_and_released_but_never_unmounted()
    {
        var agent = await suite.SharedAsync();
        Directory.CreateDirectory(agent.PathOf("adopted"));
        Shell.Run("mount", "-t", "tmpfs", "-o", "nosuid,nodev", "scratch", agent.PathOf("adopted"));

        Assert.Equal(200, (await agent.MountAsync("adopted", "c")).Status);
        Assert.Contains("mount_adopted", await agent.EventsAsync("adopted"));
        Assert.Single(TestHost.MountsAt(agent.PathOf("adopted")));
        Assert.Equal(200, (await agent.UnmountAsync("adopted", "c")).Status);

        Assert.Single(TestHost.MountsAt(agent.PathOf("adopted")));
        Assert.Equal("absent", (await agent.StatusAsync("adopted")).Phase);
        Shell.Unmount(agent.PathOf("adopted"));
    }

    [RootFact]
    public async Task A_foreign_mount_that_differs_is_a_conflict()
    {
        var agent = await suite.SharedAsync();
        Directory.CreateDirectory(agent.PathOf("foreign"));
        Shell.Run("mount", "-t", "ramfs", "-o", "nosuid,nodev", "other", agent.PathOf("foreign"));

        var refused = await agent.MountAsync("foreign", "c");
        Assert.Equal((409, "foreign-mount"), (refused.Status, refused.Problem));
        Assert.Equal(404, (await agent.StatusAsync("foreign")).Status);
        Assert.Single(TestHost.MountsAt(agent.PathOf("foreign")));
        Shell.Unmount(agent.PathOf("foreign"));
    }

    private async Task ImageAsync(string fstype, long size, params string[] mkfs)
    {
        var agent = await suite.SharedAsync();
        var image = agent.Image($"{fstype}.img", size, mkfs);
        for (var round = 0; round < 2; round++)
        {
            Assert.Equal("mounted", (await agent.MountAsync(fstype, "c", image, fstype, ["noatime"])).Outcome);
            var file = Path.Combine(agent.PathOf(fstype), "file");
            if (round == 0) File.WriteAllText(file, "durable");
            else Assert.Equal("durable", File.ReadAllText(file));
            Assert.Equal("unmounted", (await agent.UnmountAsync(fstype, "c")).Outcome);
            await NoLoopDeviceAsync(agent, image);
        }
        Assert.False(Directory.Exists(agent.PathOf(fstype)));
    }

    /// <summary>The kernel lets go of a loop device a moment after its last user.</summary>
    private static Task NoLoopDeviceAsync(AgentProcess agent, string image) => agent.UntilAsync(
        () => Task.FromResult(!Shell.Run("losetup", "-a").Contains(image, StringComparison.Ordinal)), $"no loop device holds {image}");
}
