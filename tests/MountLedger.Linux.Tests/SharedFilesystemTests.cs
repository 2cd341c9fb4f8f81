using MountLedger.Tests;

namespace MountLedger.Linux.Tests;

/// <summary>One filesystem that is asked for twice, recursive binds with what they bring along, and images that the kernel refuses.</summary>
public sealed class SharedFilesystemTests : KernelTest
{
    private readonly List<string> loops = [];

    public override void Dispose()
    {
        foreach (var mount in MountInfoReader.Read(out _).Select(entry => entry.Mount.Path)
            .Where(path => path.StartsWith(Root + "/", StringComparison.Ordinal)).OrderByDescending(path => path.Length))
            Interop.MountCalls.Unmount(mount, Interop.MountCalls.MNT_DETACH);
        foreach (var loop in loops) Run("losetup", "-d", loop);
        base.Dispose();
    }

    private string Device(string image)
    {
        var device = Run("losetup", "--show", "-f", image).Trim();
        loops.Add(device);
        return device;
    }

    private string Layer(string name) => Directory.CreateDirectory(Path.Combine(Sources, name)).FullName;

    [RootFact]
    public void One_device_is_mounted_twice_with_the_same_options()
    {
        var device = Device(Image("same.img", 16 << 20, "mkfs.ext4", "-q"));
        Mount(Point("one"), new MountSpec(device, "ext4", ["commit=30", "nosuid"]));
        Mount(Point("two"), new MountSpec(device, "ext4", ["commit=30", "nodev", "noexec"]));
        File.WriteAllText(Point("one/file"), "shared");
        Assert.Equal("shared", File.ReadAllText(Point("two/file")));
    }

    [RootTheory]
    [InlineData("commit=30", "commit=60", "commit=60 is not set there")]
    [InlineData("commit=30", "", "commit=30 is set there")]
    [InlineData("", "commit=30", "commit=30 is not set there")]
    [InlineData("", "ro", "it is writable there")]
    [InlineData("ro", "", "it is read-only there")]
    [InlineData("nobarrier", "barrier=1", "barrier=1 is not set there")]
    public void One_device_is_not_shared_with_other_options(string first, string second, string difference)
    {
        static MountSpec With(string device, string options) => new(device, "ext4", [.. options.Split(',', StringSplitOptions.RemoveEmptyEntries)]);
        var device = Device(Image("other.img", 16 << 20, "mkfs.ext4", "-q"));
        Mount(Point("one"), With(device, first));
        var error = PrepareFails(Point("two"), With(device, second));
        Assert.Equal("EBUSY", error.Errno);
        Assert.Contains($"mounted at {Point("one")} already", error.Message, StringComparison.Ordinal);
        Assert.Contains(difference, error.Message, StringComparison.Ordinal);
    }

    [RootFact]
    public void Subvolumes_of_one_btrfs_are_mounted_side_by_side()
    {
        var device = Device(Image("sub.img", 128 << 20, "mkfs.btrfs", "-q"));
        Mount(Point("top"), new MountSpec(device, "btrfs", ["compress=zstd"]));
        Run("btrfs", "subvolume", "create", Point("top/inner"));
        var spec = new MountSpec(device, "btrfs", ["compress=zstd", "subvol=/inner"]);
        Mount(Point("inner"), spec);
        Assert.Empty(Top(Point("inner"), spec)!.Differences!.Value);
        Assert.Contains("compress=lzo", PrepareFails(Point("x"), new MountSpec(device, "btrfs", ["compress=lzo", "subvol=/inner"])).Message, StringComparison.Ordinal);
    }

    [RootFact]
    public void A_second_overlay_on_the_same_upper_directory_is_refused_also_while_the_first_is_being_made()
    {
        MountSpec Over(string upper, string work) => new("overlay", "overlay", [$"lowerdir={Layer("low")}", $"upperdir={Layer(upper)}", $"workdir={Layer(work)}"]);
        var first = Prepare(Point("one"), Over("up", "work"));
        Assert.Contains(Point("one"), PrepareFails(Point("two"), Over("up", "work2")).Message, StringComparison.Ordinal);
        Assert.IsType<AttachResult.Attached>(Operations.Attach(first));
        var error = PrepareFails(Point("two"), Over("up2", "work"));
        Assert.Equal("EBUSY", error.Errno);
        Assert.Contains($"the overlay at {Point("one")}", error.Message, StringComparison.Ordinal);
        Mount(Point("three"), Over("up3", "work3"));
    }

    [RootFact]
    public void A_filesystem_that_turned_itself_read_only_differs_from_what_was_asked()
    {
        var spec = new MountSpec(Image("err.img", 16 << 20, "mkfs.ext4", "-q"), "ext4", ["errors=remount-ro"]);
        Mount(Point("a"), spec);
        Assert.Empty(Top(Point("a"), spec)!.Differences!.Value);
        File.WriteAllText($"/sys/fs/ext4/{Path.GetFileName(Top(Point("a"))!.Source)}/trigger_fs_error", "a test");
        Same(["options"], Top(Point("a"), spec)!.Differences!.Value);
    }

    [RootFact]
    public void A_bind_has_what_its_source_has_and_differs_when_it_was_changed()
    {
        Run("mount", "-t", "tmpfs", "-o", "noexec,noatime", "src", Layer("strict"));
        var spec = new MountSpec(Layer("strict"), "bind", ["nosuid"]);
        Mount(Point("b"), spec);
        Assert.Empty(Top(Point("b"), spec)!.Differences!.Value);
        Run("mount", "-o", "remount,bind,ro,noexec,noatime,nosuid", Point("b"));
        Same(["options"], Top(Point("b"), spec)!.Differences!.Value);
    }

    [RootFact]
    public void A_recursive_bind_goes_with_the_mounts_that_it_brought_along()
    {
        Run("mount", "-t", "tmpfs", "outer", Layer("tree/a"));
        Run("mount", "-t", "tmpfs", "inner", Layer("tree/a/b"));
        var made = Mount(Point("r"), new MountSpec(Layer("tree"), "bind", ["rbind"]));
        Assert.True(Directory.Exists(Point("r/a/b")));
        var order = new UnmountOrder(Point("r"), made.MountId, UnmountMode.Normal, [.. made.DirectoriesCreated]) { RecursiveSource = Layer("tree") };
        Assert.IsType<UnmountResult.Unmounted>(Operations.Unmount(order));
        Assert.False(Directory.Exists(Point("r")));
        Assert.NotNull(InTable(Path.Combine(Sources, "tree/a/b")));
    }

    [RootTheory]
    [InlineData(UnmountMode.Normal)]
    [InlineData(UnmountMode.Lazy)]
    public void A_recursive_bind_stays_whole_while_a_foreign_mount_is_below_it(UnmountMode mode)
    {
        Run("mount", "-t", "tmpfs", "outer", Layer("tree/a"));
        Layer("tree/free");
        var made = Mount(Point("r"), new MountSpec(Layer("tree"), "bind", ["rbind"]));
        Run("mount", "-t", "tmpfs", "foreign", Point("r/free"));
        var order = new UnmountOrder(Point("r"), made.MountId, mode, []) { RecursiveSource = Layer("tree") };
        var error = Assert.IsType<UnmountResult.Failed>(Operations.Unmount(order)).Error;
        Assert.Equal("EBUSY", error.Errno);
        Assert.Contains(Point("r/free"), error.Message, StringComparison.Ordinal);
        Assert.NotNull(InTable(Point("r/a")));
        Run("umount", Point("r/free"));
        Assert.IsType<UnmountResult.Unmounted>(Operations.Unmount(order));
    }

    [RootTheory]
    [InlineData("ext4", 16, 0x400, 64)]
    [InlineData("ext4", 16, 2048, 4096)]
    [InlineData("xfs", 320, 8, 200)]
    [InlineData("btrfs", 128, 0x10050, 200)]
    [InlineData("erofs", 0, 1030, 40)]
    public void A_damaged_image_is_refused_with_what_is_known(string type, int megabytes, int from, int bytes)
    {
        var image = Path.Combine(Sources, "damaged.img");
        if (type == "erofs") Run("mkfs.erofs", "--quiet", image, Layer("e"));
        else Image("damaged.img", (long)megabytes << 20, "mkfs." + type, "-q");
        using (var file = File.OpenHandle(image, FileMode.Open, FileAccess.Write))
            RandomAccess.Write(file, Enumerable.Repeat((byte)0xA5, bytes).ToArray(), from);
        var error = PrepareFails(Point("d"), new MountSpec(image, type, type == "erofs" ? ["ro"] : []));
        Assert.NotEqual("OK", error.Errno);
        Assert.Matches("kernel said: .|superblock of .* so the filesystem is damaged|no .* on it", error.Message);
        Assert.Null(Top(Point("d")));
        Assert.DoesNotContain(image, Run("losetup", "-a"), StringComparison.Ordinal);
    }

    [RootTheory]
    [InlineData("mkfs.xfs", 320, "ext4", "there is xfs on it, not ext4")]
    [InlineData("mkfs.ext4", 320, "xfs", "there is ext2, ext3 or ext4 on it, not xfs")]
    [InlineData("mkfs.ext4", 320, "btrfs", "there is ext2, ext3 or ext4 on it, not btrfs")]
    public void An_image_of_another_type_is_named(string maker, int megabytes, string type, string expected) =>
        Assert.Contains(
            expected, PrepareFails(Point("d"), new MountSpec(Image("wrong.img", (long)megabytes << 20, maker, "-q"), type, [])).Message, StringComparison.Ordinal);
}
