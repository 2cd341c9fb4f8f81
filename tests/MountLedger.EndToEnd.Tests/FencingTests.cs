namespace MountLedger.EndToEnd;

/// <summary>
/// Two agents for one host name: the second one is kept out while the lease of the first is alive, and takes over when it has run out; the first one,
/// stopped in the middle of its work and resumed later, neither records nor does anything any more.
/// </summary>
[Collection(AgentSuite.Name)]
public sealed class FencingTests(AgentSuite suite)
{
    private const string Lease = "3";

    [RootFact]
    public async Task A_second_agent_is_refused_by_name_while_the_first_one_is_alive()
    {
        await using var first = await suite.StartAsync();
        // With another state directory in the same mount namespace; then in another one of the same machine; then on another machine.
        await using var sameNamespace = AgentProcess.Create(
            first.Postgres, environment => environment["MOUNTLEDGER_LOCK_DIR"] = first.Below("lock"));
        sameNamespace.Launch();
        Assert.Equal(1, await sameNamespace.ExitCodeAsync());
        Assert.Contains($"another agent (pid {first.Pid}) serves this mount namespace", sameNamespace.Log, StringComparison.Ordinal);

        foreach (var machine in (string?[])[null, "0123456789abcdef0123456789abcdef"])
        {
            await using var second = AgentProcess.Create(first.Postgres);
            second.Wrapper = Elsewhere(second, machine);
            second.Launch();
            Assert.Equal(1, await second.ExitCodeAsync());
            Assert.Contains($"host {AgentProcess.HostName} is served by agent {await AgentIdAsync(first)} on machine", second.Log, StringComparison.Ordinal);
        }
        Assert.Equal("mounted", (await first.MountAsync("a", "c")).Outcome);
    }

    [RootTheory]
    [InlineData(false)]
    [InlineData(true)]
    [Trait("Category", "Long")]
    public async Task An_agent_that_was_stopped_until_its_lease_ran_out_does_nothing_any_more(bool otherMachine)
    {
        // Its mount is being prepared when the agent is stopped, and is ready when it goes on.
        using var slow = new SlowFuse();
        await using var old = await suite.StartAsync(environment =>
        {
            environment["MOUNTLEDGER_LEASE_SECONDS"] = Lease;
            environment["MOUNTLEDGER_CONFIG"] = slow.Config;
        });
        Assert.Equal("mounted", (await old.MountAsync("held", "c")).Outcome);
        Assert.Equal(202, (await old.MountAsync("slow", "c", old.Below("source"), "fuse.slow", wait: 0)).Status);
        await slow.UntilItRunsAsync(old);
        var workers = old.Workers();
        Assert.NotEmpty(workers);

        RootSignal.Send(old.Pid, "STOP");
        // Commands that reach its socket while it is stopped.
        var queued = Enumerable.Range(0, 4).Select(number => old.MountAsync($"queued{number}", "c")).Append(old.UnmountAsync("held", "c")).ToArray();
        await Task.Delay(TimeSpan.FromSeconds(4));
        await using var next = AgentProcess.Create(old.Postgres, environment => environment["MOUNTLEDGER_CONFIG"] = slow.Config);
        next.Wrapper = Elsewhere(next, otherMachine ? "0123456789abcdef0123456789abcdef" : null);
        await next.StartAgainAsync();
        var successor = await AgentIdAsync(next);
        var epoch = await next.CountAsync("select epoch from mountledger.host");
        slow.LetGo();
        await Task.Delay(500);

        RootSignal.Send(old.Pid, "CONT");
        foreach (var answer in await Task.WhenAll(queued)) Assert.True(answer.Status == 503, $"{answer}\n{old.Log}");
        await old.UntilAsync(
            async () => await old.ReadyAsync() is { Status: 503, Text: var text } && text.Contains(successor, StringComparison.Ordinal), "it names who serves the host");
        var refused = await old.MountAsync("again", "c");
        Assert.Equal((503, "unavailable"), (refused.Status, refused.Problem));
        Assert.Contains(successor, refused.Detail, StringComparison.Ordinal);
        // A process that is being ended has no command line any more and is still there.
        await old.UntilAsync(() => Task.FromResult(old.Workers().Count == 0 && !workers.Any(IsAlive)), $"its workers {string.Join(", ", workers)} have ended");

        // Nothing was recorded under the old epoch after the new one had begun, and nothing was done.
        Assert.Equal(0, await next.CountAsync(
            $"select count(*) from mountledger.mt_events where (headers ->> 'epoch')::bigint < {epoch} and seq_id > "
            + $"(select min(seq_id) from mountledger.mt_events where (headers ->> 'epoch')::bigint = {epoch})"));
        Assert.Equal([old.PathOf("held")], old.Mounts().Select(mount => mount.Path));

        // It goes on to say so, and ends when it is told to.
        Assert.Equal(200, (await old.GetAsync("/healthz")).Status);
        Assert.Equal(0, await old.TerminateAsync());
        Assert.Equal(200, (await next.ReadyAsync()).Status);
        Assert.Equal("mounted", (await next.PostAsync(
            "/v1/mounts", new { mountpoint = next.PathOf("mine"), source = "scratch", fstype = "tmpfs", volume = "v", consumer = "c" })).Outcome);
    }

    /// <summary>Runs the agent in a mount namespace of its own, with another machine id if one is given.</summary>
    private static string[] Elsewhere(AgentProcess agent, string? machine)
    {
        var script = "exec \"$@\"";
        if (machine is not null)
        {
            var file = Path.Combine(agent.Below("machine"), "id");
            File.WriteAllText(file, machine + "\n");
            script = $"mount --bind {file} /etc/machine-id && {script}";
        }
        return ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script, "sh"];
    }

    private static async Task<string> AgentIdAsync(AgentProcess agent) =>
        (await agent.GetAsync("/v1/hosts")).Json.GetProperty("items").EnumerateArray().Single(host => host.GetProperty("own").GetBoolean())
            .GetProperty("agent").GetProperty("id").GetString()!;

    private static bool IsAlive(int pid)
    {
        try
        {
            return !File.ReadAllText($"/proc/{pid}/stat").Contains(") Z ", StringComparison.Ordinal);
        }
        catch (IOException)
        {
            return false;
        }
    }
}
