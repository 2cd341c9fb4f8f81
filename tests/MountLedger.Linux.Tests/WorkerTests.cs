using System.Diagnostics;
using System.Globalization;
using MountLedger.Linux.Interop;
using MountLedger.Tests;

namespace MountLedger.Linux.Tests;

/// <summary>The worker process: what it does, and what becomes of its operations when it dies, freezes or hears garbage.</summary>
public sealed class WorkerTests : KernelTest, IAsyncLifetime
{
    private readonly WorkerMountHost host;

    public WorkerTests() => host = Host(TimeSpan.FromSeconds(20));

    public Task InitializeAsync() => host.StartAsync(CancellationToken.None);

    public async Task DisposeAsync() => await host.DisposeAsync();

    private string RunDirectory => Path.Combine(Base, "run");

    private WorkerOptions Options => new(Path.Combine(AppContext.BaseDirectory, "mountledger-test-worker"), [], [Root], RunDirectory);

    private WorkerMountHost Host(TimeSpan deadline) => new(Options with { OperationDeadline = deadline });

    private static async Task<PreparedMount> PrepareAsync(WorkerMountHost on, string mountpoint) =>
        Assert.IsType<PrepareResult.Ready>(await on.PrepareAsync(mountpoint, Tmpfs(), CancellationToken.None)).Mount;

    [RootFact]
    public async Task Mount_observe_and_unmount_go_through_the_worker()
    {
        var prepared = await PrepareAsync(host, Point("w/x"));
        var attached = Assert.IsType<AttachResult.Attached>(await host.AttachAsync(prepared, CancellationToken.None));
        Assert.Equal(prepared.MountId, attached.MountId);
        var observed = await host.ObserveAsync(Point("w/x"), Tmpfs(), CancellationToken.None);
        Assert.Equal(attached.MountId, observed.Top!.MountId);
        Assert.Empty(observed.Top.Differences!.Value);
        Assert.Contains(await host.ListAsync(CancellationToken.None), mount => mount.MountId == attached.MountId);
        var occupied = await host.PrepareAsync(Point("w/x"), Tmpfs("size=1M"), CancellationToken.None);
        Same(["options"], Assert.IsType<PrepareResult.Occupied>(occupied).Found.Top!.Differences!.Value);
        var order = new UnmountOrder(Point("w/x"), attached.MountId, UnmountMode.Normal, attached.DirectoriesCreated);
        Same(attached.DirectoriesCreated, Assert.IsType<UnmountResult.Unmounted>(await host.UnmountAsync(order, CancellationToken.None)).DirectoriesRemoved);
        Assert.IsType<UnmountResult.NotMounted>(await host.UnmountAsync(order, CancellationToken.None));
    }

    [RootFact]
    public async Task Kernel_error_comes_through_whole()
    {
        var result = await host.PrepareAsync(Point("w"), Tmpfs("nonsense"), CancellationToken.None);
        Assert.Contains("Unknown parameter 'nonsense'", Assert.IsType<PrepareResult.Failed>(result).Error.Message, StringComparison.Ordinal);
    }

    [RootFact]
    public async Task What_is_asked_after_the_end_is_answered_and_not_done()
    {
        var prepared = await PrepareAsync(host, Point("w"));
        await host.DisposeAsync();

        Assert.Equal("EAGAIN", Assert.IsType<PrepareResult.Failed>(await host.PrepareAsync(Point("x"), Tmpfs(), CancellationToken.None)).Error.Errno);
        Assert.IsType<AttachResult.Unknown>(await host.AttachAsync(prepared, CancellationToken.None));
        Assert.IsType<UnmountResult.Failed>(await host.UnmountAsync(new UnmountOrder(Point("w"), prepared.MountId, UnmountMode.Normal, []), CancellationToken.None));
        Assert.Empty((await host.ObserveAsync(Point("w"), Tmpfs(), CancellationToken.None)).Mounts);
    }

    [RootFact]
    public async Task Many_operations_run_at_once()
    {
        var all = Enumerable.Range(0, 100).Select(async n =>
        {
            var attached = (AttachResult.Attached)await host.AttachAsync(await PrepareAsync(host, Point($"many/{n}")), CancellationToken.None);
            return await host.UnmountAsync(new UnmountOrder(Point($"many/{n}"), attached.MountId, UnmountMode.Normal, []), CancellationToken.None);
        });
        Assert.All(await Task.WhenAll(all), result => Assert.IsType<UnmountResult.Unmounted>(result));
    }

    [RootFact]
    public async Task Discarded_mount_is_gone_from_the_worker()
    {
        int Held() => Directory.GetFileSystemEntries($"/proc/{host.WorkerPid}/fd").Length;
        await host.DiscardAsync(await PrepareAsync(host, Point("d"))); // The first one opens more than its own.
        await Task.Delay(200);
        var before = Held();
        var prepared = await PrepareAsync(host, Point("d"));
        Assert.True(Held() > before);
        await host.DiscardAsync(prepared);
        // It has no answer, and another thread of the worker may be quicker with what is asked next.
        await WaitFor(() => Held() <= before);
        Assert.Equal("ESTALE", Assert.IsType<AttachResult.Failed>(await host.AttachAsync(prepared, CancellationToken.None)).Error.Errno);
    }

    [RootFact]
    public async Task Worker_killed_within_an_attach_leaves_it_unknown_and_is_replaced()
    {
        var prepared = await PrepareAsync(host, Point("k"));
        var pid = host.WorkerPid!.Value;
        RootSignal.Send(pid, "STOP");
        var attach = host.AttachAsync(prepared, CancellationToken.None);
        var observe = host.ObserveAsync(Point("k"), null, CancellationToken.None);
        var prepare = host.PrepareAsync(Point("k2"), Tmpfs(), CancellationToken.None);
        RootSignal.Send(pid, "KILL");
        Assert.IsType<AttachResult.Unknown>(await attach);
        Assert.Empty((await observe).Mounts);
        var failed = Assert.IsType<PrepareResult.Failed>(await prepare);
        Assert.Equal(("ECONNRESET", true), (failed.Error.Errno, failed.Error.Transient));
        Assert.IsType<AttachResult.Attached>(await host.AttachAsync(await PrepareAsync(host, Point("k")), CancellationToken.None));
        Assert.NotEqual(pid, host.WorkerPid);
        Assert.Equal(1, host.Counters.Died);
    }

    [RootFact]
    public async Task Prepared_mount_of_a_dead_worker_is_for_the_settling_to_look_at()
    {
        var prepared = await PrepareAsync(host, Point("k"));
        RootSignal.Send(host.WorkerPid!.Value, "KILL");
        await WaitFor(() => host.WorkerPid is null);
        Assert.IsType<AttachResult.Unknown>(await host.AttachAsync(prepared, CancellationToken.None));
        Assert.Empty((await host.ObserveAsync(prepared.Mountpoint, null, CancellationToken.None)).Mounts);
    }

    [RootFact]
    public async Task Frozen_worker_is_written_off_at_the_deadline_and_the_next_operation_works()
    {
        await using var hasty = Host(TimeSpan.FromSeconds(5));
        var prepared = await PrepareAsync(hasty, Point("f"));
        var pid = hasty.WorkerPid!.Value;
        RootSignal.Send(pid, "STOP");
        var clock = Stopwatch.StartNew();
        var attach = hasty.AttachAsync(prepared, CancellationToken.None);
        var prepare = hasty.PrepareAsync(Point("f2"), Tmpfs(), CancellationToken.None);
        Assert.Contains("5 s", Assert.IsType<AttachResult.Unknown>(await attach).Reason, StringComparison.Ordinal);
        var failed = Assert.IsType<PrepareResult.Failed>(await prepare);
        Assert.Equal(("ETIMEDOUT", true), (failed.Error.Errno, failed.Error.Transient));
        Assert.InRange(clock.ElapsedMilliseconds, 4500, 20_000);
        await PrepareAsync(hasty, Point("f"));
        Assert.NotEqual(pid, hasty.WorkerPid);
        Assert.Equal(1, hasty.Counters.WrittenOff);
        await hasty.QuiesceAsync(Point("f"), CancellationToken.None);
        await WaitFor(() => !Directory.Exists($"/proc/{pid}") && hasty.Counters.Stuck == 0);
    }

    [RootFact]
    public async Task Quiesce_ends_the_worker_that_still_acts_on_the_mountpoint_and_no_other()
    {
        var prepared = await PrepareAsync(host, Point("q"));
        var pid = host.WorkerPid!.Value;
        await host.QuiesceAsync(Point("q"), CancellationToken.None);
        Assert.Equal(pid, host.WorkerPid);
        RootSignal.Send(pid, "STOP");
        var attach = host.AttachAsync(prepared, CancellationToken.None);
        await host.QuiesceAsync(Point("elsewhere"), CancellationToken.None);
        Assert.True(Directory.Exists($"/proc/{pid}"));
        await host.QuiesceAsync(Point("q"), CancellationToken.None);
        Assert.IsType<AttachResult.Unknown>(await attach);
        Assert.Empty(MountTable.ByPath(Point("q")));
        await WaitFor(() => !Directory.Exists($"/proc/{pid}"));
    }

    [RootFact]
    public async Task Workers_of_an_earlier_agent_are_killed()
    {
        var pid = host.WorkerPid!.Value;
        await using var later = Host(TimeSpan.FromSeconds(20));
        // On a loaded machine it may take longer to die than is waited for, and is told as stuck.
        Assert.All(await later.KillEarlierWorkersAsync(CancellationToken.None), stuck => Assert.Equal(pid, stuck));
        await WaitFor(() => !Directory.Exists($"/proc/{pid}") && later.Counters.Stuck == 0);
        await later.StartAsync(CancellationToken.None);
        Assert.Single(Directory.GetFiles(Path.Combine(RunDirectory, "workers")));
    }

    [RootFact]
    public async Task Record_of_a_pid_that_was_used_again_kills_nobody()
    {
        using var stranger = Process.Start("sleep", "60");
        try
        {
            var record = Path.Combine(RunDirectory, "workers", stranger.Id.ToString(CultureInfo.InvariantCulture));
            File.WriteAllText(record, $"{KernelIdentityReader.ReadBootId()} 1 /usr/bin/sleep\n");
            await using var later = Host(TimeSpan.FromSeconds(20));
            await later.KillEarlierWorkersAsync(CancellationToken.None);
            Assert.False(stranger.HasExited);
            Assert.False(File.Exists(record));
        }
        finally
        {
            stranger.Kill();
            await stranger.WaitForExitAsync();
        }
    }

    [RootFact]
    public async Task Worker_ends_with_its_agent_and_not_by_a_polite_signal()
    {
        var pid = host.WorkerPid!.Value;
        RootSignal.Send(pid, "TERM");
        RootSignal.Send(pid, "INT");
        await PrepareAsync(host, Point("t"));
        Assert.Equal(pid, host.WorkerPid);
        await host.DisposeAsync();
        await WaitFor(() => !Directory.Exists($"/proc/{pid}") && Directory.GetFiles(Path.Combine(RunDirectory, "workers")).Length == 0);
    }

    [RootFact]
    public void Worker_has_one_socket_no_new_privileges_and_its_own_group()
    {
        var pid = host.WorkerPid!.Value;
        var sockets = Directory.GetFiles($"/proc/{pid}/fd").Select(PathCalls.ReadLink).Where(link => link?.StartsWith("socket:", StringComparison.Ordinal) == true);
        Assert.Single(sockets);
        Assert.Contains("NoNewPrivs:\t1", File.ReadAllText($"/proc/{pid}/status"), StringComparison.Ordinal);
        var stat = File.ReadAllText($"/proc/{pid}/stat");
        Assert.Equal(pid.ToString(CultureInfo.InvariantCulture), stat[(stat.LastIndexOf(')') + 2)..].Split(' ')[2]);
        Assert.DoesNotContain("SECRET", File.ReadAllText($"/proc/{pid}/environ"), StringComparison.Ordinal);
    }

    [RootTheory]
    [InlineData(new byte[] { 0xff, 0xff, 0xff, 0x7f, 1, 2, 3 })]
    [InlineData(new byte[] { 3, 0, 0, 0, 0x7b, 0x7b, 0x7b })]
    [InlineData(new byte[] { 0, 0, 0, 0 })]
    [InlineData(new byte[] { 4, 0, 0, 0, 0x6e, 0x75, 0x6c, 0x6c })]
    public void Garbage_on_the_channel_is_refused(byte[] garbage)
    {
        Assert.Equal(0, SocketCalls.Pair(out var ours, out var theirs));
        using var ourEnd = ours!;
        using var channel = new WorkerChannel(theirs!);
        Assert.Equal(0, SocketCalls.SendAll(ourEnd.Number, garbage));
        Assert.Throws<InvalidDataException>(() => channel.Receive(WorkerJson.Default.WorkerRequest));
    }

    [RootFact]
    public async Task Missing_program_is_reported_as_unavailable_and_transient()
    {
        await using var broken = new WorkerMountHost(Options with { FileName = "/nonexistent/mountledgerd" });
        await Assert.ThrowsAsync<WorkerUnavailableException>(() => broken.StartAsync(CancellationToken.None));
        var failed = Assert.IsType<PrepareResult.Failed>(await broken.PrepareAsync(Point("x"), Tmpfs(), CancellationToken.None));
        Assert.Contains("/nonexistent/mountledgerd", failed.Error.Message, StringComparison.Ordinal);
        Assert.True(failed.Error.Transient);
    }

    private static async Task WaitFor(Func<bool> condition)
    {
        var clock = Stopwatch.StartNew();
        while (!condition())
        {
            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(30), "it does not come to be so");
            await Task.Delay(10);
        }
    }
}
