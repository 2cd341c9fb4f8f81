namespace MountLedger.Cli.Tests;

/// <summary>The verbs about drift: what they ask, what they print, and how they end.</summary>
public class RepairVerbTests
{
    private const string Stacked =
        """{"host":"node-1","mountpoint":"/srv/a","kind":"stacked","detail":"tmpfs x is mounted over it","phase":"mounted","paused":true}""";

    private const string Repair =
        """{"mountpoint":"/srv/a","kind":"stacked","repair":"unmount what is mounted over it","outcome":"OUTCOME","detail":null}""";

    [Fact]
    public async Task Drift_is_listed_with_exit_7_and_none_with_exit_0()
    {
        await using var some = await ScriptedAgent.AnsweringAsync(200, Sample.List(null, Stacked));
        var text = await Ran.Async(some, "drift");
        var json = await Ran.Async(some, "drift", "--json");
        Assert.Equal((7, 7), (text.Code, json.Code));
        Assert.Contains("stacked", text.Out, StringComparison.Ordinal);
        Assert.Contains("(repair paused) tmpfs x is mounted over it", text.Out, StringComparison.Ordinal);
        Assert.Equal(Sample.List(null, Stacked) + "\n", json.Out);

        await using var none = await ScriptedAgent.AnsweringAsync(200, Sample.List(null));
        Assert.Equal((0, "no drift\n"), ((await Ran.Async(none, "drift")).Code, (await Ran.Async(none, "drift")).Out));
    }

    [Theory]
    [InlineData("pause /srv/a --reason disk", "POST /v1/pause", """{"mountpoint":"/srv/a","reason":"disk"}""")]
    [InlineData("resume /srv/a --host n", "POST /v1/resume", """{"host":"n","mountpoint":"/srv/a"}""")]
    public async Task Pause_and_resume_ask_one_thing(string line, string request, string body)
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(200, Sample.Mounted);

        var ran = await Ran.Async(agent, line.Split(' '));

        Assert.Equal((0, ""), (ran.Code, ran.Error));
        var asked = Assert.Single(agent.Asked);
        Assert.Equal((request, body), (asked.Line, asked.Body));
    }

    [Fact]
    public async Task A_dry_run_asks_once_and_does_nothing()
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(200, Sample.List(null, Repair.Replace("OUTCOME", "planned", StringComparison.Ordinal)));

        var ran = await Ran.Async(agent, "reconcile", "--dry-run");

        Assert.Equal(0, ran.Code);
        Assert.Equal("""{"dryRun":true}""", Assert.Single(agent.Asked).Body);
        Assert.Contains("planned", ran.Out, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("done", 0)]
    [InlineData("left", 0)]
    [InlineData("failed", 1)]
    public async Task A_reconciliation_asks_for_each_mountpoint_and_ends_with_1_when_a_repair_failed(string outcome, int code)
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(200, Sample.List(null, Repair.Replace("OUTCOME", outcome, StringComparison.Ordinal)));

        var ran = await Ran.Async(agent, "reconcile");

        Assert.Equal(code, ran.Code);
        Assert.Equal(
            ["""{"dryRun":true}""", """{"mountpoint":"/srv/a","dryRun":false}"""], agent.Asked.Select(request => request.Body));
    }

    [Fact]
    public async Task Who_looks_at_a_terminal_sees_how_far_a_reconciliation_is()
    {
        string[] items = [.. new[] { "/srv/a", "/srv/b" }.Select(path => Repair.Replace("OUTCOME", "done", StringComparison.Ordinal).Replace("/srv/a", path, StringComparison.Ordinal))];
        await using var agent = await ScriptedAgent.AnsweringAsync(200, Sample.List(null, items));

        var seen = await Ran.Async(agent.Socket, ["reconcile"], static s => s with { Rich = true, Width = 100 });
        var piped = await Ran.Async(agent, "reconcile");

        string[] bars = [.. seen.Out.Split('\r')[1..].Select(bar => bar.Split('\n')[0])];
        Assert.Equal(["0/2 /srv/a", "1/2 /srv/b", "2/2 "], bars.Select(bar => bar[(bar.IndexOf("] ", StringComparison.Ordinal) + 2)..]));
        int[] filled = [.. bars.Select(bar => bar.Count(c => c == '#'))];
        Assert.Equal([0, filled[2] / 2, filled[2]], filled);
        Assert.Equal([filled[2], filled[2] - filled[1], 0], bars.Select(bar => bar.Count(c => c == '.')));
        Assert.DoesNotContain("/2", piped.Out, StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_list_of_hosts_says_how_far_the_repairs_after_a_start_are()
    {
        const string host =
            """{"host":"node-1","own":true,"up":true,"downReason":null,"downBy":null,"downSince":null,"agent":null,"mountpoints":9,"attachments":9,"repair":REPAIR}""";
        foreach (var (repair, note) in ((string, string?)[])
        [
            ("""{"toRepair":9,"done":4,"failed":1}""", "repairs since the start: 4 of 9 done, 1 failed and tried again"),
            ("""{"toRepair":9,"done":4,"failed":0}""", "repairs since the start: 4 of 9 done\n"),
            ("""{"toRepair":9,"done":9,"failed":0}""", null),
        ])
        {
            await using var agent = await ScriptedAgent.AnsweringAsync(200, Sample.List(null, host.Replace("REPAIR", repair, StringComparison.Ordinal)));
            var ran = await Ran.Async(agent, "host", "ls");
            Assert.Equal(0, ran.Code);
            if (note is null) Assert.DoesNotContain("repairs", ran.Out, StringComparison.Ordinal);
            else Assert.Contains(note, ran.Out, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task The_list_of_consumers_is_read_from_a_file_one_a_line()
    {
        var file = Path.GetTempFileName();
        try
        {
            await File.WriteAllTextAsync(file, "vm-1\r\nvm 2\n\n");
            await using var agent = await ScriptedAgent.AnsweringAsync(
                200, """{"host":"n","asOf":"2026-01-31T11:00:00+00:00","consumersAlive":2,"dryRun":true,"removed":[]}""");

            var ran = await Ran.Async(agent, "host", "sync", "--host", "n", "--consumers", file, "--as-of", "10m", "--dry-run");

            Assert.Equal((0, "0 attachments would be removed; 2 consumers are alive\n"), (ran.Code, ran.Out));
            var asked = Assert.Single(agent.Asked);
            Assert.Equal(("POST /v1/hosts/n/sync", """{"consumers":["vm-1","vm 2"],"asOf":"10m","dryRun":true}"""), (asked.Line, asked.Body));
        }
        finally
        {
            File.Delete(file);
        }
    }

    [Fact]
    public async Task A_list_that_cannot_be_read_is_bad_usage_and_asks_nothing()
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(200, "{}");

        var ran = await Ran.Async(agent, "host", "sync", "--host", "n", "--consumers", "/nonexistent/list", "--as-of", "now");

        Assert.Equal(2, ran.Code);
        Assert.Contains("--consumers: /nonexistent/list cannot be read", ran.Error, StringComparison.Ordinal);
        Assert.Empty(agent.Asked);
    }
}
