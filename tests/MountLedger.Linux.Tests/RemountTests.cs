using MountLedger.Tests;

namespace MountLedger.Linux.Tests;

/// <summary>Options of live mounts, changed for real and read back.</summary>
public sealed class RemountTests : KernelTest
{
    private RemountResult Change(string point, ulong? id, MountSpec before, params string[] after) =>
        Operations.Change(new RemountOrder(point, id, before, before with { Options = [.. after] }));

    private KernelError Refused(string point, ulong? id, MountSpec before, params string[] after) =>
        Assert.IsType<RemountResult.Failed>(Change(point, id, before, after)).Error;

    [RootFact]
    public void Flags_and_size_of_a_tmpfs_are_changed_in_place()
    {
        var spec = Tmpfs("nodev", "nosuid", "size=1g");
        var mount = Mount(Point("a"), spec);
        File.WriteAllText(Point("a/file"), "kept");

        Assert.IsType<RemountResult.Remounted>(Change(Point("a"), mount.MountId, spec, "nodev", "noexec", "nosuid", "noatime", "size=2g", "ro"));

        var now = Top(Point("a"), Tmpfs("nodev", "noexec", "nosuid", "noatime", "size=2g", "ro"))!;
        Assert.Equal((mount.MountId, true), (now.MountId, now.Matches));
        Assert.Equal("kept", File.ReadAllText(Point("a/file")));
        Assert.Throws<IOException>(() => File.WriteAllText(Point("a/other"), ""));
        Assert.IsType<RemountResult.Remounted>(Change(Point("a"), mount.MountId, Tmpfs("nodev", "noexec", "nosuid", "noatime", "size=2g", "ro"), "nodev", "nosuid", "size=2g"));
        Assert.True(Top(Point("a"), Tmpfs("nodev", "nosuid", "size=2g"))!.Matches);
        Assert.Contains("relatime", Top(Point("a"))!.MountOptions);
        File.WriteAllText(Point("a/other"), "writable again");
    }

    [RootFact]
    public void What_the_filesystem_refuses_is_told_in_its_words_and_changes_nothing()
    {
        var spec = Tmpfs("nosuid", "size=8m");
        var mount = Mount(Point("a"), spec);
        File.WriteAllBytes(Point("a/file"), new byte[6 << 20]);

        var error = Refused(Point("a"), mount.MountId, spec, "noexec", "nosuid", "size=4m");

        Assert.Equal("EINVAL", error.Errno);
        Assert.Contains("kernel said: tmpfs: Too small a size for current use", error.Message, StringComparison.Ordinal);
        Assert.True(Top(Point("a"), spec)!.Matches);
        Assert.DoesNotContain("noexec", Top(Point("a"))!.MountOptions);
    }

    [RootFact]
    public void What_the_filesystem_ignores_is_not_called_done()
    {
        var spec = Tmpfs("mode=700", "nosuid", "size=8m");
        var mount = Mount(Point("a"), spec);

        var error = Refused(Point("a"), mount.MountId, spec, "mode=755", "noexec", "nosuid", "size=16m");

        Assert.Equal("EOPNOTSUPP", error.Errno);
        Assert.Contains("mode", error.Message, StringComparison.Ordinal);
        Assert.True(Top(Point("a"), spec)!.Matches);
        Assert.DoesNotContain("noexec", Top(Point("a"))!.MountOptions);
    }

    [RootFact]
    public void Ext4_becomes_read_only_as_a_whole_unless_somebody_writes()
    {
        var spec = new MountSpec(Image("e.img", 16 << 20, "mkfs.ext4", "-q"), "ext4", ["commit=30", "nosuid"]);
        var mount = Mount(Point("e"), spec);
        using (File.Create(Point("e/open")))
        {
            var busy = Refused(Point("e"), mount.MountId, spec, "commit=30", "nosuid", "ro");
            Assert.Equal(("EBUSY", true), (busy.Errno, busy.Transient));
            Assert.True(Top(Point("e"), spec)!.Matches);
        }
        Assert.IsType<RemountResult.Remounted>(Change(Point("e"), mount.MountId, spec, "commit=60", "errors=remount-ro", "nosuid", "ro"));
        Assert.Contains("ro", Top(Point("e"))!.SuperOptions);
        Assert.Contains("commit=60", Top(Point("e"))!.SuperOptions);
        Assert.IsType<RemountResult.Remounted>(
            Change(Point("e"), mount.MountId, spec with { Options = ["commit=60", "errors=remount-ro", "nosuid", "ro"] }, "commit=60", "errors=remount-ro", "nosuid"));
        File.WriteAllText(Point("e/file"), "writable again");
        var refused = Refused(Point("e"), mount.MountId, spec, "commit=30", "data=journal", "nosuid");
        Assert.Equal("EINVAL", refused.Errno);
        Assert.Contains("the filesystem cannot change data", refused.Message, StringComparison.Ordinal);
        Assert.True(Top(Point("e"), spec with { Options = ["commit=60", "nosuid"] })!.Matches);
    }

    [RootTheory]
    [InlineData("xfs", 320, "mkfs.xfs", "largeio", "inode32")]
    [InlineData("btrfs", 128, "mkfs.btrfs", "compress=lzo", "commit=60")]
    public void Other_disks_are_changed_too(string type, int megabytes, string program, string one, string other)
    {
        var spec = new MountSpec(Image("d.img", (long)megabytes << 20, program, "-q"), type, ["nosuid"]);
        var mount = Mount(Point("d"), spec);
        var result = Change(Point("d"), mount.MountId, spec, other, "nosuid");
        Assert.True(result is RemountResult.Remounted, $"{result}");
        Assert.Contains(other, Top(Point("d"))!.SuperOptions);
        var second = Change(Point("d"), mount.MountId, spec with { Options = [other, "nosuid"] }, other, "nosuid", one);
        // What xfs cannot change it ignores without a word: that must not pass for a success.
        if (type == "xfs") Assert.Equal("EOPNOTSUPP", Assert.IsType<RemountResult.Failed>(second).Error.Errno);
        else Assert.True(second is RemountResult.Remounted, $"{second}");
    }

    [RootFact]
    public void Sync_is_undone_by_async()
    {
        var spec = new MountSpec(Image("s.img", 16 << 20, "mkfs.ext4", "-q"), "ext4", []);
        var mount = Mount(Point("s"), spec);
        Assert.IsType<RemountResult.Remounted>(Change(Point("s"), mount.MountId, spec, "sync"));
        Assert.Contains("sync", Top(Point("s"))!.SuperOptions);
        Assert.IsType<RemountResult.Remounted>(Change(Point("s"), mount.MountId, spec with { Options = ["sync"] }));
        Assert.DoesNotContain("sync", Top(Point("s"))!.SuperOptions);
    }

    [RootFact]
    public void A_bind_changes_here_and_not_where_it_comes_from()
    {
        var source = Directory.CreateDirectory(Path.Combine(Sources, "data")).FullName;
        var spec = new MountSpec(source, "bind", ["nosuid"]);
        var mount = Mount(Point("b"), spec);

        Assert.IsType<RemountResult.Remounted>(Change(Point("b"), mount.MountId, spec, "noexec", "nosuid", "ro"));

        Assert.Throws<IOException>(() => File.WriteAllText(Point("b/file"), ""));
        File.WriteAllText(Path.Combine(source, "file"), "still writable here");
    }

    [RootFact]
    public void A_filesystem_that_is_mounted_elsewhere_too_is_not_changed_behind_its_back()
    {
        var spec = Tmpfs("nosuid", "size=8m");
        var mount = Mount(Point("a"), spec);
        Mount(Point("b"), new MountSpec(Directory.CreateDirectory(Point("a/inner")).FullName, "bind", []));

        var error = Refused(Point("a"), mount.MountId, spec, "nosuid", "size=16m");

        Assert.Equal("EBUSY", error.Errno);
        Assert.Contains(Point("b"), error.Message, StringComparison.Ordinal);
        Assert.IsType<RemountResult.Remounted>(Change(Point("a"), mount.MountId, spec, "noexec", "nosuid", "size=8m"));
        Assert.DoesNotContain("noexec", Top(Point("b"))!.MountOptions);
    }

    [RootFact]
    public void Only_the_mount_that_is_meant_is_changed()
    {
        var spec = Tmpfs("nosuid");
        var mount = Mount(Point("a"), spec);
        Run("mount", "-t", "tmpfs", "stranger", Point("a"));
        Assert.Equal("ESTALE", Refused(Point("a"), mount.MountId, spec, "noexec", "nosuid").Errno);
        Assert.DoesNotContain("noexec", Top(Point("a"))!.MountOptions);
        Run("umount", Point("a"));
        Run("umount", Point("a"));
        Assert.Equal("ESTALE", Refused(Point("a"), mount.MountId, spec, "noexec", "nosuid").Errno);
    }
}
