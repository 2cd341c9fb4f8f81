using System.Diagnostics;
using System.Runtime.InteropServices;
using MountLedger.Tests;

namespace MountLedger.Linux.Tests;

/// <summary>The path of a mount: never stacked, never through a link, directories made and removed by the rules.</summary>
public sealed partial class MountpointTests : KernelTest
{
    [RootFact]
    public void Prepare_changes_nothing_and_knows_the_id_before_anybody_sees_it()
    {
        var prepared = Prepare(Point("a/b/c"), Tmpfs());
        Same([Point("a"), Point("a/b"), Point("a/b/c")], prepared.DirectoriesToCreate);
        Assert.Empty(Directory.EnumerateFileSystemEntries(Root));
        var attached = Assert.IsType<AttachResult.Attached>(Operations.Attach(prepared));
        Assert.NotNull(prepared.MountId);
        Assert.Equal(prepared.MountId, attached.MountId);
        Same(prepared.DirectoriesToCreate, attached.DirectoriesCreated);
        Assert.Equal(0, Operations.PreparedCount);
    }

    [RootFact]
    public void Discarded_mount_is_gone()
    {
        var prepared = Prepare(Point("a"), Tmpfs());
        Operations.Discard(prepared.Token);
        Assert.Equal("ESTALE", Assert.IsType<AttachResult.Failed>(Operations.Attach(prepared)).Error.Errno);
        Assert.Equal(0, Operations.PreparedCount);
    }

    [RootFact]
    public void Occupied_path_is_reported_with_its_differences()
    {
        Mount(Point("a"), Tmpfs("size=1M"));
        var occupied = Assert.IsType<PrepareResult.Occupied>(Operations.Prepare(99, Point("a"), Tmpfs("size=2M")));
        Same(["options"], occupied.Found.Top!.Differences!.Value);
    }

    [RootFact]
    public void Mount_is_never_stacked_on_one_that_came_meanwhile()
    {
        var prepared = Prepare(Point("a"), Tmpfs());
        Mount(Point("a"), Tmpfs("size=1M"));
        Assert.Equal("EBUSY", Assert.IsType<AttachResult.Failed>(Operations.Attach(prepared)).Error.Errno);
        Assert.Single(Operations.Observe(Point("a"), null).Mounts);
    }

    [RootFact]
    public void Stack_made_by_others_is_observed_topmost_first()
    {
        Mount(Point("a"), Tmpfs());
        Run("mount", "-t", "ramfs", "upper", Point("a"));
        Assert.Equal(["ramfs", "tmpfs"], Operations.Observe(Point("a"), null).Mounts.Select(mount => mount.FsType));
        Assert.Equal(["ramfs", "tmpfs"], MountTable.ByPath(Point("a")).Select(found => found.Mount.FsType));
    }

    [RootFact]
    public void Link_in_the_path_is_refused_by_name()
    {
        Directory.CreateSymbolicLink(Point("link"), "/etc");
        foreach (var path in new[] { Point("link"), Point("link/below"), Point("link/ssl/certs") })
        {
            var error = PrepareFails(path, Tmpfs());
            Assert.Equal("ELOOP", error.Errno);
            Assert.Contains($"{Root}/link is a symbolic link", error.Message, StringComparison.Ordinal);
        }
    }

    [RootFact]
    public void File_in_the_path_is_refused_by_name()
    {
        File.WriteAllText(Point("file"), "");
        var error = PrepareFails(Point("file/below"), Tmpfs());
        Assert.Equal("ENOTDIR", error.Errno);
        Assert.Contains($"{Root}/file is not a directory", error.Message, StringComparison.Ordinal);
    }

    [RootFact]
    public void Path_outside_the_roots_is_refused()
    {
        foreach (var path in new[] { "/etc", Root, Root + "x/a", "/" })
            Assert.Equal("EPERM", PrepareFails(path, Tmpfs()).Errno);
    }

    [RootFact]
    public void Failed_attach_removes_the_directories_it_made()
    {
        var prepared = Prepare(Point("a/b"), Tmpfs());
        Directory.CreateDirectory(Point("a"));
        Directory.CreateSymbolicLink(Point("a/b"), "/etc");
        Assert.Equal("ELOOP", Assert.IsType<AttachResult.Failed>(Operations.Attach(prepared)).Error.Errno);
        Assert.True(Directory.Exists(Point("a")), "it was not ours");
    }

    [RootFact]
    public void Unmount_touches_only_the_mount_with_the_right_id()
    {
        var first = Mount(Point("a"), Tmpfs());
        Assert.IsType<UnmountResult.Unmounted>(Unmount(Point("a"), first.MountId));
        var second = Mount(Point("a"), Tmpfs());
        Assert.IsType<UnmountResult.NotMounted>(Unmount(Point("a"), first.MountId));
        Assert.Equal(second.MountId, Top(Point("a"))!.MountId);
    }

    [RootFact]
    public void Covered_mount_is_not_unmounted_and_neither_is_its_cover()
    {
        var ours = Mount(Point("a"), Tmpfs());
        Run("mount", "-t", "ramfs", "cover", Point("a"));
        var failed = Assert.IsType<UnmountResult.Failed>(Unmount(Point("a"), ours.MountId));
        Assert.Equal("EBUSY", failed.Error.Errno);
        Assert.Equal(2, Operations.Observe(Point("a"), null).Mounts.Length);
    }

    [RootFact]
    public void Moved_mount_is_left_where_it_is()
    {
        var ours = Mount(Point("a"), Tmpfs());
        Directory.CreateDirectory(Point("b"));
        Run("mount", "--move", Point("a"), Point("b"));
        var failed = Assert.IsType<UnmountResult.Failed>(Unmount(Point("a"), ours.MountId));
        Assert.Contains(Point("b"), failed.Error.Message, StringComparison.Ordinal);
        Assert.Equal(ours.MountId, Top(Point("b"))!.MountId);
    }

    [RootFact]
    public void Directories_are_removed_innermost_first_and_only_when_empty()
    {
        var attached = Mount(Point("a/b/c"), Tmpfs());
        File.WriteAllText(Point("a/keep"), "data");
        var done = Assert.IsType<UnmountResult.Unmounted>(Unmount(Point("a/b/c"), attached.MountId, [.. attached.DirectoriesCreated]));
        Same([Point("a/b"), Point("a/b/c")], done.DirectoriesRemoved);
        Assert.True(File.Exists(Point("a/keep")));
    }

    [RootFact]
    public void Directories_are_never_removed_within_or_across_another_mount()
    {
        var attached = Mount(Point("a/b"), Tmpfs());
        Unmount(Point("a/b"), attached.MountId);
        Run("mount", "-t", "tmpfs", "foreign", Point("a"));
        Directory.CreateDirectory(Point("a/b"));
        var done = Assert.IsType<UnmountResult.NotMounted>(Unmount(Point("a/b"), attached.MountId, [.. attached.DirectoriesCreated]));
        Assert.Empty(done.DirectoriesRemoved);
        Assert.True(Directory.Exists(Point("a/b")));
    }

    [RootFact]
    public void Directories_that_the_order_names_elsewhere_are_left()
    {
        Directory.CreateDirectory(Point("other"));
        var attached = Mount(Point("a"), Tmpfs());
        Unmount(Point("a"), attached.MountId, Point("other"));
        Assert.True(Directory.Exists(Point("other")));
    }

    [RootFact]
    public void Busy_mount_names_the_process_that_holds_it()
    {
        var attached = Mount(Point("busy"), Tmpfs());
        using var holder = Process.Start(new ProcessStartInfo("sleep", "60") { WorkingDirectory = Point("busy") })!;
        try
        {
            var failed = Assert.IsType<UnmountResult.Failed>(Unmount(Point("busy"), attached.MountId));
            Assert.Equal(("EBUSY", true), (failed.Error.Errno, failed.Error.Transient));
            var found = Assert.Single(failed.Error.Holders);
            Assert.Equal((holder.Id, "sleep"), (found.Pid, found.Command));
            Assert.Contains("cwd", found.Uses);
        }
        finally
        {
            holder.Kill();
            holder.WaitForExit();
        }
        Assert.IsType<UnmountResult.Unmounted>(Unmount(Point("busy"), attached.MountId));
    }

    [RootFact]
    public void Open_file_makes_its_process_a_holder()
    {
        var attached = Mount(Point("busy"), Tmpfs());
        File.WriteAllText(Point("busy/file"), "x");
        using var holder = Process.Start(new ProcessStartInfo("tail", ["-f", Point("busy/file")]) { RedirectStandardOutput = true })!;
        try
        {
            holder.StandardOutput.Read();
            var failed = Assert.IsType<UnmountResult.Failed>(Unmount(Point("busy"), attached.MountId));
            Assert.Contains(failed.Error.Holders, found => found.Pid == holder.Id && found.Uses.Contains("open"));
        }
        finally
        {
            holder.Kill();
            holder.WaitForExit();
        }
    }

    [RootFact]
    public void Busy_mount_names_the_mounts_below_it()
    {
        var outer = Mount(Point("outer"), Tmpfs());
        Mount(Point("outer/inner"), Tmpfs());
        var failed = Assert.IsType<UnmountResult.Failed>(Unmount(Point("outer"), outer.MountId));
        Assert.Contains($"mounts below it: {Point("outer/inner")}", failed.Error.Message, StringComparison.Ordinal);
    }

    [RootFact]
    public void Lazy_unmount_takes_a_busy_mount_away()
    {
        var attached = Mount(Point("busy"), Tmpfs());
        using var open = File.Create(Point("busy/file"));
        Assert.IsType<UnmountResult.Failed>(Unmount(Point("busy"), attached.MountId));
        var result = Operations.Unmount(new UnmountOrder(Point("busy"), attached.MountId, UnmountMode.Lazy, attached.DirectoriesCreated));
        Assert.IsType<UnmountResult.Unmounted>(result);
        Assert.False(Directory.Exists(Point("busy")));
    }

    [RootFact]
    public void Path_with_spaces_and_odd_letters_reads_back_as_it_was_given()
    {
        var point = Point("a b\\c#d,ü");
        var attached = Mount(point, Tmpfs());
        Assert.Equal(attached.MountId, InTable(point)!.MountId);
        Assert.Equal(attached.MountId, Top(point)!.MountId);
        Assert.IsType<UnmountResult.Unmounted>(Unmount(point, attached.MountId));
    }

    [RootFact]
    public void Attacker_that_swaps_a_component_for_a_link_never_moves_a_mount()
    {
        var victim = Directory.CreateDirectory(Path.Combine(Base, "victim/leaf")).FullName;
        Directory.CreateDirectory(Point("dir/leaf"));
        Directory.CreateSymbolicLink(Point("link"), Path.Combine(Base, "victim"));
        using var stop = new CancellationTokenSource();
        var attacker = Task.Run(() =>
        {
            while (!stop.IsCancellationRequested)
            {
                Rename(Point("dir"), Point("aside"));
                Rename(Point("link"), Point("dir"));
                Rename(Point("dir"), Point("link"));
                Rename(Point("aside"), Point("dir"));
            }
        });
        var attachedCount = 0;
        for (var i = 0; i < 500; i++)
        {
            if (Operations.Prepare(10_000 + i, Point("dir/leaf"), Tmpfs()) is not PrepareResult.Ready ready) continue;
            if (Operations.Attach(ready.Mount) is not AttachResult.Attached attached) continue;
            attachedCount++;
            Assert.Empty(MountTable.ByPath(victim));
            for (var n = 0; n < 10_000 && Unmount(Point("dir/leaf"), attached.MountId) is not UnmountResult.Unmounted; n++) Thread.Yield();
        }
        stop.Cancel();
        attacker.Wait();
        Assert.True(attachedCount > 0);
    }

    [LibraryImport("libc", EntryPoint = "rename", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Rename(string from, string to);
}
