using MountLedger.Tests;

namespace MountLedger.Linux.Tests;

/// <summary>Each filesystem mounted for real, read back, compared by meaning, and unmounted.</summary>
public sealed class FilesystemTests : KernelTest
{
    private void Mounts_reads_back_and_unmounts(MountSpec spec, string[] expectedFlags, string[] expectedSuper, string? type = null)
    {
        var point = Point("a");
        var attached = Mount(point, spec);
        var observed = Top(point, spec)!;
        Assert.Equal(attached.MountId, observed.MountId);
        Assert.Equal(type ?? spec.FsType, observed.FsType);
        Assert.Empty(observed.Differences!.Value);
        Assert.Superset(expectedFlags.ToHashSet(), observed.MountOptions.ToHashSet());
        Assert.Superset(expectedSuper.ToHashSet(), observed.SuperOptions.ToHashSet());

        var listed = InTable(point)!;
        Assert.Equal(observed.MountId, listed.MountId);
        Assert.Equal(observed.Source, listed.Source);
        Assert.Equal(observed.Root, listed.Root);
        Assert.Equal(observed.MountOptions.ToHashSet(), listed.MountOptions.ToHashSet());
        Assert.Equal(observed.SuperOptions.ToHashSet(), listed.SuperOptions.ToHashSet());

        Assert.IsType<UnmountResult.Unmounted>(Unmount(point, attached.MountId, [.. attached.DirectoriesCreated]));
        Assert.False(Directory.Exists(point));
    }

    [RootFact]
    public void Tmpfs_is_mounted_with_flags_and_data() =>
        Mounts_reads_back_and_unmounts(Tmpfs("size=1G", "mode=0750", "nosuid", "nodev"), ["nosuid", "nodev"], ["size=1048576k", "mode=750"]);

    [RootFact]
    public void Ramfs_is_mounted() => Mounts_reads_back_and_unmounts(new MountSpec("ramfs", "ramfs", ["noexec"]), ["noexec"], []);

    [RootFact]
    public void Bind_shows_its_source()
    {
        var source = Directory.CreateDirectory(Path.Combine(Sources, "data")).FullName;
        File.WriteAllText(Path.Combine(source, "file"), "here");
        var point = Point("b");
        var spec = new MountSpec(source, "bind", ["ro", "nosuid"]);
        var attached = Mount(point, spec);
        Assert.Equal("here", File.ReadAllText(Path.Combine(point, "file")));
        Assert.Contains("ro", Top(point)!.MountOptions);
        Assert.Empty(Top(point, spec)!.Differences!.Value);
        Same(["source"], Top(point, spec with { Source = Sources })!.Differences!.Value);
        Assert.IsType<UnmountResult.Unmounted>(Unmount(point, attached.MountId));
    }

    [RootFact]
    public void Recursive_bind_takes_the_mounts_below_with_it()
    {
        var source = Directory.CreateDirectory(Path.Combine(Sources, "tree/inner")).FullName;
        Run("mount", "-t", "tmpfs", "inner", source);
        File.WriteAllText(Path.Combine(source, "file"), "deep");
        Mount(Point("r"), new MountSpec(Path.Combine(Sources, "tree"), "bind", ["rbind"]));
        Assert.Equal("deep", File.ReadAllText(Point("r/inner/file")));
    }

    [RootFact]
    public void Overlay_joins_its_layers()
    {
        string Layer(string name) => Directory.CreateDirectory(Path.Combine(Sources, name)).FullName;
        var (first, second, upper, work) = (Layer("first"), Layer("second"), Layer("upper"), Layer("work"));
        File.WriteAllText(Path.Combine(first, "a"), "first");
        File.WriteAllText(Path.Combine(second, "a"), "second");
        File.WriteAllText(Path.Combine(second, "b"), "second");
        var spec = new MountSpec("overlay", "overlay", [$"lowerdir={first}:{second}", $"upperdir={upper}", $"workdir={work}"]);
        var attached = Mount(Point("o"), spec);
        Assert.Equal("first", File.ReadAllText(Point("o/a")));
        Assert.Equal("second", File.ReadAllText(Point("o/b")));
        File.WriteAllText(Point("o/c"), "new");
        Assert.Equal("new", File.ReadAllText(Path.Combine(upper, "c")));
        Assert.Empty(Top(Point("o"), spec)!.Differences!.Value);
        var other = spec with { Options = [$"lowerdir={second}:{first}", $"upperdir={upper}", $"workdir={work}"] };
        Same(["options"], Top(Point("o"), other)!.Differences!.Value);
        Assert.IsType<UnmountResult.Unmounted>(Unmount(Point("o"), attached.MountId));
    }

    [RootFact]
    public void Ext4_image_is_mounted_over_a_loop_device_that_goes_with_it()
    {
        var image = Image("ext4.img", 16 << 20, "mkfs.ext4", "-q");
        Mounts_reads_back_and_unmounts(new MountSpec(image, "ext4", ["loop", "noatime", "nosuid"]), ["noatime", "nosuid"], ["rw"]);
        Assert.DoesNotContain(image, Run("losetup", "-a"), StringComparison.Ordinal);
    }

    [RootFact]
    public void Ext3_image_is_mounted() =>
        Mounts_reads_back_and_unmounts(new MountSpec(Image("ext3.img", 16 << 20, "mkfs.ext3", "-q"), "ext3", []), [], []);

    [RootFact]
    public void Read_only_reaches_the_superblock_and_the_loop_device()
    {
        var image = Image("ro.img", 16 << 20, "mkfs.ext4", "-q");
        File.SetAttributes(image, FileAttributes.ReadOnly);
        Mounts_reads_back_and_unmounts(new MountSpec(image, "ext4", ["ro"]), ["ro"], ["ro"]);
    }

    [RootFact]
    public void Xfs_image_is_mounted() =>
        Mounts_reads_back_and_unmounts(new MountSpec(Image("xfs.img", 320 << 20, "mkfs.xfs", "-q"), "xfs", ["nodev"]), ["nodev"], []);

    [RootFact]
    public void Btrfs_image_is_mounted() =>
        Mounts_reads_back_and_unmounts(
            new MountSpec(Image("btrfs.img", 128 << 20, "mkfs.btrfs", "-q"), "btrfs", ["compress=zstd:3"]), [], ["compress=zstd:3"]);

    [RootFact]
    public void Squashfs_image_is_mounted()
    {
        var image = Path.Combine(Sources, "squash.img");
        Run("mksquashfs", Directory.CreateDirectory(Path.Combine(Sources, "s")).FullName, image, "-quiet");
        Mounts_reads_back_and_unmounts(new MountSpec(image, "squashfs", ["ro"]), ["ro"], ["ro"]);
    }

    [RootTheory]
    [InlineData("ro")]
    [InlineData("ro,loop")]
    public void Erofs_image_is_mounted_with_and_without_a_loop_device(string options)
    {
        var image = Path.Combine(Sources, "erofs.img");
        Run("mkfs.erofs", "--quiet", image, Directory.CreateDirectory(Path.Combine(Sources, "e")).FullName);
        Mounts_reads_back_and_unmounts(new MountSpec(image, "erofs", [.. options.Split(',')]), ["ro"], ["ro"]);
    }

    [RootFact]
    public void Writable_image_is_not_mounted_a_second_time()
    {
        var image = Image("twice.img", 16 << 20, "mkfs.ext4", "-q");
        Mount(Point("one"), new MountSpec(image, "ext4", []));
        var error = PrepareFails(Point("two"), new MountSpec(image, "ext4", []));
        Assert.Equal("EBUSY", error.Errno);
        Assert.Contains("/dev/loop", error.Message, StringComparison.Ordinal);
    }

    [RootFact]
    public void Many_images_find_loop_devices_at_the_same_time()
    {
        var images = Enumerable.Range(0, 12).Select(n => Image($"many{n}.img", 2 << 20, "mkfs.ext4", "-q")).ToArray();
        var results = new AttachResult[images.Length];
        Parallel.For(0, images.Length, new ParallelOptions { MaxDegreeOfParallelism = images.Length }, n =>
            results[n] = Operations.Attach(((PrepareResult.Ready)Operations.Prepare(1000 + n, Point($"many{n}"), new MountSpec(images[n], "ext4", []))).Mount));
        Assert.All(results, result => Assert.IsType<AttachResult.Attached>(result));
    }

    [RootFact]
    public void Unknown_option_fails_with_what_the_kernel_said()
    {
        var error = PrepareFails(Point("x"), Tmpfs("nosuid", "siez=1G"));
        Assert.Equal(("EINVAL", false), (error.Errno, error.Transient));
        Assert.StartsWith($"mount tmpfs:{Point("x")}, flags nosuid, data siez=1G: EINVAL (", error.Message, StringComparison.Ordinal);
        Assert.Contains("kernel said: tmpfs: Unknown parameter 'siez'", error.Message, StringComparison.Ordinal);
        Assert.False(Directory.Exists(Point("x")));
    }

    [RootFact]
    public void Unknown_filesystem_is_named() =>
        Assert.Equal("ENODEV", PrepareFails(Point("x"), new MountSpec("x", "nosuchfs", [])).Errno);

    [RootFact]
    public void Source_that_leads_through_a_link_is_refused_by_name()
    {
        File.CreateSymbolicLink(Path.Combine(Sources, "link"), "/etc");
        var error = PrepareFails(Point("x"), new MountSpec(Path.Combine(Sources, "link/ssl"), "bind", []));
        Assert.Equal("ELOOP", error.Errno);
        Assert.Contains($"{Sources}/link is a symbolic link", error.Message, StringComparison.Ordinal);
    }

    [RootFact]
    public void Differences_name_what_differs()
    {
        Mount(Point("d"), Tmpfs("size=1G", "nosuid"));
        Assert.Empty(Top(Point("d"), Tmpfs("size=1024m", "nosuid", "rw", "relatime"))!.Differences!.Value);
        Same(["options"], Top(Point("d"), Tmpfs("size=2G"))!.Differences!.Value);
        Same(["options"], Top(Point("d"), Tmpfs("nosuid", "nodev"))!.Differences!.Value);
        Same(["source", "fstype"], Top(Point("d"), new MountSpec("ramfs", "ramfs", []))!.Differences!.Value);
    }
}
