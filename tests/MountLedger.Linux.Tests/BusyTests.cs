using System.Diagnostics;
using System.Globalization;
using MountLedger.Linux.Interop;
using MountLedger.Tests;

namespace MountLedger.Linux.Tests;

/// <summary>
/// Who keeps a mount busy, one real holder of each kind: found by the mount's id, whatever name the holder knows it by, and
/// without a question to the filesystem.
/// </summary>
public sealed class BusyTests : KernelTest
{
    [RootTheory]
    [InlineData("cwd", "", "cwd")]
    [InlineData("root", "", "root")]
    [InlineData("open", "/file", "open")]
    [InlineData("mapped", "/file", "mapped")]
    [InlineData("socket", "/socket", "socket")]
    public void Holder_is_named_with_pid_command_and_use(string how, string file, string use)
    {
        var busy = Mount(Point("busy"), Tmpfs());
        using var holder = new Holder(how, Point("busy") + file);

        var error = Busy("busy", busy, holders: 1);

        var found = Assert.Single(error.Holders);
        Assert.Equal((holder.Pid, "hold"), (found.Pid, found.Command));
        Same([use], found.Uses);
        Assert.Contains($"held by hold (pid {holder.Pid}: {use})", error.Message, StringComparison.Ordinal);
        holder.Dispose();
        Assert.IsType<UnmountResult.Unmounted>(Unmount(Point("busy"), busy.MountId));
    }

    [RootFact]
    public void Program_that_runs_from_the_mount_is_a_holder()
    {
        var busy = Mount(Point("busy"), Tmpfs());
        File.Copy(RootProgram.Path("hold"), Point("busy/program"));
        using var holder = new Holder("cwd", "/", Point("busy/program"));
        Same(["program"], Assert.Single(Busy("busy", busy, holders: 1).Holders).Uses);
    }

    [RootFact]
    public void Holder_that_knows_the_mount_by_no_path_is_found()
    {
        // The file is deleted and closed: its mapping is all there is, and its name in /proc is wrong.
        var busy = Mount(Point("above/busy"), Tmpfs());
        using var holder = new Holder("mapped", Point("above/busy/file"));
        File.Delete(Point("above/busy/file"));
        using var lookAlike = new Holder("cwd", Directory.CreateDirectory(Path.Combine(Base, "elsewhere")).FullName);
        var found = Assert.Single(Busy("above/busy", busy, holders: 1).Holders);
        Assert.Equal(holder.Pid, found.Pid);
    }

    [RootFact]
    public void Who_is_below_the_path_in_another_mount_is_no_holder()
    {
        var outer = Mount(Point("outer"), Tmpfs());
        Mount(Point("outer/inner"), Tmpfs());
        using var inner = new Holder("cwd", Point("outer/inner"));
        using var file = new Holder("mapped", Point("outer/inner/file"));

        var error = Busy("outer", outer);

        Assert.Empty(error.Holders);
        Assert.Contains($"mounts below it: {Point("outer/inner")}", error.Message, StringComparison.Ordinal);
    }

    [RootFact]
    public void Loop_device_over_a_file_in_the_mount_is_named()
    {
        var busy = Mount(Point("busy"), Tmpfs());
        using (var image = File.Create(Point("busy/disk.img"))) image.SetLength(1 << 20);
        var device = Run("losetup", "--find", "--show", Point("busy/disk.img")).Trim();
        try
        {
            Assert.Contains($"loop devices over its files: {device} ({Point("busy/disk.img")})", Busy("busy", busy).Message, StringComparison.Ordinal);
        }
        finally
        {
            Run("losetup", "--detach", device);
        }
    }

    [RootFact]
    public void Swap_file_in_the_mount_is_named()
    {
        var image = Image("disk.img", 32 << 20, "mkfs.ext4", "-q");
        var busy = Mount(Point("busy"), new MountSpec(image, "ext4", []));
        var swap = Point("busy/swap file");
        using (var file = File.Create(swap))
        {
            file.Write(new byte[4 << 20]);
            file.Flush(flushToDisk: true);
        }
        File.SetUnixFileMode(swap, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        Run("mkswap", swap);
        Run("swapon", swap);
        try
        {
            Assert.Contains($"swap files: {swap}", Busy("busy", busy).Message, StringComparison.Ordinal);
        }
        finally
        {
            Run("swapoff", swap);
        }
    }

    [RootFact]
    public void User_of_a_copy_in_another_mount_namespace_is_found()
    {
        // A mount below a shared one is propagated into the other namespace, and unmounting it there has to succeed too.
        Run("mount", "--bind", Root, Root);
        Run("mount", "--make-shared", Root);
        var busy = Mount(Point("busy"), Tmpfs());
        using var holder = new Holder("namespace", Point("busy"));

        var found = Assert.Single(Busy("busy", busy, holders: 1).Holders);

        Assert.Equal(holder.Pid, found.Pid);
        Same(["cwd", "namespace"], found.Uses);
    }

    [RootFact]
    public void User_of_an_unrelated_copy_in_another_mount_namespace_is_no_holder()
    {
        var mounted = Mount(Point("free"), Tmpfs());
        using var other = new Holder("namespace", Point("free"));
        Assert.IsType<UnmountResult.Unmounted>(Unmount(Point("free"), mounted.MountId));
    }

    [RootFact]
    public void Holders_of_a_filesystem_whose_server_hangs_are_found_at_once()
    {
        var point = Directory.CreateDirectory(Point("fuse")).FullName;
        Directory.CreateDirectory(Path.Combine(Sources, "files"));
        Run("bindfs", Path.Combine(Sources, "files"), point);
        var mount = Top(point)!;
        var server = int.Parse(Run("pgrep", "-nf", $"bindfs .*{point}"), CultureInfo.InvariantCulture);
        using var holder = new Holder("cwd", point);
        using var open = new Holder("open", point + "/file");
        using var mapped = new Holder("mapped", point + "/mapped");
        RootSignal.Send(server, "STOP");
        try
        {
            var clock = Stopwatch.StartNew();
            var failed = Busy(point, mount.MountId, holders: 3);
            // Who asked the server would wait until it goes on, which is after this.
            Assert.True(clock.ElapsedMilliseconds < 20_000, $"took {clock.ElapsedMilliseconds} ms");
            Assert.Equal(
                new[] { (holder.Pid, "cwd"), (open.Pid, "open"), (mapped.Pid, "mapped") }.Order(),
                failed.Holders.Select(found => (found.Pid, string.Join(' ', found.Uses))).Order());
        }
        finally
        {
            RootSignal.Send(server, "CONT");
            Run("umount", "--lazy", point);
        }
    }

    [RootFact]
    public void What_this_process_itself_looks_at_for_a_moment_fails_no_unmount()
    {
        // Each status of a mountpoint below opens the directories above it.
        var outer = Mount(Point("outer"), Tmpfs());
        Directory.CreateDirectory(Point("outer/below"));
        using var stop = new CancellationTokenSource();
        var looking = Task.Run(() =>
        {
            while (!stop.IsCancellationRequested) Operations.Observe(Point("outer/below"), null);
        });
        for (var i = 0; i < 200; i++)
        {
            Assert.IsType<UnmountResult.Unmounted>(Unmount(Point("outer"), outer.MountId));
            outer = Mount(Point("outer"), Tmpfs());
            Directory.CreateDirectory(Point("outer/below"));
        }
        stop.Cancel();
        looking.Wait();
    }

    [RootFact]
    public void Unmount_without_a_holder_in_sight_says_so()
    {
        var busy = Mount(Point("busy"), Tmpfs());
        // This process is the holder, and it is not searched.
        using var own = File.Create(Point("busy/file"));
        Assert.Contains("no holder can be seen", Busy("busy", busy).Message, StringComparison.Ordinal);
    }

    private KernelError Busy(string name, AttachResult.Attached mount, int holders = 0) => Busy(Point(name), mount.MountId, holders);

    /// <summary>The search has a limit, which a machine that stands still may reach: then it is made again.</summary>
    private KernelError Busy(string path, ulong? mountId, int holders)
    {
        const int TriesMax = 4;
        KernelError error;
        var tries = 0;
        do
        {
            error = Assert.IsType<UnmountResult.Failed>(Unmount(path, mountId)).Error;
            Assert.Equal(("EBUSY", true), (error.Errno, error.Transient));
        }
        while (error.Holders.Length < holders && ++tries < TriesMax);
        return error;
    }

    private sealed class Holder : IDisposable
    {
        private readonly Process process;

        public Holder(string how, string path, string? program = null)
        {
            process = Process.Start(new ProcessStartInfo(program ?? RootProgram.Path("hold"), [how, path])
            {
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            })!;
            if (process.StandardOutput.ReadLine() != "holding") Assert.Fail(process.StandardError.ReadToEnd());
        }

        public int Pid => process.Id;

        public void Dispose()
        {
            if (process.HasExited) return;
            process.Kill();
            process.WaitForExit();
        }
    }
}
