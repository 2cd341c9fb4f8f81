using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using MountLedger.Agent;
using MountLedger.Postgres;

namespace MountLedger.Embedding;

/// <summary>MountLedger inside another .NET program: the same rules, ledger and recovery without HTTP, results by value.</summary>
[Collection(EmbeddingSuite.Name)]
public sealed class EmbeddingTests(PostgresServer server)
{
    [RootFact]
    public async Task Handlers_mount_attach_detach_and_unmount()
    {
        await using var program = await Orchestrator.StartAsync(server);
        async Task<Outcome> Done(Task<CommandResult> result) => Assert.IsType<CommandResult.Done>(await result).Outcome;

        Assert.Equal(Outcome.Mounted, await Done(program.Mounts.Handle(program.Mount("a", "job-1", options: "size=1m"), CancellationToken.None)));
        Assert.Equal(Outcome.Attached, await Done(program.Mounts.Handle(program.Mount("a", "job-2", options: "size=1m"), CancellationToken.None)));
        Assert.Single(program.MountsAt("a"));
        Assert.Equal(Outcome.Detached, await Done(program.Unmounts.Handle(program.Unmount("a", "job-1"), CancellationToken.None)));
        Assert.Single(program.MountsAt("a"));
        Assert.Equal(Outcome.Unmounted, await Done(program.Unmounts.Handle(program.Unmount("a", "job-2"), CancellationToken.None)));
        Assert.Empty(program.MountsAt("a"));
        Assert.Equal(Outcome.Noop, await Done(program.Unmounts.Handle(program.Unmount("a", "job-2"), CancellationToken.None)));
    }

    [RootFact]
    public async Task Whatever_goes_wrong_is_a_value()
    {
        await using var program = await Orchestrator.StartAsync(server);
        await program.Mounts.Handle(program.Mount("a", "c"), CancellationToken.None);

        var invalid = Assert.IsType<CommandResult.Invalid>(
            await program.Mounts.Handle(program.Mount("../etc", "", fstype: "ext5", options: "ro,suid") with { WaitSeconds = -1 }, CancellationToken.None));
        Assert.Superset(
            new HashSet<(string, string)>
            {
                ("mountpoint", InputRule.NormalisedPath), ("consumer", InputRule.Required), ("fstype", InputRule.KnownFilesystem),
                ("options[0]", InputRule.NoSeparator), ("waitSeconds", InputRule.WaitRange),
            },
            invalid.Errors.Select(error => (error.Field, error.Rule)).ToHashSet());
        Assert.IsType<CommandResult.Invalid>(
            await program.Mounts.Handle(program.Mount("a", "c") with { Actor = "a\nb" }, CancellationToken.None));

        var rejected = Assert.IsType<CommandResult.Rejected>(await program.Mounts.Handle(program.Mount("a", "d", source: "other"), CancellationToken.None));
        Assert.IsType<Rejection.SpecConflict>(rejected.Rejection);
        var failed = Assert.IsType<CommandResult.Failed>(await program.Mounts.Handle(program.Mount("b", "c", "/nothing/here", "ext4"), CancellationToken.None));
        Assert.Equal("ENOENT", failed.Error.Errno);
        Assert.IsType<CommandResult.Pending>(await program.Mounts.Handle(program.Mount("c", "c") with { WaitSeconds = 0 }, CancellationToken.None));
    }

    [RootFact]
    public async Task A_repeat_with_the_same_key_gets_the_same_answer()
    {
        await using var program = await Orchestrator.StartAsync(server);
        var command = program.Mount("a", "c") with { Conditions = new RequestConditions("key-1", BodyHash: null, IfVersion: null) };
        var first = Assert.IsType<CommandResult.Done>(await program.Mounts.Handle(command, CancellationToken.None));
        Assert.Equal(200, Assert.IsType<CommandResult.Replayed>(await program.Mounts.Handle(command, CancellationToken.None)).Status);
        Assert.Equal("key-1", Assert.IsType<CommandResult.KeyReused>(await program.Mounts.Handle(command with { Consumer = "d" }, CancellationToken.None)).Key);

        var stale = program.Unmount("a", "c") with { Conditions = new RequestConditions(null, null, IfVersion: first.State.Version - 1) };
        var rejected = Assert.IsType<CommandResult.Rejected>(await program.Unmounts.Handle(stale, CancellationToken.None));
        Assert.IsType<Rejection.VersionConflict>(rejected.Rejection);
    }

    [RootFact]
    public async Task A_stop_leaves_mounts_and_the_next_start_finds_them()
    {
        await using var program = await Orchestrator.StartAsync(server);
        await program.Mounts.Handle(program.Mount("a", "c"), CancellationToken.None);
        await program.Mounts.Handle(program.Mount("b", "c"), CancellationToken.None);
        var before = program.MountsAt("a").Concat(program.MountsAt("b")).Select(mount => mount.MountId).ToArray();

        await program.StopAsync();
        Assert.Equal(before, program.MountsAt("a").Concat(program.MountsAt("b")).Select(mount => mount.MountId));
        await program.StartAgainAsync();

        Assert.Equal(before, program.MountsAt("a").Concat(program.MountsAt("b")).Select(mount => mount.MountId));
        var state = await program.Services.GetRequiredService<LedgerAccess>().Store
            .LoadAsync(new StreamKey(Orchestrator.HostName, program.PathOf("a")), CancellationToken.None);
        Assert.Equal((Phase.Mounted, 4L), (state.Phase, state.Version));
        Assert.Equal(Outcome.Unmounted, Assert.IsType<CommandResult.Done>(await program.Unmounts.Handle(program.Unmount("a", "c"), CancellationToken.None)).Outcome);
    }

    [RootFact]
    public async Task A_host_is_taken_down_and_up_by_a_command()
    {
        await using var program = await Orchestrator.StartAsync(server);
        var hosts = program.Services.GetRequiredService<ChangeHostHandler>();
        var down = Assert.IsType<HostResult.Done>(await hosts.Handle(new ChangeHost("operator", null, Up: false, "new disk"), CancellationToken.None));
        Assert.False(down.State.IsUp);
        var rejected = Assert.IsType<CommandResult.Rejected>(await program.Mounts.Handle(program.Mount("a", "c"), CancellationToken.None));
        Assert.Contains("new disk", Assert.IsType<Rejection.HostUnavailable>(rejected.Rejection).Message, StringComparison.Ordinal);
        Assert.IsType<HostResult.Invalid>(await hosts.Handle(new ChangeHost("operator", "elsewhere", Up: true, null), CancellationToken.None));
        Assert.True(Assert.IsType<HostResult.Done>(await hosts.Handle(new ChangeHost("operator", null, Up: true, null), CancellationToken.None)).State.IsUp);
        Assert.IsType<CommandResult.Done>(await program.Mounts.Handle(program.Mount("a", "c"), CancellationToken.None));
    }

    [RootFact]
    public async Task Before_it_is_ready_and_after_it_has_stopped_a_command_is_unavailable()
    {
        await using var program = await Orchestrator.StartAsync(server);
        using var other = program.Build();
        var handler = other.Services.GetRequiredService<MountVolumeHandler>();
        Assert.IsType<CommandResult.Unavailable>(await handler.Handle(program.Mount("a", "c"), CancellationToken.None));

        var stopped = program.Mounts;
        await program.StopAsync();
        Assert.IsType<CommandResult.Unavailable>(await stopped.Handle(program.Mount("a", "c"), CancellationToken.None));
    }

    [RootFact]
    public async Task A_second_program_in_the_same_namespace_learns_who_is_there_and_is_stopped()
    {
        await using var program = await Orchestrator.StartAsync(server);
        using var second = program.Build();
        await second.StartAsync();
        var refused = await Assert.ThrowsAsync<InvalidOperationException>(
            () => second.Services.GetRequiredService<MountLedgerService>().Ready.WaitAsync(TimeSpan.FromSeconds(30)));
        Assert.Contains($"pid {Environment.ProcessId}", refused.Message, StringComparison.Ordinal);
        await second.WaitForShutdownAsync().WaitAsync(TimeSpan.FromSeconds(30));
        Assert.IsType<CommandResult.Done>(await program.Mounts.Handle(program.Mount("a", "c"), CancellationToken.None));
    }

    [Fact]
    public void A_setting_that_cannot_be_used_is_refused_at_once()
    {
        var refused = Assert.Throws<SettingException>(() => new ServiceCollection().AddMountLedger(settings => settings with { Host = "NODE 1", Roots = [] }));
        Assert.Contains("host", refused.Message, StringComparison.Ordinal);
        Assert.Contains("roots", refused.Message, StringComparison.Ordinal);
    }
}
