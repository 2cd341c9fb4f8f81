using System.Diagnostics;
using MountLedger.Tests;

namespace MountLedger.Linux.Tests;

/// <summary>The path of a mount: never stacked, never through a link, directories made and removed by the rules.</summary>
public sealed class MountpointTests : KernelTest
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
}
