using System.Diagnostics;
using System.Globalization;
using MountLedger.Linux.Interop;
using MountLedger.Tests;

namespace MountLedger.Linux.Tests;

/// <summary>
/// Mount helpers: real bindfs and sshfs, and programs that do what no helper should (hang, print without end, mount when their
/// time is up, leave their group, mount nothing).
/// </summary>
public sealed class HelperTests : KernelTest
{
    private readonly MountOperations operations;
    private readonly string programs;
    private long lastToken;

    public HelperTests()
    {
        programs = Directory.CreateDirectory(Path.Combine(Base, "programs")).FullName;
        operations = With(TimeSpan.FromSeconds(10));
    }

    private string StagingDirectory => Path.Combine(Base, "staging");

    private string OwnStaging => Path.Combine(StagingDirectory, Environment.ProcessId.ToString(CultureInfo.InvariantCulture));

    private MountOperations With(TimeSpan deadline) =>
        new([Root], helpers: new HelperOptions(StagingDirectory, [programs, "/sbin", "/usr/bin"], deadline));

    private static MountSpec Spec(string type, string source, params string[] options) =>
        new(source, type, [.. options.Concat(["nodev", "nosuid"]).Order(StringComparer.Ordinal)]);

    private string Program(string name, string script)
    {
        var path = Path.Combine(programs, name);
        File.WriteAllText(path, "#!/bin/sh\n" + script);
        File.SetUnixFileMode(path, (UnixFileMode)Convert.ToInt32("755", 8));
        return path;
    }

    private PreparedMount Prepared(MountSpec spec, string name) =>
        operations.Prepare(++lastToken, Point(name), spec) is PrepareResult.Ready ready
            ? ready.Mount : throw new Xunit.Sdk.XunitException("not prepared");

    private ObservedMount Mounted(MountSpec spec, string name)
    {
        var result = operations.Prepare(++lastToken, Point(name), spec);
        var ready = result as PrepareResult.Ready ?? throw new Xunit.Sdk.XunitException(result.ToString());
        Assert.IsType<AttachResult.Attached>(operations.Attach(ready.Mount));
        return Assert.Single(operations.Observe(Point(name), spec).Mounts);
    }

    private KernelError Fails(MountOperations with, MountSpec spec, string name = "failed")
    {
        var error = Assert.IsType<PrepareResult.Failed>(with.Prepare(++lastToken, Point(name), spec)).Error;
        Assert.Empty(Directory.GetDirectories(OwnStaging));
        Assert.DoesNotContain(MountInfoReader.Read(out _), entry => entry.Mount.Path.StartsWith(OwnStaging + "/", StringComparison.Ordinal));
        return error;
    }

    private static int[] ProcessesGiven(string argument) =>
    [
        .. from directory in Directory.GetDirectories("/proc")
           where char.IsAsciiDigit(Path.GetFileName(directory)[0])
           let command = CommandOf(directory)
           where command.Split('\0').Any(part => part.Contains(argument, StringComparison.Ordinal))
           select int.Parse(Path.GetFileName(directory), CultureInfo.InvariantCulture),
    ];

    private static string CommandOf(string process)
    {
        try
        {
            return File.ReadAllText(Path.Combine(process, "cmdline"));
        }
        catch (IOException)
        {
            return "";
        }
    }

    internal static void Until(Func<bool> so, string what)
    {
        var clock = Stopwatch.StartNew();
        while (!so())
        {
            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(30), $"never: {what}");
            Thread.Sleep(10);
        }
    }

    [RootFact]
    public void Bindfs_is_mounted_in_staging_and_put_into_place_by_us()
    {
        File.WriteAllText(Path.Combine(Sources, "file"), "through bindfs");
        var spec = Spec("fuse.bindfs", Sources, "noexec");
        var mount = Mounted(spec, "b");
        Assert.True(mount.Matches, string.Join(' ', mount.Differences!.Value));
        Assert.Equal(("fuse", Sources), (mount.FsType, mount.Source));
        Assert.Contains("noexec", mount.MountOptions);
        Assert.Equal("through bindfs", File.ReadAllText(Path.Combine(Point("b"), "file")));
        Assert.Empty(Directory.GetDirectories(OwnStaging));
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute, File.GetUnixFileMode(OwnStaging));

        Assert.IsType<UnmountResult.Unmounted>(operations.Unmount(new UnmountOrder(Point("b"), mount.MountId, UnmountMode.Normal, [Point("b")])));
        Until(() => ProcessesGiven(OwnStaging).Length == 0, "the daemon ends with its mount");
        Assert.False(Directory.Exists(Point("b")));
    }

    [RootFact]
    public void Read_only_holds_for_what_a_helper_mounted()
    {
        var mount = Mounted(Spec("fuse.bindfs", Sources, "ro"), "ro");
        Assert.Contains("ro", mount.MountOptions);
        Assert.Throws<IOException>(() => File.WriteAllText(Path.Combine(Point("ro"), "x"), ""));
        Same(["options"], operations.Observe(Point("ro"), Spec("fuse.bindfs", Sources)).Top!.Differences!.Value);
        Same(["source"], operations.Observe(Point("ro"), Spec("fuse.bindfs", Root, "ro")).Top!.Differences!.Value);
    }

    [RootFact]
    public void Discarded_mount_takes_its_daemon_with_it()
    {
        var prepared = Prepared(Spec("fuse.bindfs", Sources), "d");
        Assert.Single(ProcessesGiven(OwnStaging));
        operations.Discard(prepared.Token);
        Until(() => ProcessesGiven(OwnStaging).Length == 0, "the daemon ends with the descriptor");
        Assert.False(Directory.Exists(Point("d")));
    }

    [RootFact]
    public void Sshfs_mounts_from_a_real_server_and_says_why_when_it_does_not()
    {
        using var server = new SshServer(Path.Combine(Base, "ssh"));
        File.WriteAllText(Path.Combine(Sources, "file"), "through sshfs");
        MountSpec Remote(string source, int port, params string[] more) => Spec(
            "fuse.sshfs", source, [$"port={port}", $"IdentityFile={server.Key}", $"UserKnownHostsFile={server.KnownHosts}", .. more]);

        var spec = Remote($"root@127.0.0.1:{Sources}", server.Port, "allow_other", "reconnect");
        var mount = Mounted(spec, "s");
        Assert.True(mount.Matches, string.Join(' ', mount.Differences!.Value));
        Assert.Equal("fuse.sshfs", mount.FsType);
        Assert.Equal("through sshfs", File.ReadAllText(Path.Combine(Point("s"), "file")));
        Same(["options"], operations.Observe(Point("s"), Remote($"root@127.0.0.1:{Sources}", server.Port, "allow_other", "default_permissions")).Top!.Differences!.Value);

        KernelError Refused() => Fails(operations, Remote($"root@127.0.0.1:{Sources}", FreePort()));
        var refused = Refused();
        // Its ssh may have ended before sshfs has written to it: then sshfs says that, and nothing of the connection.
        for (var i = 0; i < 3 && refused.Message.Contains("write: Broken pipe", StringComparison.Ordinal); i++) refused = Refused();
        // All that sshfs itself says of a port where nobody listens.
        Assert.Contains("sshfs ended with status 1, and said: read: Connection reset by peer", refused.Message, StringComparison.Ordinal);
        Assert.Equal(("ECONNRESET", true), (refused.Errno, refused.Transient));
        var missing = Fails(operations, Remote($"root@127.0.0.1:{Sources}/nowhere", server.Port));
        Assert.Equal("ENOENT", missing.Errno);
        // A server that the caller's known_hosts does not vouch for is not trusted, and nobody is asked.
        File.WriteAllText(server.KnownHosts, "");
        Fails(operations, Remote($"root@127.0.0.1:{Sources}", server.Port, "ConnectTimeout=5"));

        Assert.IsType<UnmountResult.Unmounted>(operations.Unmount(new UnmountOrder(Point("s"), mount.MountId, UnmountMode.Normal, [])));
        Until(() => ProcessesGiven(OwnStaging).Length == 0, "sshfs ends with its mount");
    }

    [RootFact]
    public void Helper_gets_an_argument_vector_a_clean_environment_and_nothing_of_ours()
    {
        var report = Path.Combine(Base, "report");
        Program("mount.fuse.probe", $"{{ printf '%s\\n' \"$@\"; echo --; env | grep -v -E '^(PWD|SHLVL|_|OLDPWD)='; echo --; ls -l /proc/$$/fd | grep -c -E 'socket:|secret|anon_inode'; ps -o pid=,pgid=,sid= -p $$; pwd; }} >{report}; echo 'failed as it should'; exit 3\n");
        using var secret = new FileStream(Path.Combine(Base, "secret"), FileMode.Create);
        var error = Fails(operations, Spec("fuse.probe", "it's $(touch /tmp/never) \"x\"", "one", "two=$HOME;id"));
        var parts = File.ReadAllText(report).Split("--\n");
        var arguments = parts[0].Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal("it's $(touch /tmp/never) \"x\"", arguments[0]);
        Assert.StartsWith(OwnStaging + "/", arguments[1], StringComparison.Ordinal);
        Same(["-o", "nosuid,nodev,one,two=$HOME;id"], arguments[2..]);
        Same(["LANG=C.UTF-8", HelperCommand.Environment[0]], parts[1].Split('\n', StringSplitOptions.RemoveEmptyEntries).Order(StringComparer.Ordinal));
        var rest = parts[2].Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal("0", rest[0]);
        var ids = rest[1].Split(' ', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal([ids[0], ids[0], ids[0]], ids);
        Assert.Equal("/", rest[2]);
        Assert.Contains("ended with status 3, and said: failed as it should", error.Message, StringComparison.Ordinal);
        Assert.False(File.Exists("/tmp/never"));
    }

    [RootFact]
    public void Helper_that_hangs_is_killed_with_all_that_it_started()
    {
        var pids = Path.Combine(Base, "pids");
        // One child in its group, one that has left it.
        Program("mount.fuse.hangs", $"trap '' TERM INT HUP\nsleep 300 &\necho $! >>{pids}\nsetsid sh -c 'echo $$ >>{pids}; sleep 301; :' \"$0\" \"$2\" &\necho $$ >>{pids}\necho so far\nwait\nsleep 302\n");
        (string Message, string[] Started) KilledAfter(int seconds)
        {
            File.WriteAllText(pids, "");
            var clock = Stopwatch.StartNew();
            var error = Fails(With(TimeSpan.FromSeconds(seconds)), Spec("fuse.hangs", "x"));
            Assert.InRange(clock.ElapsedMilliseconds, seconds * 1000 - 50, 60_000);
            Assert.Equal(("ETIMEDOUT", true), (error.Errno, error.Transient));
            Assert.Contains($"did not end within {seconds} s and was killed", error.Message, StringComparison.Ordinal);
            var started = File.ReadAllLines(pids);
            Until(() => started.All(pid => CommandOf($"/proc/{pid}").Length == 0), "all of them are dead");
            return (error.Message, started);
        }

        var (message, all) = KilledAfter(3);
        // On a loaded machine not all three may have begun in that time.
        if (all.Length < 3 || !message.Contains("said: so far", StringComparison.Ordinal)) (message, all) = KilledAfter(12);
        Assert.Contains("and was killed, and said: so far", message, StringComparison.Ordinal);
        Assert.Equal(3, all.Length);
    }

    [RootFact]
    public void Output_without_end_is_kept_to_its_last_64_kilobytes()
    {
        Program("mount.fuse.talks", "i=0; while [ $i -lt 20000 ]; do echo \"line $i of many words that mean nothing at all\"; i=$((i+1)); done; echo the end >&2; exit 1\n");
        var run = HelperProcess.Run(new HelperCommand(Path.Combine(programs, "mount.fuse.talks"), []), TimeSpan.FromSeconds(20));
        Assert.Equal(HelperProcess.OutputMax, run.Output.Length);
        Assert.EndsWith("the end\n", run.Output, StringComparison.Ordinal);
        var error = Fails(operations, Spec("fuse.talks", "x"));
        Assert.EndsWith("| the end)", error.Message, StringComparison.Ordinal);
        Assert.InRange(error.Message.Length, 1, 3000);
    }

    [RootFact]
    public void What_is_mounted_too_late_is_undone_and_never_seen_at_the_path()
    {
        var begun = Path.Combine(Base, "begun");
        var done = Path.Combine(Base, "done");
        // A daemon of its own session, without the path in its arguments, mounts when its helper's time is long up.
        var isOver = Path.Combine(Base, "over");
        Program("mount.fuse.late", $"export D=\"$2\"; setsid sh -c 'echo $$ >>{begun}; i=0; while [ ! -e {isOver} ] && [ $i -lt 600 ]; do sleep 0.05; i=$((i+1)); done; mount -t tmpfs late \"$D\" 2>/dev/null; echo $? >>{done}' </dev/null >/dev/null 2>&1 &\nsleep 60\n");
        Fails(With(TimeSpan.FromSeconds(2)), Spec("fuse.late", "x"));
        // On a loaded machine the daemon may not have begun in that time.
        if (!File.Exists(begun)) Fails(With(TimeSpan.FromSeconds(12)), Spec("fuse.late", "x"));
        Assert.True(File.Exists(begun), "the late one has not begun");
        File.WriteAllText(isOver, "");
        Until(() => File.Exists(done) && File.ReadAllLines(done).Length >= File.ReadAllLines(begun).Length, "the late one has tried");
        Assert.DoesNotContain("0", File.ReadAllLines(done));
        Assert.DoesNotContain(MountInfoReader.Read(out _), entry => entry.Mount.Source == "late");
        // One that mounts and then hangs: its mount is undone.
        Program("mount.fuse.both", "mount -t tmpfs both \"$2\"\nmount -t tmpfs both \"$2\"\nsleep 60\n");
        Fails(With(TimeSpan.FromMilliseconds(500)), Spec("fuse.both", "x"));
        Assert.DoesNotContain(MountInfoReader.Read(out _), entry => entry.Mount.Source == "both");
    }

    [RootFact]
    public void Helper_that_mounts_nothing_or_is_not_there_or_is_open_to_others_is_told_apart()
    {
        Program("mount.fuse.lies", "exit 0\n");
        Assert.Contains("ended with status 0 and mounted nothing, and said nothing", Fails(With(TimeSpan.FromSeconds(4)), Spec("fuse.lies", "x")).Message, StringComparison.Ordinal);
        var missing = Assert.IsType<PrepareResult.Failed>(operations.Prepare(++lastToken, Point("m"), Spec("fuse.rclone", "r:"))).Error;
        Assert.Equal("ENOENT", missing.Errno);
        Assert.Contains("mount.fuse.rclone, mount.rclone, rclonefs", missing.Message, StringComparison.Ordinal);
        File.SetUnixFileMode(Program("mount.fuse.open", "exit 0\n"), (UnixFileMode)Convert.ToInt32("777", 8));
        var open = Assert.IsType<PrepareResult.Failed>(operations.Prepare(++lastToken, Point("o"), Spec("fuse.open", "x"))).Error;
        Assert.Equal("EPERM", open.Errno);
        Assert.Contains("chmod go-w", open.Message, StringComparison.Ordinal);
        var killed = Fails(operations, Spec("fuse.dies", "x", Program("mount.fuse.dies", "kill -9 $$\n")[..0] + "a"));
        Assert.Contains("was ended by signal 9", killed.Message, StringComparison.Ordinal);
    }

    [RootTheory]
    [InlineData("-oallow_other", "a", "begin with '-'")]
    [InlineData("source", "a=b,dev", "no comma")]
    [InlineData("source", "a=b\\", "no backslash")]
    public void Value_that_could_be_a_flag_or_more_than_one_option_reaches_no_helper(string source, string option, string rule)
    {
        Program("mount.fuse.never", "echo reached; exit 1\n");
        var error = Fails(operations, Spec("fuse.never", source, option));
        Assert.Equal("EINVAL", error.Errno);
        Assert.Contains(rule, error.Message, StringComparison.Ordinal);
    }

    [RootFact]
    public void Staging_that_dead_workers_left_is_swept_and_that_of_living_ones_is_not()
    {
        // What a worker leaves that is killed while its helper runs.
        foreach (var worker in (string[])["1001", "1002"])
        {
            var root = Directory.CreateDirectory(Path.Combine(StagingDirectory, worker)).FullName;
            Run("mount", "-t", "tmpfs", "staging", root);
            Run("mount", "--make-private", root);
            var place = Directory.CreateDirectory(Path.Combine(root, "place")).FullName;
            Run("bindfs", Sources, place);
        }
        Same([Path.Combine(StagingDirectory, "1001", "place")], Staging.Sweep(StagingDirectory, ["1001"]));
        Same([Path.Combine(StagingDirectory, "1002")], Directory.GetDirectories(StagingDirectory));
        Until(() => ProcessesGiven(Path.Combine(StagingDirectory, "1001")).Length == 0, "the dead one's daemon is gone");
        Assert.Single(ProcessesGiven(Path.Combine(StagingDirectory, "1002")));
        Same(["1002"], Staging.WorkersIn(StagingDirectory));
        Assert.Single(Staging.Sweep(StagingDirectory, Staging.WorkersIn(StagingDirectory)));
        Assert.Empty(Staging.Sweep(StagingDirectory, ["1001", "1002", "1003"]));
        Assert.Empty(Directory.GetDirectories(StagingDirectory));
        Until(() => ProcessesGiven(StagingDirectory).Length == 0, "both daemons are gone");
    }

    [RootTheory]
    // What was asked for, a real line of mountinfo, what differs by meaning.
    [InlineData("fuse.bindfs", "/srv/a", "allow_other", "85 84 0:40 / /m ro,nosuid,nodev,relatime - fuse /srv/a ro,user_id=0,group_id=0,default_permissions,allow_other", "options")]
    [InlineData("fuse.bindfs", "/srv/a", "ro,allow_other", "85 84 0:40 / /m ro,nosuid,nodev,relatime - fuse /srv/a ro,user_id=0,group_id=0,default_permissions,allow_other", "")]
    [InlineData("fuse.bindfs", "/srv/b", "", "85 84 0:40 / /m rw,nosuid,nodev,relatime - fuse /srv/a rw,user_id=0,group_id=0", "source")]
    [InlineData("fuse.sshfs", "root@127.0.0.1:/srv", "port=22", "86 84 0:41 / /m rw,nosuid,nodev,relatime - fuse.sshfs root@127.0.0.1:/srv rw,user_id=0,group_id=0", "")]
    [InlineData("fuse.sshfs", "root@127.0.0.1:/srv", "allow_other", "86 84 0:41 / /m rw,nosuid,nodev,relatime - fuse.sshfs root@127.0.0.1:/srv/ rw,user_id=0,group_id=0", "options")]
    [InlineData("fuse.s3fs", "bucket", "", "90 84 0:42 / /m rw,nosuid,nodev,relatime - fuse.s3fs s3fs rw,user_id=0,group_id=0", "source")]
    [InlineData("fuse.s3fs", "bucket", "", "90 84 0:42 / /m rw,nosuid,nodev,relatime - fuse.s3fs bucket rw,user_id=0,group_id=0", "")]
    [InlineData("fuse.rclone", "remote:dir", "", "91 84 0:43 / /m rw,nosuid,nodev,relatime - fuse.rclone remote{AbC1x}:dir rw,user_id=0,group_id=0", "")]
    [InlineData("nfs", "server:/export", "vers=4,hard", "92 84 0:44 / /m rw,nosuid,nodev,relatime - nfs4 server:/export rw,vers=4.2,rsize=1048576,hard,proto=tcp,timeo=600", "")]
    [InlineData("nfs", "server:/export", "vers=3", "92 84 0:44 / /m rw,nosuid,nodev,relatime - nfs4 server:/export rw,vers=4.2,hard", "options")]
    [InlineData("nfs", "server:/export", "soft", "92 84 0:44 / /m rw,nosuid,nodev,relatime - nfs server:/export/ rw,vers=3,hard", "options")]
    [InlineData("cifs", "//files/Share", "vers=3.1.1", "93 84 0:45 / /m rw,nosuid,nodev,relatime - cifs //FILES/share rw,vers=3.1.1,cache=strict,username=bob", "")]
    [InlineData("glusterfs", "server:/volume", "", "94 84 0:46 / /m rw,nosuid,nodev,relatime - fuse.glusterfs server:volume rw,user_id=0,group_id=0,allow_other", "")]
    [InlineData("fuse.sshfs", "h:/a", "", "95 84 0:47 / /m rw,nosuid,nodev,relatime - tmpfs h:/a rw", "fstype")]
    public void Observed_mount_of_a_helper_is_compared_by_meaning(string type, string source, string options, string line, string differs)
    {
        var entry = Assert.Single(MountInfoReader.Parse(System.Text.Encoding.UTF8.GetBytes(line), out var odd));
        Assert.Empty(odd);
        var wanted = new MountSpec(source, type, [.. options.Split(',', StringSplitOptions.RemoveEmptyEntries), "nodev", "nosuid"]);
        Assert.Equal(differs, string.Join(',', MountComparison.Differences(wanted, new MountTable.Found(entry.Mount, entry.DeviceMajor, entry.DeviceMinor))));
    }

    [RootFact]
    public async Task Server_that_is_dead_or_hangs_is_told_by_a_probe_and_holds_up_no_other()
    {
        await using var host = new WorkerMountHost(
            new WorkerOptions(Path.Combine(AppContext.BaseDirectory, "mountledger-test-worker"), [], [Root], Path.Combine(Base, "run")) { LookDeadline = TimeSpan.FromSeconds(3) });
        await host.StartAsync(CancellationToken.None);
        async Task<AttachResult.Attached> MountedAsync(string name, MountSpec spec) => Assert.IsType<AttachResult.Attached>(await host.AttachAsync(
            Assert.IsType<PrepareResult.Ready>(await host.PrepareAsync(Point(name), spec, CancellationToken.None)).Mount, CancellationToken.None));
        Task<string?> ProbeAsync(string name) => host.ProbeAsync(Point(name), null, CancellationToken.None);
        IEnumerable<int> Daemons() => ProcessesGiven(Path.Combine(Base, "run", "staging") + "/")
            .Where(pid => CommandOf($"/proc/{pid}").StartsWith("/usr/bin/bindfs", StringComparison.Ordinal));

        var local = host.WorkerPid;
        var daemons = new List<int>();
        foreach (var name in (string[])["dead", "hung", "well"])
        {
            await MountedAsync(name, Spec("fuse.bindfs", Sources, "attr_timeout=0"));
            // Whoever is new is its daemon: a later one may have a lower pid.
            daemons.Add(Assert.Single(Daemons().Except(daemons)));
        }
        await MountedAsync("local", Tmpfs());
        // The first look of a worker that has just been started may take longer than a look may.
        Until(() => ProbeAsync("dead").Result is null, "the first one is well");
        Until(() => ProbeAsync("local").Result is null, "so is what has no server");
        RootSignal.Send(daemons[0], "KILL");
        RootSignal.Send(daemons[1], "STOP");
        try
        {
            Until(() => ProbeAsync("dead").Result == "ENOTCONN", "the dead one is told");
            for (var i = 0; i < 40; i++) Assert.Equal("ETIMEDOUT", await ProbeAsync("hung"));
            // Another answer than none is a machine's that stood still for longer than a look may take.
            Until(() => ProbeAsync("well").Result is null, "the one that is well is told as such");
            Until(() => ProbeAsync("local").Result is null, "what has no server is well still");
            Assert.Single((await host.ObserveAsync(Point("hung"), null, CancellationToken.None)).Mounts);
            Assert.Equal((local, 0L, 0), (host.WorkerPid, host.Counters.WrittenOff, host.Counters.Stuck));
            Assert.InRange(host.Counters.Running, 2, 4);
        }
        finally
        {
            RootSignal.Send(daemons[1], "CONT");
        }
        Until(() => ProbeAsync("hung").Result is null, "it answers again");
    }

    [Fact]
    public void Worker_and_catalogue_agree_on_which_types_need_a_program() => Assert.All(
        FilesystemCatalog.All, filesystem => Assert.Equal(!filesystem.ByHelper, MountPlan.IsKernelType(filesystem.Type)));
}
