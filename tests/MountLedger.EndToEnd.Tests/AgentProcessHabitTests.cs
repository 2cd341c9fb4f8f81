using MountLedger.Postgres;

namespace MountLedger.EndToEnd;

/// <summary>How the program behaves as a process: what it watches, which signals it takes, whose place it does not take.</summary>
[Collection(AgentSuite.Name)]
public sealed class AgentProcessHabitTests(AgentSuite suite)
{
    [RootFact]
    public async Task It_watches_no_directory_whatever_it_was_started_in()
    {
        await using var agent = await suite.StartAsync();
        Assert.Equal(0, Directory.GetFiles($"/proc/{agent.Pid}/fdinfo").Sum(WatchesOf));
    }

    private static int WatchesOf(string descriptor)
    {
        try
        {
            return File.ReadLines(descriptor).Count(line => line.StartsWith("inotify wd", StringComparison.Ordinal));
        }
        catch (IOException)
        {
            return 0; // Closed meanwhile.
        }
    }

    [RootFact]
    public async Task A_bind_mount_of_the_root_directory_does_it_no_harm()
    {
        await using var agent = await suite.StartAsync();
        Assert.Equal(200, (await agent.MountAsync("root", "c", source: "/", fstype: "bind")).Status);
        Assert.Equal(200, (await agent.MountAsync("b", "c")).Status);
        Assert.Equal(200, (await agent.UnmountAsync("root", "c")).Status);
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task Told_to_stop_it_waits_for_a_running_operation_as_long_as_it_was_given()
    {
        await using var agent = await suite.StartAsync(environment =>
        {
            environment["MOUNTLEDGER_OPERATION_SECONDS"] = "4";
            environment["MOUNTLEDGER_SHUTDOWN_SECONDS"] = "15";
        });
        Assert.Equal(200, (await agent.MountAsync("a", "c")).Status);
        var worker = Assert.Single(agent.Workers());
        RootSignal.Send(worker, "STOP");
        var unmounting = agent.UnmountAsync("a", "c");
        // An operation that has begun is one that is waited for.
        await agent.UntilAsync(async () => await agent.CountAsync("select count(*) from mountledger.mt_events where type = 'unmount_started'") == 1, "it has begun");

        Assert.Equal(0, await agent.TerminateAsync());

        // The stopped worker was given up at its deadline, another one finished its work, and the caller was answered.
        Assert.Equal(200, (await unmounting).Status);
        Assert.Empty(agent.Mounts());
    }

    [RootFact]
    public async Task A_hang_up_stops_it_cleanly_too()
    {
        await using var agent = await suite.StartAsync();
        RootSignal.Send(agent.Pid, "HUP");
        Assert.Equal(0, await agent.ExitCodeAsync());
        await agent.UntilAsync(() => Task.FromResult(agent.Workers().Count == 0), "its worker has ended");
    }

    [RootFact]
    public async Task An_agent_in_another_mount_namespace_of_the_machine_does_not_take_the_lease_of_a_living_one()
    {
        await using var agent = await suite.StartAsync();
        await using var database = LedgerDatabase.Open(agent.Postgres!);
        var machine = Linux.KernelIdentityReader.ReadMachineId();
        var identity = Linux.KernelIdentityReader.Read();

        var elsewhere = await new HostLease(database).TakeAsync(
            AgentProcess.HostName, "other", machine, $"{identity.BootId}/{identity.MountNamespaceId + 1}", 0, TimeSpan.FromSeconds(5), CancellationToken.None);
        Assert.IsType<LeaseResult.HeldBy>(elsewhere);

        var rebooted = await new HostLease(database).TakeAsync(
            AgentProcess.HostName, "other", machine, $"another-boot/{identity.MountNamespaceId}", 0, TimeSpan.FromSeconds(5), CancellationToken.None);
        Assert.IsType<LeaseResult.Taken>(rebooted);
    }
}
