namespace MountLedger.EndToEnd;

/// <summary>Options of a live mount changed through ledger, executor and worker, and what a crash in the middle leaves.</summary>
public sealed class RemountTests(PostgresServer server) : IClassFixture<PostgresServer>
{
    private static readonly string[] Mounted = ["mount_requested", "attachment_added", "mount_started", "mounted"];

    [RootFact]
    public async Task A_remount_costs_two_commits_and_is_the_next_generation()
    {
        await using var host = await TestHost.StartAsync(server);
        var a = host.PathOf("a");
        await host.MountAsync(a, "c");

        var done = Assert.IsType<CommandResult.Done>(await host.RemountAsync(a, "c", "size=2m", "noexec"));

        Assert.Equal((Outcome.Remounted, 2L), (done.Outcome, done.State.Generation));
        Assert.Equal((string[])[.. Mounted, "remount_requested", "remount_started", "remounted"], await host.EventsAsync(a));
        Assert.Contains("size=2048k", Assert.Single(TestHost.MountsAt(a)).SuperOptions);
        Assert.Equal("nodev,noexec,nosuid,size=2m", string.Join(',', (await host.StateAsync(a)).Spec!.Options));
        Assert.Equal(Outcome.Noop, Assert.IsType<CommandResult.Done>(await host.RemountAsync(a, "c", "noexec")).Outcome);
        Assert.IsType<CommandResult.Rejected>(await host.RemountAsync(a, "d", "exec"));
    }

    [RootFact]
    public async Task A_remount_that_fails_is_told_and_leaves_everything_as_it_was()
    {
        await using var host = await TestHost.StartAsync(server);
        var a = host.PathOf("a");
        await host.MountAsync(a, "c", spec: TestHost.Tmpfs("scratch", "size=8m"));
        File.WriteAllBytes(Path.Combine(a, "file"), new byte[6 << 20]);

        var failed = Assert.IsType<CommandResult.Failed>(await host.RemountAsync(a, "c", "size=4m"));

        Assert.Equal((OperationKind.Remount, "EINVAL"), (failed.Error.Operation, failed.Error.Errno));
        Assert.Equal((1L, Phase.Mounted), (failed.State.Generation, failed.State.Phase));
        Assert.Equal((string[])[.. Mounted, "remount_requested", "remount_started", "remount_failed"], await host.EventsAsync(a));
        Assert.Equal(Outcome.Remounted, Assert.IsType<CommandResult.Done>(await host.RemountAsync(a, "c", "size=16m")).Outcome);
        Assert.Null((await host.StateAsync(a)).Error);
    }

    /// <summary>The agent dies after the start was recorded: before the kernel was asked, or after it had changed the mount.</summary>
    [RootTheory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_crash_in_the_middle_is_settled_by_looking(bool tookEffect)
    {
        await using var host = await TestHost.StartAsync(server);
        var a = host.PathOf("a");
        await host.MountAsync(a, "c");
        var reached = new TaskCompletionSource();
        var never = new TaskCompletionSource();
        host.Kernel.Before = (operation, _) =>
        {
            if (operation != "remount") return Task.CompletedTask;
            reached.TrySetResult();
            return never.Task;
        };
        _ = host.RemountAsync(a, "c", "size=2m", "ro");
        await reached.Task;

        await host.CrashAndRestartAsync(() =>
        {
            if (tookEffect) Shell.Run("mount", "-o", "remount,size=2m,ro,nosuid,nodev", a);
        });

        var state = await host.UntilAsync(a, now => now is { Phase: Phase.Mounted, Generation: 2, Remount: null });
        Assert.Equal("nodev,nosuid,ro,size=2m", string.Join(',', state.Spec!.Options));
        Assert.Contains("ro", Assert.Single(TestHost.MountsAt(a)).MountOptions);
        Assert.Equal(tookEffect ? 0 : 1, host.Kernel.RemountsAt(a));
        string[] settled = tookEffect ? ["operation_uncertain", "remounted"]
            : ["operation_uncertain", "operation_settled", "remount_started", "remounted"];
        Assert.Equal((string[])[.. Mounted, "remount_requested", "remount_started", .. settled], await host.EventsAsync(a));
    }

    [RootFact]
    public async Task Who_joins_while_options_change_waits_and_is_told_which_ones_there_are()
    {
        await using var host = await TestHost.StartAsync(server);
        var a = host.PathOf("a");
        await host.MountAsync(a, "c");
        var reached = new TaskCompletionSource();
        var go = new TaskCompletionSource();
        host.Kernel.Before = (operation, _) =>
        {
            if (operation != "remount") return Task.CompletedTask;
            reached.TrySetResult();
            return go.Task;
        };
        var change = host.RemountAsync(a, "c", "size=2m");
        await reached.Task;
        var sameAsBefore = host.MountAsync(a, "d");
        var asItWillBe = host.MountAsync(a, "e", spec: TestHost.Tmpfs("scratch", "size=2m"));
        await Task.Delay(100);
        Assert.False(sameAsBefore.IsCompleted || asItWillBe.IsCompleted);
        go.SetResult();

        Assert.IsType<CommandResult.Done>(await change);
        Assert.IsType<Rejection.SpecConflict>(Assert.IsType<CommandResult.Rejected>(await sameAsBefore).Rejection);
        Assert.IsType<CommandResult.Done>(await asItWillBe);
    }
}

/// <summary>The same over HTTP, with real programs.</summary>
[Collection(AgentSuite.Name)]
public sealed class AgentRemountTests(AgentSuite suite)
{
    [RootFact]
    public async Task A_remount_over_http_has_conditions_and_proper_errors()
    {
        var agent = await suite.SharedAsync();
        Assert.Equal(200, (await agent.MountAsync("remount", "c")).Status);
        var body = new { mountpoint = agent.PathOf("remount"), options = new[] { "size=4m" } };

        Assert.Equal((412, "version-conflict"), Of(await agent.PostAsync("/v1/remounts", body, ("If-Match", "\"1\""))));
        var done = await agent.PostAsync("/v1/remounts", body, ("Idempotency-Key", "remount-1"));
        Assert.Equal((200, "remounted"), (done.Status, done.Outcome));
        Assert.Equal(2, done.Json.GetProperty("generation").GetInt64());
        Assert.Equal(done.Text, (await agent.PostAsync("/v1/remounts", body, ("Idempotency-Key", "remount-1"))).Text);
        Assert.Equal("noop", (await agent.PostAsync("/v1/remounts", body)).Outcome);

        Assert.Equal((400, "invalid-input"), Of(await agent.PostAsync("/v1/remounts", new { body.mountpoint, options = new[] { "siez=1m" } })));
        Assert.Equal((400, "invalid-input"), Of(await agent.PostAsync("/v1/remounts", new { body.mountpoint })));
        Assert.Equal((409, "not-mounted"), Of(await agent.PostAsync("/v1/remounts", new { mountpoint = agent.PathOf("nothing"), body.options })));
        var failed = await agent.PostAsync("/v1/remounts", new { body.mountpoint, options = new[] { "mode=700" } });
        Assert.Equal((422, "remount-failed"), Of(failed));
        Assert.Equal("remount", failed.Json.GetProperty("error").GetProperty("operation").GetString());
        Assert.Equal("unmounted", (await agent.UnmountAsync("remount", "c")).Outcome);

        static (int, string?) Of(Answer answer) => (answer.Status, answer.Problem);
    }

    [RootFact]
    public async Task Others_may_not_change_what_somebody_holds_unless_they_are_administrators()
    {
        // Root is no administrator of this agent, and another user made the attachment.
        await using var agent = await suite.StartAsync(environment => environment["MOUNTLEDGER_ADMINS"] = "nobody");
        Assert.Equal(200, (await agent.MountAsync("a", "c")).Status);
        Assert.Equal(200, (await agent.MountAsync("a", "d")).Status);

        var refused = await agent.PostAsync("/v1/remounts", new { mountpoint = agent.PathOf("a"), options = new[] { "ro" } });

        Assert.Equal((403, "not-permitted"), (refused.Status, refused.Problem));
        Assert.Equal("detached", (await agent.UnmountAsync("a", "d")).Outcome);
        Assert.Equal(200, (await agent.PostAsync("/v1/remounts", new { mountpoint = agent.PathOf("a"), options = new[] { "ro" } })).Status);
    }
}
