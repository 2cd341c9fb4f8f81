using System.Collections.Concurrent;
using static MountLedger.EndToEnd.AgentRequests;

namespace MountLedger.EndToEnd;

/// <summary>The agent dies, or is told to stop, with mounts present and in the middle of its work; the next one finds everything.</summary>
[Collection(AgentSuite.Name)]
public sealed class AgentRecoveryTests(AgentSuite suite)
{
    [RootFact]
    public async Task After_kill_a_mount_that_vanished_is_repaired_and_the_others_are_untouched()
    {
        await using var agent = await suite.StartAsync();
        for (var i = 0; i < 5; i++) Assert.Equal("mounted", (await agent.MountAsync($"m{i}", "c")).Outcome);
        var before = agent.Mounts().ToDictionary(mount => mount.Path, mount => mount.MountId);

        await agent.KillAsync();
        Shell.Unmount(agent.PathOf("m2"));
        await agent.StartAgainAsync();
        await agent.UntilAsync(async () => (await agent.EventsAsync("m2")).Skip(5).Contains("mounted"), "it is made again, and recorded");
        Assert.Equal(5, agent.Mounts().Length);

        var after = agent.Mounts().ToDictionary(mount => mount.Path, mount => mount.MountId);
        Assert.Equal(before.Keys.Order(), after.Keys.Order());
        foreach (var path in before.Keys.Where(path => path != agent.PathOf("m2"))) Assert.Equal(before[path], after[path]);
        Assert.NotEqual(before[agent.PathOf("m2")], after[agent.PathOf("m2")]);
        var events = await agent.EventsAsync("m2");
        Assert.Equal("drift_detected", events[4]);
        Assert.Contains("mounted", events[5..]);
        Assert.Equal(["mount_requested", "attachment_added", "mount_started", "mounted"], await agent.EventsAsync("m1"));
        Assert.Equal(["agent_started", "agent_started"], await agent.EventsAsync("@host"));
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task Kill_of_agent_and_worker_amid_many_mounts_loses_nothing_that_was_answered()
    {
        await using var agent = await suite.StartAsync();
        var answered = new ConcurrentDictionary<(string Name, string Consumer), bool>();
        for (var round = 0; round < 4; round++)
        {
            var begun = 0;
            var callers = Enumerable.Range(0, 16).Select(caller => Task.Run(async () =>
            {
                for (var i = 0; i < 40; i++)
                {
                    // A third of them share mountpoints, so that there are attaches and detaches of others in between.
                    var (name, consumer) = (i % 3 == 0 ? $"shared{i}" : $"r{round}-{caller}-{i}", $"c{round}-{caller}");
                    try
                    {
                        Interlocked.Increment(ref begun);
                        if ((await ServedAsync(() => agent.MountAsync(name, consumer))).Status != 200) return;
                        answered[(name, consumer)] = true;
                        if (i % 4 != 3) continue;
                        answered.TryRemove((name, consumer), out _); // From here it is open until the detach is answered.
                        if ((await ServedAsync(() => agent.UnmountAsync(name, consumer))).Status != 200) return;
                    }
                    catch (HttpRequestException)
                    {
                        return;
                    }
                }
            })).ToArray();
            await agent.UntilAsync(() => Task.FromResult(Volatile.Read(ref begun) > 60 * (round + 1)), "work is under way");
            await agent.KillWithWorkersAsync();
            await Task.WhenAll(callers);
            await agent.StartAgainAsync();
        }
        await agent.UntilAsync(
            async () => (await agent.StatesAsync()).All(state => state.Phase is Phase.Mounted or Phase.Absent && state.Operation is null),
            "every operation has an outcome", secondsMax: 60);

        var states = await agent.StatesAsync();
        var held = states.SelectMany(state => state.Attachments.Keys.Select(key => (Path.GetRelativePath(agent.Root, state.Mountpoint), key.Consumer)));
        Assert.Empty(answered.Keys.Except(held));
        Assert.All(states, state => Assert.Equal(state.Attachments.Count > 0 ? Phase.Mounted : Phase.Absent, state.Phase));
        // Equal as lists, not as sets: a mount that was made twice would be there twice.
        Assert.Equal(
            states.Where(state => state.Phase == Phase.Mounted).Select(state => state.Mountpoint).Order(StringComparer.Ordinal),
            agent.Mounts().Select(mount => mount.Path).Order(StringComparer.Ordinal));
        Assert.True(answered.Count > 50, $"only {answered.Count} were answered: this tested little");
        await NoOperationIsWithoutOutcomeAsync(agent);
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task Told_to_stop_it_finishes_what_runs_and_the_next_start_does_nothing()
    {
        await using var agent = await suite.StartAsync();
        using var told = new CancellationTokenSource();
        var begun = 0;
        var callers = Enumerable.Range(0, 16).Select(caller => Task.Run(async () =>
        {
            var mine = new List<string>();
            for (var i = 0; i < 200; i++)
            {
                try
                {
                    Interlocked.Increment(ref begun);
                    var name = $"m{caller}-{i}";
                    if ((await ServedAsync(() => agent.MountAsync(name, "c"), told.Token)).Status != 200) return mine;
                    mine.Add(agent.PathOf(name));
                }
                catch (HttpRequestException)
                {
                    return mine;
                }
            }
            return mine;
        })).ToArray();
        await agent.UntilAsync(() => Task.FromResult(Volatile.Read(ref begun) > 100), "work is under way");

        await told.CancelAsync();
        Assert.Equal(0, await agent.TerminateAsync());
        var answered = (await Task.WhenAll(callers)).SelectMany(paths => paths).ToArray();

        await agent.UntilAsync(() => Task.FromResult(agent.Workers().Count == 0), "its worker has ended");
        var mounts = agent.Mounts().Select(mount => (mount.Path, mount.MountId)).ToHashSet();
        Assert.Subset(mounts.Select(mount => mount.Path).ToHashSet(), answered.ToHashSet());
        Assert.DoesNotContain(await agent.StatesAsync(), state => state.Phase != Phase.Mounted);

        var events = await agent.CountAsync("select count(*) from mountledger.mt_events where stream_id <> '@host'");
        await agent.StartAgainAsync();
        await Task.Delay(500);
        Assert.Equal(mounts, agent.Mounts().Select(mount => (mount.Path, mount.MountId)).ToHashSet());
        Assert.Equal(events, await agent.CountAsync("select count(*) from mountledger.mt_events where stream_id <> '@host'"));
    }

    [RootFact]
    public async Task Killed_amid_unmounts_it_ends_with_nothing_mounted_and_no_directory_left()
    {
        await using var agent = await suite.StartAsync();
        var names = Enumerable.Range(0, 60).Select(i => $"d{i}/m").ToArray();
        await Task.WhenAll(names.Select(name => agent.MountAsync(name, "c")));
        Assert.Equal(60, agent.Mounts().Length);

        var unmounts = names.Select(async name =>
        {
            try
            {
                await agent.UnmountAsync(name, "c");
            }
            catch (HttpRequestException)
            {
                // Killed before it was answered: asked again below.
            }
        }).ToArray();
        await agent.UntilAsync(() => Task.FromResult(agent.Mounts().Length < 55), "unmounts are under way");
        await agent.KillWithWorkersAsync();
        await Task.WhenAll(unmounts);
        await agent.StartAgainAsync();
        foreach (var name in names) Assert.Equal(200, (await agent.UnmountAsync(name, "c")).Status);

        await agent.UntilAsync(async () => (await agent.StatesAsync()).All(state => state.Phase == Phase.Absent), "all are absent");
        Assert.Empty(agent.Mounts());
        Assert.Empty(Directory.GetFileSystemEntries(agent.Root));
        await NoOperationIsWithoutOutcomeAsync(agent);
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task Kill_of_the_worker_amid_mounts_leaves_every_caller_with_a_true_answer()
    {
        await using var agent = await suite.StartAsync();
        var begun = 0;
        var callers = Enumerable.Range(0, 8).Select(caller => Task.Run(async () =>
        {
            var answers = new List<(string Name, Answer Answer)>();
            for (var i = 0; i < 15; i++)
            {
                Interlocked.Increment(ref begun);
                answers.Add(($"w{caller}-{i}", await agent.MountAsync($"w{caller}-{i}", "c")));
            }
            return answers;
        })).ToArray();
        for (var kill = 1; kill <= 3; kill++)
        {
            await agent.UntilAsync(() => Task.FromResult(Volatile.Read(ref begun) > 25 * kill), "work is under way");
            agent.KillWorkers();
        }
        var all = (await Task.WhenAll(callers)).SelectMany(answers => answers).ToArray();

        await agent.UntilAsync(
            async () => (await agent.StatesAsync()).All(state => state.Operation is null && state.Phase is Phase.Mounted or Phase.Absent), "all is settled");
        // A mount that takes its worker with it more than once is told as failed; whoever was told that it holds, has it.
        Assert.All(all, one => Assert.True(one.Answer.Status is 200 or 422, one.Answer.ToString()));
        Assert.All(all, one => Assert.Equal(one.Answer.Status == 200 ? 1 : 0, TestHost.MountsAt(agent.PathOf(one.Name)).Length));
        Assert.True(all.Count(one => one.Answer.Status == 200) >= 100, "more was lost than the killed workers had in hand");
        await NoOperationIsWithoutOutcomeAsync(agent);
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task After_a_storm_nothing_is_left_on_disk_or_open()
    {
        await using var agent = await suite.StartAsync();
        async Task StormAsync(int round) => await Task.WhenAll(Enumerable.Range(0, 16).Select(async caller =>
        {
            for (var i = 0; i < 15; i++)
            {
                var name = i % 2 == 0 ? $"s{i}" : $"d{caller}/r{round}-{i}";
                Assert.Equal(200, (await ServedAsync(() => agent.MountAsync(name, $"c{caller}"))).Status);
                Assert.Equal(200, (await ServedAsync(() => agent.UnmountAsync(name, $"c{caller}"))).Status);
            }
        }));
        await StormAsync(0);
        var descriptors = agent.OpenDescriptors();
        await StormAsync(1);
        await StormAsync(2);

        await agent.UntilAsync(async () => (await agent.StatesAsync()).All(state => state.Phase == Phase.Absent), "all are absent");
        Assert.Empty(agent.Mounts());
        Assert.Empty(Directory.GetFileSystemEntries(agent.Root));
        Assert.Equal(0, await agent.CountAsync("select count(*) from mountledger.attachment"));
        Assert.Equal(0, await agent.CountAsync("select count(*) from mountledger.mountpoint where action <> 'none'"));
        Assert.Empty((await agent.GetAsync("/v1/mountpoints")).Json.GetProperty("items").EnumerateArray());
        // Pools of connections and threads breathe; a descriptor for each of the 480 operations would be seen.
        Assert.InRange(agent.OpenDescriptors(), 0, descriptors + 60);
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task Host_down_survives_a_restart_and_so_does_up()
    {
        await using var agent = await suite.StartAsync();
        Assert.Equal(200, (await agent.MountAsync("kept", "c")).Status);
        var down = await agent.PostAsync($"/v1/hosts/{AgentProcess.HostName}/down", new { reason = "new disk" });
        Assert.Equal(200, down.Status);
        Assert.False(down.Json.GetProperty("up").GetBoolean());

        await agent.KillAsync();
        await agent.StartAgainAsync();
        var refused = await agent.MountAsync("a", "c");
        Assert.Equal((409, "host-unavailable"), (refused.Status, refused.Problem));
        Assert.Contains("new disk", refused.Detail, StringComparison.Ordinal);
        Assert.Equal("unmounted", (await agent.UnmountAsync("kept", "c")).Outcome);

        Assert.Equal(200, (await agent.PostAsync($"/v1/hosts/{AgentProcess.HostName}/up", null)).Status);
        await agent.KillAsync();
        await agent.StartAgainAsync();
        Assert.Equal(200, (await agent.MountAsync("a", "c")).Status);
    }

    /// <summary>Each start of an operation is followed, in its stream, by what came of it.</summary>
    private static async Task NoOperationIsWithoutOutcomeAsync(AgentProcess agent) => Assert.Equal(0, await agent.CountAsync(
        """
        select count(*) from mountledger.mt_events started
        where started.type in ('mount_started', 'unmount_started') and not exists (
          select from mountledger.mt_events outcome
          where outcome.tenant_id = started.tenant_id and outcome.stream_id = started.stream_id and outcome.version > started.version
            and outcome.type in ('mounted', 'mount_failed', 'unmounted', 'unmount_failed', 'operation_settled')
            and not exists (
              select from mountledger.mt_events other
              where other.tenant_id = started.tenant_id and other.stream_id = started.stream_id
                and other.version > started.version and other.version < outcome.version
                and other.type in ('mount_started', 'unmount_started')))
        """));
}
