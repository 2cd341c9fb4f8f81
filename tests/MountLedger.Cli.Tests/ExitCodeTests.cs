namespace MountLedger.Cli.Tests;

public class ExitCodeTests
{
    private static readonly string[] _mount = ["mount", "-t", "tmpfs", "tmpfs", "/srv/a", "--volume", "v", "--consumer", "c"];
    private static readonly string[] _unmount = ["unmount", "/srv/a", "--volume", "v", "--consumer", "c"];

    [Theory]
    [InlineData(400, "invalid-input", 2)]
    [InlineData(401, "not-permitted", 4)]
    [InlineData(403, "not-permitted", 4)]
    [InlineData(404, "not-found", 2)]
    [InlineData(409, "spec-conflict", 3)]
    [InlineData(409, "foreign-mount", 3)]
    [InlineData(409, "host-unavailable", 3)]
    [InlineData(409, "would-hide", 3)]
    [InlineData(409, "in-use", 3)]
    [InlineData(409, "version-conflict", 3)]
    [InlineData(412, "version-conflict", 3)]
    [InlineData(413, "too-large", 2)]
    [InlineData(422, "mount-failed", 1)]
    [InlineData(422, "unmount-failed", 1)]
    [InlineData(429, "too-many", 5)]
    [InlineData(500, "internal", 5)]
    [InlineData(503, "unavailable", 5)]
    public async Task A_problem_becomes_its_exit_code_and_one_line_on_stderr(int status, string name, int code)
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(status, Sample.Problem(status, name, "it is so: do that"));

        var ran = await Ran.Async(agent, _mount);

        Assert.Equal(code, ran.Code);
        Assert.Empty(ran.Out);
        Assert.StartsWith("mountledger: ", ran.Error, StringComparison.Ordinal);
        Assert.Contains("it is so: do that", ran.Error, StringComparison.Ordinal);
        Assert.Single(ran.Error.Split('\n', StringSplitOptions.RemoveEmptyEntries));
    }

    [Theory]
    [InlineData(200, "mounted", 0)]
    [InlineData(200, "attached", 0)]
    [InlineData(200, "unmounted", 0)]
    [InlineData(200, "detached", 0)]
    [InlineData(200, "noop", 0)]
    [InlineData(202, "pending", 6)]
    public async Task An_outcome_becomes_its_exit_code(int status, string outcome, int code)
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(status, Sample.Outcome(outcome));

        var text = await Ran.Async(agent, _unmount);
        var json = await Ran.Async(agent, [.. _unmount, "--json"]);

        Assert.Equal((code, code), (text.Code, json.Code));
        Assert.Contains("/srv/a", text.Out, StringComparison.Ordinal);
        Assert.Equal(Sample.Outcome(outcome) + "\n", json.Out);
    }

    [Fact]
    public async Task With_json_a_problem_is_the_document_on_stdout_too()
    {
        var problem = Sample.Problem(409, "spec-conflict", "differs");
        await using var agent = await ScriptedAgent.AnsweringAsync(409, problem);

        var ran = await Ran.Async(agent, [.. _mount, "--json"]);

        Assert.Equal((3, problem + "\n"), (ran.Code, ran.Out));
    }

    [Fact]
    public async Task A_busy_unmount_lists_who_holds_it()
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(422, Sample.Problem(
            422, "unmount-failed", "unmount /srv/a: EBUSY",
            """,   "error":{"operation":"unmount","errno":"EBUSY","message":"unmount /srv/a: EBUSY","holders":[{"pid":42,"command":"bash","uses":["cwd","fd 3"]}],"retryAt":"2026-01-31T12:00:01+00:00"}"""));

        var ran = await Ran.Async(agent, _unmount);

        Assert.Equal(1, ran.Code);
        Assert.Equal(
            "mountledger: unmount /srv/a: EBUSY\n  held by pid 42 (bash): cwd, fd 3\n  it is tried again at 2026-01-31T12:00:01.000Z\n",
            ran.Error);
    }

    [Fact]
    public async Task Invalid_input_names_each_field_and_rule()
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(400, Sample.Problem(
            400, "invalid-input", "2 errors",
            """,   "errors":[{"field":"mountpoint","rule":"absolute-path","value":"a","remedy":"give an absolute path"},{"field":"volume","rule":"required","value":null,"remedy":"name it"}]"""));

        var ran = await Ran.Async(agent, _mount);

        Assert.Equal(
            (2, "mountledger: mountpoint: give an absolute path, not 'a' (rule absolute-path); volume: name it (rule required)\n"),
            (ran.Code, ran.Error));
    }

    [Theory]
    [InlineData(200, "<html>hello</html>")]
    [InlineData(200, "")]
    [InlineData(200, "null")]
    [InlineData(502, "<html>bad gateway</html>")]
    [InlineData(404, "")]
    public async Task An_answer_that_is_not_of_the_agent_is_unavailable(int status, string body)
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(status, body);

        var ran = await Ran.Async(agent, _mount);

        Assert.Equal(5, ran.Code);
        Assert.Contains("is it mountledgerd's socket", ran.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Without_a_socket_it_says_to_start_the_agent()
    {
        var ran = await Ran.Async("/nonexistent/agent.sock", ["ls"]);

        Assert.Equal(
            (5, "mountledger: there is no socket at /nonexistent/agent.sock — start mountledgerd, or name its socket with --socket\n"),
            (ran.Code, ran.Error));
    }

    [Fact]
    public async Task A_socket_where_nobody_listens_is_unavailable()
    {
        var directory = Directory.CreateTempSubdirectory("mountledger-cli-");
        var path = Path.Combine(directory.FullName, "s");
        using (var socket = new System.Net.Sockets.Socket(
            System.Net.Sockets.AddressFamily.Unix, System.Net.Sockets.SocketType.Stream, System.Net.Sockets.ProtocolType.Unspecified))
        {
            socket.Bind(new System.Net.Sockets.UnixDomainSocketEndPoint(path));

            var ran = await Ran.Async(path, ["ls"]);

            Assert.Equal(5, ran.Code);
            Assert.Contains("no agent listens", ran.Error, StringComparison.Ordinal);
        }

        directory.Delete(recursive: true);
    }

    [Fact]
    public async Task An_agent_that_hangs_is_unavailable_after_the_wait_and_a_margin()
    {
        await using var agent = await ScriptedAgent.StartAsync(static context => Task.Delay(Timeout.Infinite, context.RequestAborted));

        var ran = await Ran.Async(
            agent.Socket, [.. _mount, "--wait", "100ms"], static s => s with { AnswerMargin = TimeSpan.FromMilliseconds(200) });

        Assert.Equal(5, ran.Code);
        Assert.Contains("did not answer within 0.3 s", ran.Error, StringComparison.Ordinal);
        Assert.Contains("may be recorded", ran.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_agent_that_dies_while_it_answers_is_unavailable()
    {
        await using var agent = await ScriptedAgent.StartAsync(static async context =>
        {
            context.Response.ContentLength = 1000;
            await context.Response.Body.WriteAsync("{"u8.ToArray());
            await context.Response.Body.FlushAsync();
            context.Abort();
        });

        var ran = await Ran.Async(agent, _mount);

        Assert.Equal(5, ran.Code);
        Assert.Single(ran.Error.Split('\n', StringSplitOptions.RemoveEmptyEntries));
    }
}
