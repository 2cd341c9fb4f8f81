using System.Diagnostics;

namespace MountLedger.EndToEnd;

/// <summary>
/// What somebody does to our mounts by hand while the agent watches: noticed because the kernel tells it (the slow audit is switched off
/// where it is not the subject), recorded once, and repaired or only reported as section 6 of the contract says.
/// </summary>
public sealed class WatchedDriftTests(PostgresServer server) : IClassFixture<PostgresServer>
{
    private static readonly DriftOptions ToldOnly = new()
    {
        AuditInterval = Timeout.InfiniteTimeSpan,
        AuditPause = TimeSpan.FromMilliseconds(50),
        ForeignAfter = TimeSpan.FromMilliseconds(200),
    };

    [RootFact]
    public async Task A_mount_that_somebody_takes_away_is_recorded_once_and_made_again()
    {
        await using var host = await TestHost.StartAsync(server, drift: ToldOnly);
        var path = host.PathOf("a");
        await host.MountAsync(path, "a");
        var first = (await host.StateAsync(path)).Kernel!.MountId;

        Shell.Unmount(path);

        var state = await host.UntilAsync(path, state => state.Kernel is { } kernel && kernel.MountId != first);
        Assert.Single(TestHost.MountsAt(path));
        Assert.Empty(state.Drift);
        Assert.Equal("a", Assert.Single(state.Attachments).Consumer);
        Assert.Equal(
            ["drift_detected", "mount_started", "mounted", "drift_resolved"], (await host.EventsAsync(path)).Skip(4));
    }

    [RootFact]
    public async Task Nested_mounts_that_are_taken_away_together_come_back_parents_first()
    {
        await using var host = await TestHost.StartAsync(server, drift: ToldOnly);
        var (parent, child) = (host.PathOf("a"), host.PathOf("a/b/c"));
        await host.MountAsync(parent, "a");
        await host.MountAsync(child, "b");
        var (first, second) = ((await host.StateAsync(parent)).Kernel!.MountId, (await host.StateAsync(child)).Kernel!.MountId);

        // Lazily, so that both go in one step: one by one, the child would be back before its parent is asked.
        Shell.Run("umount", "--lazy", parent);

        await host.UntilAsync(parent, state => state.Kernel is { } kernel && kernel.MountId != first);
        await host.UntilAsync(child, state => state.Kernel is { } kernel && kernel.MountId != second);
        Assert.Single(TestHost.MountsAt(parent));
        Assert.Equal("tmpfs", Shell.Run("findmnt", "--noheadings", "--output", "FSTYPE", "--mountpoint", child).Trim());
    }

    [RootFact]
    public async Task What_binds_from_a_mount_that_is_gone_waits_for_it()
    {
        await using var host = await TestHost.StartAsync(server, drift: ToldOnly);
        var (source, bound) = (host.PathOf("z"), host.PathOf("a"));
        await host.MountAsync(source, "a");
        Directory.CreateDirectory(Path.Combine(source, "part"));
        await host.MountAsync(bound, "b", spec: new MountSpec(source, "bind", ["nodev", "nosuid"]));
        var first = (await host.StateAsync(bound)).Kernel!.MountId;
        await host.HostAsync(up: false);
        Shell.Unmount(bound);
        Shell.Unmount(source);
        await host.UntilAsync(bound, state => state.Drift.ContainsKey(DriftKind.Missing));
        await host.UntilAsync(source, state => state.Drift.ContainsKey(DriftKind.Missing));

        await host.HostAsync(up: true);

        await host.UntilAsync(bound, state => state.Kernel is { } kernel && kernel.MountId != first);
        File.WriteAllText(Path.Combine(source, "seen"), "");
        Assert.True(File.Exists(Path.Combine(bound, "seen")), "it shows the directory below the mount");
    }

    [RootFact]
    public async Task Other_options_are_reported_and_left_until_they_are_as_wanted()
    {
        await using var host = await TestHost.StartAsync(server, drift: ToldOnly);
        var path = host.PathOf("a");
        await host.MountAsync(path, "a", spec: TestHost.Tmpfs("scratch", "size=1m"));

        RemountInOneCall(path, "remount,ro,nosuid,nodev,size=2m");

        var state = await host.UntilAsync(path, state => state.Drift.ContainsKey(DriftKind.OptionsMismatch));
        Assert.Contains("with ro", state.Drift[DriftKind.OptionsMismatch], StringComparison.Ordinal);
        Assert.Contains("instead of size=1m", state.Drift[DriftKind.OptionsMismatch], StringComparison.Ordinal);
        Assert.Equal(Phase.Mounted, state.Phase);

        RemountInOneCall(path, "remount,rw,nosuid,nodev,size=1m");
        await host.UntilAsync(path, state => state.Drift.IsEmpty);
        Assert.Equal(["drift_detected", "drift_resolved"], (await host.EventsAsync(path)).Skip(4));
        Assert.Equal(1, host.Kernel.Mounts);
    }

    /// <summary>The program's newer way takes several, and whoever looks in between sees, and records, half of it.</summary>
    private static void RemountInOneCall(string path, string options) => Shell.Run("env", "LIBMOUNT_FORCE_MOUNT2=always", "mount", "-o", options, path);

    [RootFact]
    public async Task A_mount_that_is_covered_is_reported_and_nothing_is_taken_away()
    {
        await using var host = await TestHost.StartAsync(server, drift: ToldOnly);
        var path = host.PathOf("a");
        await host.MountAsync(path, "a");

        Shell.Run("mount", "-t", "tmpfs", "stranger", path);
        var state = await host.UntilAsync(path, state => state.Drift.ContainsKey(DriftKind.Stacked));
        Assert.Contains("stranger", state.Drift[DriftKind.Stacked], StringComparison.Ordinal);
        Assert.Equal(2, TestHost.MountsAt(path).Length);

        Shell.Unmount(path);
        await host.UntilAsync(path, state => state.Drift.IsEmpty);
        Assert.Equal((1, 0), (host.Kernel.Mounts, host.Kernel.Unmounts));
    }

    [RootFact]
    public async Task A_moved_mount_is_not_missing()
    {
        await using var host = await TestHost.StartAsync(server, drift: ToldOnly);
        var (path, elsewhere) = (host.PathOf("a"), host.Outside("elsewhere"));
        await host.MountAsync(path, "a");

        Shell.Run("mount", "--move", path, elsewhere);
        var state = await host.UntilAsync(path, state => state.Drift.ContainsKey(DriftKind.Moved));
        Assert.Equal($"now at {elsewhere}", state.Drift[DriftKind.Moved]);
        Assert.Empty(TestHost.MountsAt(path));

        Shell.Run("mount", "--move", elsewhere, path);
        await host.UntilAsync(path, state => state.Drift.IsEmpty);
        Assert.Equal(1, host.Kernel.Mounts);
    }

    [RootFact]
    public async Task A_renamed_parent_is_found_by_the_audit()
    {
        await using var host = await TestHost.StartAsync(
            server, drift: ToldOnly with { AuditInterval = TimeSpan.FromMilliseconds(300) });
        var path = host.PathOf("up/a");
        await host.MountAsync(path, "a");

        Directory.Move(host.PathOf("up"), host.PathOf("down"));
        var state = await host.UntilAsync(path, state => state.Drift.ContainsKey(DriftKind.Moved));
        Assert.Equal($"now at {host.PathOf("down/a")}", state.Drift[DriftKind.Moved]);

        Directory.Move(host.PathOf("down"), host.PathOf("up"));
        await host.UntilAsync(path, state => state.Drift.IsEmpty);
        Assert.Equal(1, host.Kernel.Mounts);
    }

    [RootFact]
    public async Task A_mountpoint_that_is_removed_from_another_namespace_is_mounted_again()
    {
        await using var host = await TestHost.StartAsync(server, drift: ToldOnly);
        var path = host.PathOf("a");
        await host.MountAsync(path, "a");
        var first = (await host.StateAsync(path)).Kernel!.MountId;

        Shell.Run("unshare", "--mount", "--propagation", "private", "sh", "-c", "umount \"$0\" && rmdir \"$0\"", path);

        await host.UntilAsync(path, state => state.Kernel is { } kernel && kernel.MountId != first);
        Assert.Single(TestHost.MountsAt(path));
    }

    [RootFact]
    public async Task Data_that_was_written_while_the_mount_was_missing_is_not_hidden()
    {
        await using var host = await TestHost.StartAsync(
            server, drift: ToldOnly with { AuditInterval = TimeSpan.FromMilliseconds(300) });
        var path = host.PathOf("a");
        await host.MountAsync(path, "a");
        await host.HostAsync(up: false, "an operator works on it");
        Shell.Unmount(path);
        await host.UntilAsync(path, state => state.Drift.ContainsKey(DriftKind.Missing));
        File.WriteAllText(Path.Combine(path, "precious"), "");

        await host.HostAsync(up: true);
        var state = await host.UntilAsync(path, state => state.Drift.ContainsKey(DriftKind.ShadowedData));
        Assert.Empty(TestHost.MountsAt(path));
        Assert.True(state.Attachments.Count == 1, "the holder stays");

        File.Delete(Path.Combine(path, "precious"));
        await host.UntilAsync(path, state => state is { Phase: Phase.Mounted, Drift.IsEmpty: true });
    }

    [RootFact]
    public async Task What_lay_below_before_the_mount_is_no_reason_to_wait()
    {
        await using var host = await TestHost.StartAsync(server, drift: ToldOnly);
        var path = host.PathOf("a");
        Directory.CreateDirectory(path);
        File.WriteAllText(Path.Combine(path, "old"), "");
        await host.MountAsync(path, "a");
        var first = (await host.StateAsync(path)).Kernel!.MountId;

        Shell.Unmount(path);

        await host.UntilAsync(path, state => state.Kernel is { } kernel && kernel.MountId != first);
    }

    [RootFact]
    public async Task A_foreign_mount_below_a_root_is_reported_and_never_touched_and_one_that_goes_at_once_is_not()
    {
        await using var host = await TestHost.StartAsync(server, drift: ToldOnly);
        var lasting = Directory.CreateDirectory(host.PathOf("lasting")).FullName;
        string[] passing = [.. Enumerable.Range(0, 5).Select(number => Directory.CreateDirectory(host.PathOf($"passing{number}")).FullName)];

        // Mounted and unmounted by one program, right after each other.
        foreach (var path in passing) Shell.Run(RootProgram.Path("flood"), "1", path);
        Shell.Run("mount", "-t", "tmpfs", "stranger", lasting);
        await host.UntilAsync(lasting, state => state.Drift.ContainsKey(DriftKind.Foreign));
        Assert.Single(TestHost.MountsAt(lasting));

        Shell.Unmount(lasting);
        await host.UntilAsync(lasting, state => state.Drift.IsEmpty);
        Assert.Equal(["drift_detected", "drift_resolved"], await host.EventsAsync(lasting));
        // The machine may have stood still in the midst of one of them, which then has lasted.
        var told = 0;
        foreach (var path in passing) told += (await host.EventsAsync(path)).Length > 0 ? 1 : 0;
        Assert.InRange(told, 0, 1);
    }

    [RootFact]
    public async Task Operations_of_our_own_are_no_drift_under_load_either()
    {
        await using var host = await TestHost.StartAsync(
            server, drift: ToldOnly with { AuditInterval = TimeSpan.FromMilliseconds(20), AuditPause = TimeSpan.FromMilliseconds(1) });
        string[] paths = [.. Enumerable.Range(0, 24).Select(i => host.PathOf($"m{i % 8}/n{i}"))];

        await Task.WhenAll(paths.Select(async path =>
        {
            for (var round = 0; round < 25; round++)
            {
                Assert.IsType<CommandResult.Done>(await host.MountAsync(path, "a"));
                Assert.IsType<CommandResult.Done>(await host.UnmountAsync(path, "a"));
            }
        }));

        foreach (var path in paths) Assert.DoesNotContain("drift_detected", await host.EventsAsync(path));
        Assert.Equal((600, 600), (host.Kernel.Mounts, host.Kernel.Unmounts));
        Assert.True(host.Node.Watch!.Audits > 10, $"only {host.Node.Watch.Audits} audits ran meanwhile");
    }

    [RootFact]
    public async Task A_mount_that_vanishes_is_in_the_ledger_within_moments()
    {
        await using var host = await TestHost.StartAsync(server, drift: ToldOnly);
        var path = host.PathOf("a");
        await host.MountAsync(path, "a");
        // The umount program alone takes some milliseconds of it, and a loaded machine adds to most of the tries.
        const int Rounds = 20;
        var moments = TimeSpan.FromMilliseconds(200);
        var quickest = TimeSpan.MaxValue;
        for (var round = 0; round < Rounds && quickest >= moments; round++)
        {
            var before = (await host.StateAsync(path)).Version;
            var began = Stopwatch.GetTimestamp();
            Shell.Unmount(path);
            var seen = await host.Node.Live.WaitAsync(path, state => state.Version > before, CancellationToken.None);
            var took = Stopwatch.GetElapsedTime(began);
            Assert.True(seen.Version > before);
            if (took < quickest) quickest = took;
            await host.UntilAsync(path, state => state.Phase == Phase.Mounted && state.Drift.IsEmpty);
        }
        Assert.True(quickest < moments, $"the quickest of {Rounds} took {quickest.TotalMilliseconds} ms");
    }
}
