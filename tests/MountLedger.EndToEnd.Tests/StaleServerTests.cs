using System.Diagnostics;
using System.Globalization;
using System.Text.Json;

namespace MountLedger.EndToEnd;

/// <summary>
/// FUSE servers that are killed, stopped, or end in order, while their filesystem is attached: drift <c>stale</c> and <c>missing</c>, over
/// HTTP against the real program. The mount table shows nothing of a server's death, so it is found by asking.
/// </summary>
[Collection(AgentSuite.Name)]
public sealed class StaleServerTests(AgentSuite suite)
{
    private const int AuditMs = 200;

    private static void Audited(Dictionary<string, string> environment) =>
        environment["MOUNTLEDGER_AUDIT_SECONDS"] = (AuditMs / 1000.0).ToString(CultureInfo.InvariantCulture);

    private static Task<Answer> MountedAsync(AgentProcess agent, string name, string consumer, string source = "source") =>
        agent.MountAsync(name, consumer, agent.Below(source), "fuse.bindfs", ["attr_timeout=0", "entry_timeout=0"]);

    private static void Signal(AgentProcess agent, string signal, string source = "source")
    {
        var pid = Shell.Run("pgrep", "-f", $"bindfs.*{agent.Below(source)}").Trim();
        Assert.True(int.TryParse(pid, CultureInfo.InvariantCulture, out var server), $"one server, not '{pid}'");
        RootSignal.Send(server, signal);
        // Its connection ends with the process, a moment after the signal.
        if (signal is "KILL" or "TERM") Assert.True(SpinWait.SpinUntil(() => HasEnded(pid), TimeSpan.FromSeconds(10)), "the server ends");
    }

    private static bool HasEnded(string pid)
    {
        Thread.Sleep(10);
        try
        {
            return File.ReadLines($"/proc/{pid}/status").Any(line => line.StartsWith("State:\tZ", StringComparison.Ordinal));
        }
        catch (IOException)
        {
            return true;
        }
    }

    private static async Task<JsonElement[]> DriftAsync(AgentProcess agent) =>
        [.. (await agent.GetAsync("/v1/drift")).Json.GetProperty("items").EnumerateArray()];

    private static async Task<string> UntilDriftAsync(AgentProcess agent, string kind)
    {
        var detail = "";
        await agent.UntilAsync(
            async () =>
            {
                var found = (await DriftAsync(agent)).FirstOrDefault(item => item.GetProperty("kind").GetString() == kind);
                if (found.ValueKind == JsonValueKind.Undefined) return false;
                detail = found.GetProperty("detail").GetString()!;
                return true;
            },
            $"drift {kind}");
        return detail;
    }

    private static Task UntilStaleAsync(AgentProcess agent, string why) => agent.UntilAsync(
        async () => (await UntilDriftAsync(agent, "stale")).StartsWith(why, StringComparison.Ordinal), $"drift stale: {why}");

    private static async Task<string[]> DriftEventsAsync(AgentProcess agent, string name) =>
        [.. (await agent.EventsAsync(name)).Where(type => type.StartsWith("drift", StringComparison.Ordinal))];

    /// <summary>
    /// What was recorded of drift, in order: the error's name of what is stale, else the kind. Without what a machine that stands still adds: that a server did
    /// not answer in time, and then that things are as before.
    /// </summary>
    private static async Task<string[]> DriftButLatenessAsync(AgentProcess agent, string name)
    {
        var told = new List<string>();
        var (stale, isLate) = ("resolved", false);
        var history = await agent.GetAsync($"/v1/history?path={Uri.EscapeDataString(agent.PathOf(name))}&limit=1000");
        foreach (var item in history.Json.GetProperty("items").EnumerateArray())
        {
            var (type, data) = (item.GetProperty("type").GetString()!, item.GetProperty("data"));
            if (!type.StartsWith("drift", StringComparison.Ordinal)) continue;
            var (kind, isResolved) = (data.GetProperty("kind").GetString()!, type == "drift_resolved");
            if (kind != "stale")
            {
                told.Add(isResolved ? $"{kind} resolved" : kind);
                continue;
            }
            var now = isResolved ? "resolved" : data.GetProperty("detail").GetString()!.Split(':')[0];
            if (now == "ETIMEDOUT")
            {
                isLate = true;
                continue;
            }
            if (!isLate || now != stale) told.Add(now);
            (stale, isLate) = (now, false);
        }
        return [.. told];
    }

    private static Task UntilNoDriftAsync(AgentProcess agent) => agent.UntilAsync(async () => (await DriftAsync(agent)).Length == 0, "no drift");

    private static void IsRefusedAs(string errno, Answer answer)
    {
        Assert.Equal((422, "mount-failed"), (answer.Status, answer.Problem));
        Assert.Equal(errno, answer.Json.GetProperty("error").GetProperty("errno").GetString());
        Assert.Contains("--lazy or --force", answer.Detail, StringComparison.Ordinal);
    }

    [RootFact]
    public async Task A_killed_server_is_told_once_refuses_who_would_join_and_goes_with_the_last_detach()
    {
        await using var agent = await suite.StartAsync(Audited);
        File.WriteAllText(Path.Combine(agent.Below("source"), "file"), "well");
        Assert.Equal("mounted", (await MountedAsync(agent, "a", "c")).Outcome);
        Assert.Equal("attached", (await MountedAsync(agent, "a", "d")).Outcome);
        var mount = Assert.Single(agent.Mounts()).MountId;

        Signal(agent, "KILL");
        await UntilStaleAsync(agent, "ENOTCONN: its server has ended");
        var told = await DriftButLatenessAsync(agent, "a");
        // Who was just being asked when it was killed says another error, once.
        Assert.True(told is ["ENOTCONN"] or ["ECONNABORTED", "ENOTCONN"], string.Join(' ', told));
        await Task.Delay(6 * AuditMs);

        Assert.Equal(told, await DriftButLatenessAsync(agent, "a"));
        Assert.Equal(mount, Assert.Single(agent.Mounts()).MountId);
        var status = await agent.StatusAsync("a");
        Assert.Equal("mounted", status.Phase);
        Assert.Equal("ENOTCONN", status.Json.GetProperty("error").GetProperty("errno").GetString());
        Assert.Contains("ENOTCONN", (await agent.GetAsync("/v1/mountpoints")).Text, StringComparison.Ordinal);

        IsRefusedAs("ENOTCONN", await MountedAsync(agent, "a", "e"));
        IsRefusedAs("ENOTCONN", await MountedAsync(agent, "a", "c"));
        var repair = Assert.Single((await agent.PostAsync("/v1/reconcile", new { })).Json.GetProperty("items").EnumerateArray());
        Assert.Equal(("stale", "left"), (repair.GetProperty("kind").GetString(), repair.GetProperty("outcome").GetString()));
        Assert.Contains("person", repair.GetProperty("repair").GetString(), StringComparison.Ordinal);
        Assert.Equal(mount, Assert.Single(agent.Mounts()).MountId);

        Assert.Equal("detached", (await agent.UnmountAsync("a", "c")).Outcome);
        Assert.Equal("unmounted", (await agent.UnmountAsync("a", "d")).Outcome);
        Assert.Empty(agent.Mounts());
        await UntilNoDriftAsync(agent);

        Assert.Equal("mounted", (await MountedAsync(agent, "a", "e")).Outcome);
        Assert.Equal("well", File.ReadAllText(Path.Combine(agent.PathOf("a"), "file")));
        await Task.Delay(3 * AuditMs);
        await UntilNoDriftAsync(agent);
        string[] toldInAll = [.. told, "resolved"];
        Assert.Equal(toldInAll, await DriftButLatenessAsync(agent, "a"));
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task Who_joins_a_dead_mount_before_any_audit_is_told_too_and_a_new_agent_knows_it()
    {
        await using var agent = await suite.StartAsync(environment => environment["MOUNTLEDGER_AUDIT_SECONDS"] = "0");
        Assert.Equal("mounted", (await MountedAsync(agent, "a", "c")).Outcome);
        Signal(agent, "KILL");

        for (var i = 0; i < 3; i++) IsRefusedAs("ENOTCONN", await MountedAsync(agent, "a", "d"));
        Assert.Single(await DriftAsync(agent));
        await agent.KillWithWorkersAsync();
        await agent.StartAgainAsync();
        IsRefusedAs("ENOTCONN", await MountedAsync(agent, "a", "d"));
        Assert.Single((await agent.EventsAsync("a")), "drift_detected");

        Assert.Equal("unmounted", (await agent.UnmountAsync("a", "c")).Outcome);
        Assert.Empty(agent.Mounts());
        Assert.Empty(await DriftAsync(agent));
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task A_dead_mount_that_nobody_needs_and_somebody_held_is_unmounted_when_an_operator_says_so()
    {
        await using var agent = await suite.StartAsync(Audited);
        Assert.Equal("mounted", (await MountedAsync(agent, "a", "c")).Outcome);
        using var holder = Process.Start(new ProcessStartInfo("sleep", "600") { WorkingDirectory = agent.PathOf("a") })!;
        try
        {
            Signal(agent, "KILL");
            await UntilDriftAsync(agent, "stale");
            Assert.Contains("EBUSY", (await agent.UnmountAsync("a", "c")).Text, StringComparison.Ordinal);
            Assert.Equal("planned", (await agent.PostAsync("/v1/reconcile", new { dryRun = true })).Json.GetProperty("items")[0].GetProperty("outcome").GetString());
            Assert.Single(agent.Mounts());
        }
        finally
        {
            holder.Kill();
            await holder.WaitForExitAsync();
        }
        var repair = (await agent.PostAsync("/v1/reconcile", new { })).Json.GetProperty("items");
        // The next try by itself may have come first.
        Assert.All(repair.EnumerateArray(), item => Assert.Equal("done", item.GetProperty("outcome").GetString()));
        Assert.Empty(agent.Mounts());
        await UntilNoDriftAsync(agent);
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task A_server_that_stands_still_is_stale_until_it_answers_again_and_holds_up_no_other()
    {
        await using var agent = await suite.StartAsync(Audited);
        Assert.Equal("mounted", (await MountedAsync(agent, "a", "c")).Outcome);
        Assert.Equal("mounted", (await MountedAsync(agent, "b", "c", "other")).Outcome);
        // Who asks at the same time as somebody else is not taken for one who waits in vain.
        Assert.All(
            await Task.WhenAll(Enumerable.Range(0, 20).Select(i => MountedAsync(agent, "a", $"early{i}"))), answer => Assert.Equal("attached", answer.Outcome));

        Signal(agent, "STOP");
        Assert.StartsWith("ETIMEDOUT: its server does not answer", await UntilDriftAsync(agent, "stale"), StringComparison.Ordinal);
        var told = await DriftEventsAsync(agent, "a");
        IsRefusedAs("ETIMEDOUT", await MountedAsync(agent, "a", "d"));
        // The other's death is found meanwhile.
        Signal(agent, "KILL", "other");
        await agent.UntilAsync(async () => (await DriftAsync(agent)).Length == 2, "the dead one is told although another one hangs");
        Assert.Equal("unmounted", (await agent.UnmountAsync("b", "c")).Outcome);
        Assert.Equal(told, await DriftEventsAsync(agent, "a"));

        Signal(agent, "CONT");
        await UntilNoDriftAsync(agent);
        Assert.Equal("attached", (await MountedAsync(agent, "a", "d")).Outcome);
        // A machine that stands still may have told the same before, or once more since.
        Assert.Equal([.. told, "drift_resolved"], (await DriftEventsAsync(agent, "a")).Take(told.Length + 1));
        Assert.Empty(await DriftButLatenessAsync(agent, "a"));
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task A_server_that_is_killed_while_it_stands_still_is_told_as_dead()
    {
        await using var agent = await suite.StartAsync(Audited);
        Assert.Equal("mounted", (await MountedAsync(agent, "a", "c")).Outcome);
        Signal(agent, "STOP");
        await UntilDriftAsync(agent, "stale");
        Signal(agent, "KILL");
        await UntilStaleAsync(agent, "ENOTCONN");
        Assert.Equal("unmounted", (await agent.UnmountAsync("a", "c")).Outcome);
        Assert.Empty(await DriftAsync(agent));
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task What_takes_the_place_of_one_that_hangs_is_not_stale()
    {
        await using var agent = await suite.StartAsync(Audited);
        Assert.Equal("mounted", (await MountedAsync(agent, "a", "c")).Outcome);
        Signal(agent, "STOP");
        await UntilDriftAsync(agent, "stale");
        try
        {
            Assert.Equal("unmounted", (await agent.UnmountAsync("a", "c", mode: "lazy")).Outcome);
            Assert.Equal("mounted", (await MountedAsync(agent, "a", "c", "other")).Outcome);
            await Task.Delay(3 * AuditMs);
            Assert.Equal("attached", (await MountedAsync(agent, "a", "d", "other")).Outcome);
            Assert.Empty(await DriftAsync(agent));
        }
        finally
        {
            Signal(agent, "CONT");
        }
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task A_server_that_ends_in_order_unmounts_where_it_was_mounted_first_so_that_ours_is_left_stale()
    {
        await using var agent = await suite.StartAsync(Audited);
        Assert.Equal("mounted", (await MountedAsync(agent, "a", "c")).Outcome);
        Signal(agent, "TERM");
        await UntilStaleAsync(agent, "ENOTCONN");
        // Somebody else's unmount makes it an ordinary missing mount, which is repaired.
        Shell.Unmount(agent.PathOf("a"));
        await UntilNoDriftAsync(agent);
        Assert.Single(agent.Mounts());
        Assert.Equal("attached", (await MountedAsync(agent, "a", "d")).Outcome);
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task A_filesystem_that_somebody_unmounts_is_missing_and_made_again_unless_files_lie_below()
    {
        await using var agent = await suite.StartAsync(Audited);
        var path = agent.PathOf("a");
        Assert.Equal("mounted", (await MountedAsync(agent, "a", "c")).Outcome);
        var first = Assert.Single(agent.Mounts()).MountId;

        Shell.Unmount(path, "fusermount3", "-u");
        await agent.UntilAsync(() => Task.FromResult(agent.Mounts() is [{ } mount] && mount.MountId != first), "it is made again");
        await UntilNoDriftAsync(agent);
        Assert.All(await DriftButLatenessAsync(agent, "a"), told => Assert.StartsWith("missing", told, StringComparison.Ordinal));

        Assert.Equal(200, (await agent.PostAsync("/v1/pause", new { mountpoint = path })).Status);
        Shell.Unmount(path, "fusermount3", "-u");
        await UntilDriftAsync(agent, "missing");
        File.WriteAllText(Path.Combine(path, "precious"), "");
        Assert.Equal(200, (await agent.PostAsync("/v1/resume", new { mountpoint = path })).Status);
        await UntilDriftAsync(agent, "shadowed-data");
        Assert.Empty(agent.Mounts());
        File.Delete(Path.Combine(path, "precious"));
        await UntilNoDriftAsync(agent);
        Assert.Single(agent.Mounts());
    }
}
