using System.Diagnostics;

namespace MountLedger.EndToEnd;

/// <summary>The HTTP interface against the real program: repeats, conditions, waiting, concurrency, and who did it.</summary>
[Collection(AgentSuite.Name)]
public sealed class AgentHttpTests(AgentSuite suite)
{
    private static (string, string) Key(string key) => ("Idempotency-Key", key);

    [RootFact]
    public async Task The_same_key_and_body_get_the_same_answer()
    {
        var agent = await suite.SharedAsync();
        var first = await agent.MountAsync("key-same", "c", headers: Key("same-1"));
        var second = await agent.MountAsync("key-same", "c", headers: Key("same-1"));
        Assert.Equal("mounted", first.Outcome);
        Assert.Equal((first.Status, first.Text), (second.Status, second.Text));

        // Also when the world has moved on: the answer is that of the request, and nothing is done again.
        Assert.Equal("unmounted", (await agent.UnmountAsync("key-same", "c", headers: Key("same-2"))).Outcome);
        Assert.Equal(first.Text, (await agent.MountAsync("key-same", "c", headers: Key("same-1"))).Text);
        Assert.Empty(TestHost.MountsAt(agent.PathOf("key-same")));
    }

    [RootFact]
    public async Task The_same_key_with_another_body_is_refused()
    {
        var agent = await suite.SharedAsync();
        Assert.Equal(200, (await agent.MountAsync("key-other", "c", headers: Key("other-1"))).Status);
        var refused = await agent.MountAsync("key-other", "somebody-else", headers: Key("other-1"));
        Assert.Equal(400, refused.Status);
        var error = refused.Json.GetProperty("errors")[0];
        Assert.Equal(("Idempotency-Key", "same-request"), (error.GetProperty("field").GetString(), error.GetProperty("rule").GetString()));
        Assert.Single((await agent.StatusAsync("key-other")).Json.GetProperty("attachments").EnumerateArray());
    }

    [RootFact]
    public async Task A_rejected_request_is_answered_the_same_again_also_when_it_would_succeed_by_now()
    {
        var agent = await suite.SharedAsync();
        Assert.Equal(200, (await agent.MountAsync("key-rejected", "c")).Status);
        var first = await agent.MountAsync("key-rejected", "d", source: "another", headers: Key("rejected-1"));
        Assert.Equal((409, "spec-conflict"), (first.Status, first.Problem));
        Assert.Equal(200, (await agent.UnmountAsync("key-rejected", "c")).Status);

        var second = await agent.MountAsync("key-rejected", "d", source: "another", headers: Key("rejected-1"));
        Assert.Equal((first.Status, first.Text), (second.Status, second.Text));
        Assert.Empty(TestHost.MountsAt(agent.PathOf("key-rejected")));
    }

    [RootFact]
    public async Task A_mount_that_failed_is_answered_the_same_again_also_when_it_would_succeed_by_now()
    {
        var agent = await suite.SharedAsync();
        var image = agent.Image("key-failed.img", 16 << 20);
        var first = await agent.MountAsync("key-failed", "c", image, "ext4", headers: Key("failed-1"));
        Assert.Equal((422, "mount-failed"), (first.Status, first.Problem));
        Shell.Run("mkfs.ext4", "-q", image);

        var second = await agent.MountAsync("key-failed", "c", image, "ext4", headers: Key("failed-1"));
        Assert.Equal((first.Status, first.Text), (second.Status, second.Text));
        Assert.Empty(TestHost.MountsAt(agent.PathOf("key-failed")));
    }

    [RootFact]
    public async Task A_key_is_known_after_kill_and_restart()
    {
        await using var agent = await suite.StartAsync();
        Assert.Equal(200, (await agent.MountAsync("other", "c")).Status);
        Task<Answer>[] Ask() =>
        [
            agent.MountAsync("a", "c", headers: Key("k-done")),
            agent.MountAsync("other", "d", source: "another", headers: Key("k-rejected")),
            agent.MountAsync("gone", "c", agent.PathOf("nothing"), "ext4", headers: Key("k-failed")),
            agent.UnmountAsync("never", "c", headers: Key("k-noop")),
        ];
        var before = await Task.WhenAll(Ask());
        Assert.Equal([200, 409, 422, 200], before.Select(answer => answer.Status));
        Assert.Equal("noop", before[3].Outcome);
        var events = await agent.CountAsync("select count(*) from mountledger.mt_events where stream_id <> '@host'");

        await agent.KillAsync();
        await agent.StartAgainAsync();
        var after = await Task.WhenAll(Ask());
        Assert.Equal(before.Select(answer => (answer.Status, answer.Text)), after.Select(answer => (answer.Status, answer.Text)));
        Assert.Equal(events, await agent.CountAsync("select count(*) from mountledger.mt_events where stream_id <> '@host'"));
    }

    [RootFact]
    public async Task Sixteen_identical_requests_at_once_are_one_mount_and_one_answer()
    {
        var agent = await suite.SharedAsync();
        for (var round = 0; round < 5; round++)
        {
            var name = $"identical-{round}";
            var answers = await Task.WhenAll(Enumerable.Range(0, 16).Select(_ => agent.MountAsync(name, "c", headers: Key(name))));
            Assert.Equal("mounted", answers[0].Outcome);
            Assert.All(answers, answer => Assert.Equal((200, answers[0].Text), (answer.Status, answer.Text)));
            Assert.Single(TestHost.MountsAt(agent.PathOf(name)));
            Assert.Equal(["mount_requested", "attachment_added", "mount_started", "mounted"], await agent.EventsAsync(name));
        }
    }

    [RootFact]
    public async Task Sixteen_consumers_at_once_share_one_mount()
    {
        var agent = await suite.SharedAsync();
        var answers = await Task.WhenAll(Enumerable.Range(0, 16).Select(i => agent.MountAsync("shared", $"c{i}")));
        Assert.All(answers, answer => Assert.Equal(200, answer.Status));
        Assert.Single(answers, answer => answer.Outcome == "mounted");
        Assert.Equal(15, answers.Count(answer => answer.Outcome == "attached"));
        Assert.Single(TestHost.MountsAt(agent.PathOf("shared")));
        Assert.Single(await agent.EventsAsync("shared"), type => type == "mount_started");
        Assert.Equal(16, (await agent.StatusAsync("shared")).Json.GetProperty("attachments").GetArrayLength());

        var ends = await Task.WhenAll(Enumerable.Range(0, 16).Select(i => agent.UnmountAsync("shared", $"c{i}")));
        Assert.Single(ends, answer => answer.Outcome == "unmounted");
        Assert.Empty(TestHost.MountsAt(agent.PathOf("shared")));
    }

    [RootFact]
    public async Task The_version_is_the_tag_and_is_honoured()
    {
        var agent = await suite.SharedAsync();
        Assert.Equal(200, (await agent.MountAsync("tag", "c", headers: ("If-Match", "\"0\""))).Status);
        var status = await agent.StatusAsync("tag");
        Assert.Equal($"\"{status.Version}\"", status.Tag);

        var stale = await agent.UnmountAsync("tag", "c", headers: ("If-Match", "\"1\""));
        Assert.Equal((412, "version-conflict"), (stale.Status, stale.Problem));
        Assert.Equal(status.Tag, stale.Tag);
        Assert.Equal(status.Version, stale.Json.GetProperty("current").GetProperty("version").GetInt64());
        Assert.Single(TestHost.MountsAt(agent.PathOf("tag")));

        var done = await agent.UnmountAsync("tag", "c", headers: ("If-Match", status.Tag!));
        Assert.Equal("unmounted", done.Outcome);
        Assert.Equal($"\"{done.Version}\"", done.Tag);
    }

    [RootFact]
    public async Task Who_does_not_wait_gets_202_and_it_is_mounted_later()
    {
        var agent = await suite.SharedAsync();
        var answer = await agent.MountAsync("later", "c", wait: 0);
        Assert.Equal((202, "pending"), (answer.Status, answer.Outcome));
        await agent.UntilPhaseAsync("later", "mounted");
        Assert.Single(TestHost.MountsAt(agent.PathOf("later")));
        Assert.Equal(202, (await agent.UnmountAsync("later", "c", wait: 0)).Status);
        await agent.UntilPhaseAsync("later", "absent");
    }

    /// <summary>More than is written to the socket at once, made of texts that are kept.</summary>
    [RootFact]
    public async Task A_long_answer_is_whole_and_a_repeat_gets_the_same()
    {
        const int Consumers = 900;
        var agent = await suite.SharedAsync();
        await Parallel.ForEachAsync(Enumerable.Range(0, Consumers), new ParallelOptions { MaxDegreeOfParallelism = 16 }, async (number, _) =>
            Assert.Equal(200, (await agent.MountAsync("many", $"consumer-{number:D4}-with-a-name-that-takes-its-space")).Status));

        var body = new { mountpoint = agent.PathOf("many"), source = "scratch", fstype = "tmpfs", volume = "vol", consumer = "the-last" };
        var first = await agent.PostAsync("/v1/mounts", body, ("Idempotency-Key", "long-answer"));
        var again = await agent.PostAsync("/v1/mounts", body, ("Idempotency-Key", "long-answer"));

        Assert.Equal(("attached", true), (first.Outcome, first.Text.Length > 96 * 1024));
        Assert.Equal(first.Text, again.Text);
        var attachments = first.Json.GetProperty("attachments").EnumerateArray().Select(item => item.GetProperty("consumer").GetString()).ToList();
        Assert.Equal(attachments.Order(StringComparer.Ordinal), attachments);
        Assert.Equal(Consumers + 1, attachments.Count);
        Assert.Equal(first.Json.GetProperty("attachments").GetRawText(), (await agent.StatusAsync("many")).Json.GetProperty("attachments").GetRawText());
    }

    [RootFact]
    public async Task The_document_lists_every_route()
    {
        var agent = await suite.SharedAsync();
        var document = await agent.GetAsync("/openapi/v1.json");
        Assert.Equal(200, document.Status);
        var paths = document.Json.GetProperty("paths").EnumerateObject().ToDictionary(
            path => path.Name, path => string.Join(',', path.Value.EnumerateObject().Select(method => method.Name).Where(name => name is "get" or "post")));
        foreach (var (path, method) in ((string, string)[])
            [("/v1/mounts", "post"), ("/v1/unmounts", "post"), ("/v1/mountpoints", "get"), ("/v1/mountpoints/status", "get"), ("/v1/history", "get"),
            ("/v1/state", "get"), ("/v1/hosts", "get"), ("/v1/hosts/{host}/up", "post"), ("/v1/hosts/{host}/down", "post"), ("/healthz", "get"), ("/readyz", "get")])
            Assert.Equal(method, paths.GetValueOrDefault(path));
    }

    [RootFact]
    public async Task It_says_that_it_is_alive_and_ready()
    {
        var agent = await suite.SharedAsync();
        Assert.Equal((200, "alive\n"), await agent.GetAsync("/healthz") is var alive ? (alive.Status, alive.Text) : default);
        Assert.Equal((200, "ready\n"), await agent.ReadyAsync());
    }

    [RootFact]
    public async Task The_actor_is_the_user_at_the_other_end_of_the_socket()
    {
        var agent = await suite.SharedAsync();
        File.SetUnixFileMode(agent.Socket, (UnixFileMode)Convert.ToInt32("666", 8));
        Assert.Equal(200, (await agent.MountAsync("actor", "by-root")).Status);

        // Another user, who may read the programs of this test wherever they are.
        var (exit, _, errors) = ClientProcess.Run(
            agent.Socket, ["mount", "-t", "tmpfs", "scratch", agent.PathOf("actor"), "--volume", "vol", "--consumer", "by-nobody"],
            "setpriv", "--reuid=nobody", "--inh-caps=+dac_override,+dac_read_search", "--ambient-caps=+dac_override,+dac_read_search");
        Assert.True(exit == 0, errors);

        var attachments = (await agent.StatusAsync("actor")).Json.GetProperty("attachments").EnumerateArray()
            .ToDictionary(item => item.GetProperty("consumer").GetString()!, item => item.GetProperty("actor").GetString());
        Assert.Equal(new Dictionary<string, string?> { ["by-root"] = "root", ["by-nobody"] = "nobody" }, attachments);
        var history = await agent.GetAsync($"/v1/history?path={agent.PathOf("actor")}&actor=nobody");
        var item = Assert.Single(history.Json.GetProperty("items").EnumerateArray());
        Assert.Equal("attachment_added", item.GetProperty("type").GetString());
    }

    [RootFact]
    public async Task A_caller_that_goes_away_does_not_undo_what_it_asked_for()
    {
        var agent = await suite.SharedAsync();
        using (var gone = new CancellationTokenSource())
        {
            var body = System.Text.Json.JsonSerializer.Serialize(new
            {
                mountpoint = agent.PathOf("impatient"),
                source = "scratch",
                fstype = "tmpfs",
                volume = "vol",
                consumer = "c",
            });
            using var content = new StringContent(body, System.Text.Encoding.UTF8, "application/json");
            var request = agent.Http.PostAsync("/v1/mounts", content, gone.Token);
            await agent.UntilAsync(async () => request.IsCompleted || (await agent.StatusAsync("impatient")).Status == 200, "it is recorded");
            await gone.CancelAsync();
            try
            {
                (await request).Dispose();
            }
            catch (OperationCanceledException)
            {
                // Whether it was answered before is not what this is about.
            }
        }
        await agent.UntilPhaseAsync("impatient", "mounted");
        Assert.Single(TestHost.MountsAt(agent.PathOf("impatient")));
    }
}

/// <summary>The client as a process.</summary>
public static class ClientProcess
{
    /// <summary>Runs it, behind <paramref name="prefix"/> if one is given; returns exit code, stdout, stderr.</summary>
    public static (int Exit, string Output, string Errors) Run(string socket, string[] arguments, params string[] prefix)
    {
        string[] command = [.. prefix, Path.Combine(AppContext.BaseDirectory, "MountLedger.Cli"), .. arguments];
        var start = new ProcessStartInfo(command[0]) { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (var argument in command[1..]) start.ArgumentList.Add(argument);
        start.Environment["MOUNTLEDGER_SOCKET"] = socket;
        // The runtime that runs this test runs the client, wherever it is installed.
        start.Environment["DOTNET_ROOT"] = Path.GetFullPath(Path.Combine(Path.GetDirectoryName(typeof(object).Assembly.Location)!, "../../.."));
        using var process = Process.Start(start)!;
        var errors = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEnd();
        Assert.True(process.WaitForExit(60_000), "the client hangs");
        return (process.ExitCode, output, errors.Result);
    }
}
