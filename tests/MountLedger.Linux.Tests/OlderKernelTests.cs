using System.Diagnostics;
using System.Globalization;
using MountLedger.Tests;
using MountLedger.Wire;

namespace MountLedger.Linux.Tests;

/// <summary>
/// The same mounts and unmounts by a worker whose kernel lacks one of the newer calls, each of them, and all of them: a seccomp filter on the worker answers
/// ENOSYS. What cannot be done then is refused with the kernel that it needs.
/// </summary>
public sealed class OlderKernelTests : KernelTest, IAsyncLifetime
{
    private const string Nothing = "none";

    private WorkerMountHost host = null!;

    public Task InitializeAsync() => Task.CompletedTask;

    public async Task DisposeAsync()
    {
        if (host is not null) await host.DisposeAsync();
    }

    [RootTheory]
    [InlineData(Nothing)]
    [InlineData("fsopen")]
    [InlineData("fsconfig")]
    [InlineData("fsmount")]
    [InlineData("open_tree")]
    [InlineData("move_mount")]
    [InlineData("mount_setattr")]
    [InlineData("openat2")]
    [InlineData("statmount")]
    [InlineData("listmount")]
    [InlineData("unique-ids")]
    [InlineData("mount-events")]
    [InlineData("all")]
    public async Task Everything_works_or_is_refused_by_name_without(string missing)
    {
        await StartAsync(missing);
        var isClassic = missing is "all" or "fsopen" or "fsconfig" or "fsmount" or "open_tree" or "move_mount";
        var hasIds = missing is not ("all" or "statmount" or "listmount" or "unique-ids");

        await TmpfsAsync(hasIds, knowsIdBefore: hasIds && !isClassic);
        await ReadOnlyBindAsync();
        await RecursiveBindAsync(isRefused: isClassic || missing == "mount_setattr");
        await OverlayAsync();
        await Ext4OnLoopAsync();
        await AdoptAndForeignAsync();
        await LinksAreRefusedAsync();
        await StrangersAreLeftAsync();
        await LazyTakesNobodyAlongAsync();
        await BusyNamesItsHolderAsync();
        await AnotherWorkerFindsItAgainAsync(missing);
        await DoctorSaysSoAsync(missing);
    }

    [RootFact]
    public async Task Swapped_directories_are_found_and_rolled_back_without_the_newer_calls()
    {
        await StartAsync("all");
        // The attacker owns both directories and exchanges them all the time; the mount must be at its path or nowhere.
        Directory.CreateDirectory(Point("ours/leaf"));
        Directory.CreateDirectory(Path.Combine(Base, "theirs/leaf"));
        using var attacker = Process.Start("python3", ["-c",
            "import ctypes,sys\nl=ctypes.CDLL(None)\nwhile True: l.syscall(316,-100,sys.argv[1].encode(),-100,sys.argv[2].encode(),2)",
            Point("ours"), Path.Combine(Base, "theirs")]);
        try
        {
            var (landed, refused) = (0, 0);
            for (var i = 0; i < 150; i++)
            {
                if (await host.PrepareAsync(Point("ours/leaf"), Tmpfs(), CancellationToken.None) is not PrepareResult.Ready { Mount: var prepared }) continue;
                var result = await host.AttachAsync(prepared, CancellationToken.None);
                _ = result is AttachResult.Attached ? landed++ : refused++;
                // Whatever the answer is, the table says the same: the path may have changed since, so the leaf is what is looked for.
                var there = MountInfoReader.Read(out _).Count(entry => entry.Mount.Path.StartsWith(Base + "/", StringComparison.Ordinal) && entry.Mount.Path.EndsWith("/leaf", StringComparison.Ordinal));
                Assert.Equal(result is AttachResult.Attached ? 1 : 0, there);
                foreach (var path in MountInfoReader.Read(out _).Select(entry => entry.Mount.Path)
                    .Where(path => path.StartsWith(Base + "/", StringComparison.Ordinal) && path.EndsWith("/leaf", StringComparison.Ordinal)))
                    UnmountWherever(path);
            }
            Assert.True(landed > 0, $"{landed} landed, {refused} were refused");
        }
        finally
        {
            attacker.Kill();
            await attacker.WaitForExitAsync();
        }
    }

    private void UnmountWherever(string path)
    {
        for (var attempt = 0; attempt < 1000; attempt++)
        {
            foreach (var place in new[] { path, Point("ours/leaf"), Path.Combine(Base, "theirs/leaf") })
                if (Interop.MountCalls.Unmount(place, Interop.MountCalls.MNT_DETACH) == 0) return;
        }
        Assert.Fail($"{path} cannot be unmounted");
    }

    private async Task StartAsync(string missing)
    {
        string[] prefix = missing == Nothing ? [] : ["--without", missing];
        host = new WorkerMountHost(new WorkerOptions(
            Path.Combine(AppContext.BaseDirectory, "mountledger-test-worker"), prefix, [Root], Path.Combine(Base, "run")));
        await host.StartAsync(CancellationToken.None);
    }

    private async Task TmpfsAsync(bool hasIds, bool knowsIdBefore)
    {
        var spec = Tmpfs("size=1G", "mode=0750", "nosuid", "nodev", "noatime");
        var prepared = await PreparedAsync(Point("t/mp"), spec);
        Assert.Equal(knowsIdBefore, prepared.MountId is not null);
        Assert.Empty(Directory.EnumerateFileSystemEntries(Root));
        var attached = await AttachedAsync(prepared);
        Assert.Equal(hasIds, attached.MountId is not null);
        Same([Point("t"), Point("t/mp")], attached.DirectoriesCreated);
        Assert.Equal((UnixFileMode)Convert.ToInt32("750", 8), File.GetUnixFileMode(Point("t/mp")));
        var seen = (await host.ObserveAsync(Point("t/mp"), spec, CancellationToken.None)).Top!;
        Assert.Equal(attached.MountId, seen.MountId);
        Assert.Empty(seen.Differences!.Value);
        Assert.Superset(new HashSet<string> { "nosuid", "nodev", "noatime" }, seen.MountOptions.ToHashSet());
        var wrong = await host.PrepareAsync(Point("wrong"), Tmpfs("siez=1G"), CancellationToken.None);
        // Without fsopen the kernel is asked at the attach only.
        var error = wrong is PrepareResult.Ready { Mount: var late }
            ? Assert.IsType<AttachResult.Failed>(await host.AttachAsync(late, CancellationToken.None)).Error
            : Assert.IsType<PrepareResult.Failed>(wrong).Error;
        Assert.Equal("EINVAL", error.Errno);
        Assert.False(Directory.Exists(Point("wrong")));
        await GoneAsync(Point("t/mp"), attached, spec);
        Assert.False(Directory.Exists(Point("t")));
    }

    private async Task ReadOnlyBindAsync()
    {
        var source = Directory.CreateDirectory(Path.Combine(Sources, "data")).FullName;
        File.WriteAllText(Path.Combine(source, "file"), "here");
        var spec = new MountSpec(source, "bind", ["ro", "nosuid", "nodev"]);
        var attached = await MountedAsync(Point("b"), spec);
        Assert.Equal("here", File.ReadAllText(Point("b/file")));
        Assert.ThrowsAny<IOException>(() => File.WriteAllText(Point("b/new"), ""));
        var seen = (await host.ObserveAsync(Point("b"), spec, CancellationToken.None)).Top!;
        Assert.Empty(seen.Differences!.Value);
        Assert.Superset(new HashSet<string> { "ro", "nosuid", "nodev", "relatime" }, seen.MountOptions.ToHashSet());
        Same(["source"], (await host.ObserveAsync(Point("b"), spec with { Source = Sources }, CancellationToken.None)).Top!.Differences!.Value);
        await GoneAsync(Point("b"), attached, spec);
        File.WriteAllText(Path.Combine(source, "still-writable"), "");
    }

    private async Task RecursiveBindAsync(bool isRefused)
    {
        var inner = Directory.CreateDirectory(Path.Combine(Sources, "tree/inner")).FullName;
        Run("mount", "-t", "tmpfs", "inner", inner);
        File.WriteAllText(Path.Combine(inner, "file"), "deep");
        var plain = new MountSpec(Path.Combine(Sources, "tree"), "bind", ["rbind"]);
        await MountedAsync(Point("r"), plain);
        Assert.Equal("deep", File.ReadAllText(Point("r/inner/file")));
        Run("umount", "-R", Point("r"));

        var readOnly = plain with { Options = ["rbind", "ro"] };
        if (isRefused)
        {
            var error = Assert.IsType<PrepareResult.Failed>(await host.PrepareAsync(Point("r"), readOnly, CancellationToken.None)).Error;
            Assert.Equal(("ENOSYS", false), (error.Errno, error.Transient));
            Assert.Contains("mount_setattr (Linux 5.12)", error.Message, StringComparison.Ordinal);
        }
        else
        {
            await MountedAsync(Point("r"), readOnly);
            Assert.ThrowsAny<IOException>(() => File.WriteAllText(Point("r/inner/new"), ""));
            Run("umount", "-R", Point("r"));
        }
        Run("umount", inner);
    }

    private async Task OverlayAsync()
    {
        string Layer(string name) => Directory.CreateDirectory(Path.Combine(Sources, name)).FullName;
        var (first, second, upper, work) = (Layer("first"), Layer("second"), Layer("upper"), Layer("work"));
        File.WriteAllText(Path.Combine(first, "a"), "first");
        File.WriteAllText(Path.Combine(second, "a"), "second");
        var spec = new MountSpec("overlay", "overlay", [$"lowerdir={first}:{second}", $"upperdir={upper}", $"workdir={work}", "nosuid"]);
        var attached = await MountedAsync(Point("o"), spec);
        Assert.Equal("first", File.ReadAllText(Point("o/a")));
        File.WriteAllText(Point("o/c"), "new");
        Assert.Equal("new", File.ReadAllText(Path.Combine(upper, "c")));
        Assert.Empty((await host.ObserveAsync(Point("o"), spec, CancellationToken.None)).Top!.Differences!.Value);
        await GoneAsync(Point("o"), attached, spec);
        File.CreateSymbolicLink(Path.Combine(Sources, "layer-link"), first);
        var linked = await host.PrepareAsync(Point("o"), spec with { Options = [$"lowerdir={Sources}/layer-link:{second}"] }, CancellationToken.None);
        Assert.Equal("ELOOP", Assert.IsType<PrepareResult.Failed>(linked).Error.Errno);
    }

    private async Task Ext4OnLoopAsync()
    {
        var image = Image("disk.img", 8 << 20, "mkfs.ext4", "-q");
        var spec = new MountSpec(image, "ext4", ["nosuid", "nodev"]);
        var attached = await MountedAsync(Point("e"), spec);
        File.WriteAllText(Point("e/file"), "kept");
        Assert.Empty((await host.ObserveAsync(Point("e"), spec, CancellationToken.None)).Top!.Differences!.Value);
        await GoneAsync(Point("e"), attached, spec);
        Assert.DoesNotContain(image, Run("losetup", "-a"), StringComparison.Ordinal);
        var again = spec with { Options = ["ro", "loop"] };
        attached = await MountedAsync(Point("e"), again);
        Assert.Equal("kept", File.ReadAllText(Point("e/file")));
        await GoneAsync(Point("e"), attached, again);
    }

    private async Task AdoptAndForeignAsync()
    {
        Directory.CreateDirectory(Point("f"));
        Run("mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", Point("f"));
        var adopted = Assert.IsType<PrepareResult.Occupied>(await host.PrepareAsync(Point("f"), Tmpfs("size=1M"), CancellationToken.None));
        Assert.True(adopted.Found.Top!.Matches);
        var foreign = Assert.IsType<PrepareResult.Occupied>(await host.PrepareAsync(Point("f"), Tmpfs("size=2M"), CancellationToken.None));
        Same(["options"], foreign.Found.Top!.Differences!.Value);
        Run("umount", Point("f"));
        // Something that came between the two steps is not mounted over.
        var prepared = await PreparedAsync(Point("f"), Tmpfs());
        Run("mount", "-t", "ramfs", "stranger", Point("f"));
        Assert.Equal("EBUSY", Assert.IsType<AttachResult.Failed>(await host.AttachAsync(prepared, CancellationToken.None)).Error.Errno);
        Assert.Equal("ramfs", Assert.Single((await host.ObserveAsync(Point("f"), null, CancellationToken.None)).Mounts).FsType);
        Run("umount", Point("f"));
    }

    private async Task LinksAreRefusedAsync()
    {
        Directory.CreateSymbolicLink(Point("link"), "/etc");
        File.WriteAllText(Point("file"), "");
        foreach (var (path, errno) in new[] { (Point("link"), "ELOOP"), (Point("link/ssl"), "ELOOP"), (Point("file/below"), "ENOTDIR"), ("/etc", "EPERM") })
            Assert.Equal(errno, Assert.IsType<PrepareResult.Failed>(await host.PrepareAsync(path, Tmpfs(), CancellationToken.None)).Error.Errno);
        var source = await host.PrepareAsync(Point("x"), new MountSpec(Point("link"), "bind", []), CancellationToken.None);
        Assert.Contains($"{Point("link")} is a symbolic link", Assert.IsType<PrepareResult.Failed>(source).Error.Message, StringComparison.Ordinal);
        File.Delete(Point("link"));
        File.Delete(Point("file"));
    }

    private async Task StrangersAreLeftAsync()
    {
        // On top of ours: neither is touched.
        var spec = Tmpfs();
        var attached = await MountedAsync(Point("s"), spec);
        Run("mount", "-t", "ramfs", "cover", Point("s"));
        var covered = Assert.IsType<UnmountResult.Failed>(await UnmountAsync(Point("s"), attached, spec));
        Assert.Equal("EBUSY", covered.Error.Errno);
        Assert.Equal(["ramfs", "tmpfs"], (await host.ObserveAsync(Point("s"), null, CancellationToken.None)).Mounts.Select(mount => mount.FsType));
        Run("umount", Point("s"));
        await GoneAsync(Point("s"), attached, spec);

        // In place of ours: it stays.
        attached = await MountedAsync(Point("s"), spec);
        Run("umount", Point("s"));
        Run("mount", "-t", "ramfs", "other", Point("s"));
        Assert.IsType<UnmountResult.NotMounted>(await UnmountAsync(Point("s"), attached, spec));
        Assert.Equal("ramfs", (await host.ObserveAsync(Point("s"), null, CancellationToken.None)).Top!.FsType);
        Run("umount", Point("s"));
    }

    private async Task LazyTakesNobodyAlongAsync()
    {
        var spec = Tmpfs();
        var attached = await MountedAsync(Point("l"), spec);
        Directory.CreateDirectory(Point("l/below"));
        Run("mount", "-t", "ramfs", "stranger", Point("l/below"));
        var refused = Assert.IsType<UnmountResult.Failed>(await UnmountAsync(Point("l"), attached, spec, UnmountMode.Lazy));
        Assert.Contains(Point("l/below"), refused.Error.Message, StringComparison.Ordinal);
        Run("umount", Point("l/below"));
        Assert.IsType<UnmountResult.Unmounted>(await UnmountAsync(Point("l"), attached, spec, UnmountMode.Lazy));
    }

    private async Task BusyNamesItsHolderAsync()
    {
        var spec = Tmpfs();
        var attached = await MountedAsync(Point("busy"), spec);
        using (File.Create(Point("busy/open")))
        {
            // The search has little time. On a machine that is loaded it may not get to this process, and says so; then it is asked again.
            static bool IsCutShort(KernelError error) =>
                error.Message.Contains("there may be more", StringComparison.Ordinal) || error.Message.Contains("cut short", StringComparison.Ordinal);
            static bool NamesUs(KernelError error) => error.Holders.Any(holder => holder.Pid == Environment.ProcessId && holder.Uses.Contains("open"));
            KernelError busy;
            var attempts = 0;
            do
            {
                busy = Assert.IsType<UnmountResult.Failed>(await UnmountAsync(Point("busy"), attached, spec)).Error;
                Assert.Equal(("EBUSY", true), (busy.Errno, busy.Transient));
            }
            while (!NamesUs(busy) && IsCutShort(busy) && ++attempts < 10);
            Assert.True(NamesUs(busy) || IsCutShort(busy), busy.Message);
        }
        await GoneAsync(Point("busy"), attached, spec);
    }

    /// <summary>What the worker knew is gone with it; what was recorded is enough to find the mount and to unmount it.</summary>
    private async Task AnotherWorkerFindsItAgainAsync(string missing)
    {
        var spec = Tmpfs("size=4M");
        var attached = await MountedAsync(Point("again"), spec);
        var unfinished = await PreparedAsync(Point("never"), spec);
        RootSignal.Send(host.WorkerPid!.Value, "KILL");
        await host.DisposeAsync();
        await StartAsync(missing);
        Assert.IsNotType<AttachResult.Attached>(await host.AttachAsync(unfinished, CancellationToken.None));
        Assert.Empty((await host.ObserveAsync(Point("never"), spec, CancellationToken.None)).Mounts);
        var seen = (await host.ObserveAsync(Point("again"), spec, CancellationToken.None)).Top!;
        Assert.True(seen.Matches);
        Assert.Equal(attached.MountId, seen.MountId);
        await GoneAsync(Point("again"), attached, spec);
    }

    private async Task DoctorSaysSoAsync(string missing)
    {
        var notes = (await host.ExamineAsync(CancellationToken.None))
            .Where(finding => finding is { Area: "kernel", Level: not DoctorLevel.Ok }).Select(finding => finding.Name).ToHashSet();
        string[] expected = missing switch
        {
            Nothing => [],
            "all" => ["mount-api", "mount-setattr", "openat2", "statmount", "listmount", "unique-ids", "mount-events"],
            "mount_setattr" => ["mount-setattr"],
            "openat2" or "unique-ids" or "mount-events" => [missing],
            "statmount" or "listmount" => [missing, "unique-ids"],
            _ => ["mount-api"],
        };
        notes.Remove("filesystems");
        Assert.Equal(expected.ToHashSet(), notes);
    }

    private async Task<PreparedMount> PreparedAsync(string mountpoint, MountSpec spec)
    {
        var result = await host.PrepareAsync(mountpoint, spec, CancellationToken.None);
        return result is PrepareResult.Ready ready ? ready.Mount : throw new Xunit.Sdk.XunitException(result.ToString());
    }

    private async Task<AttachResult.Attached> AttachedAsync(PreparedMount prepared)
    {
        var result = await host.AttachAsync(prepared, CancellationToken.None);
        return result as AttachResult.Attached ?? throw new Xunit.Sdk.XunitException(result.ToString());
    }

    private async Task<AttachResult.Attached> MountedAsync(string mountpoint, MountSpec spec) => await AttachedAsync(await PreparedAsync(mountpoint, spec));

    private Task<UnmountResult> UnmountAsync(string mountpoint, AttachResult.Attached attached, MountSpec spec, UnmountMode mode = UnmountMode.Normal) =>
        host.UnmountAsync(new UnmountOrder(mountpoint, attached.MountId, mode, attached.DirectoriesCreated) { Expected = spec }, CancellationToken.None);

    private async Task GoneAsync(string mountpoint, AttachResult.Attached attached, MountSpec spec)
    {
        var result = await UnmountAsync(mountpoint, attached, spec);
        Assert.True(result is UnmountResult.Unmounted, result.ToString());
        Assert.Null(InTable(mountpoint));
    }
}
