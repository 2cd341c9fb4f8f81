using System.Text;
using Microsoft.AspNetCore.Http;

namespace MountLedger.Cli.Tests;

public class OutputTests
{
    private static readonly string[] _unmount = ["unmount", "/srv/a", "--volume", "v", "--consumer", "c"];

    [Theory]
    [InlineData("mounted", "mounted /srv/a (tmpfs, version 3)")]
    [InlineData("attached", "attached /srv/a (tmpfs, version 3, 1 attachment)")]
    [InlineData("unmounted", "unmounted /srv/a (version 3)")]
    [InlineData("detached", "detached /srv/a (version 3, 1 attachment left)")]
    [InlineData("noop", "nothing to do at /srv/a (no such attachment; mounted, version 3)")]
    public async Task An_outcome_is_one_line(string outcome, string line)
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(200, Sample.Outcome(outcome));

        Assert.Equal(line + "\n", (await Ran.Async(agent, _unmount)).Out);
    }

    [Fact]
    public async Task A_list_is_aligned_plain_text_when_stdout_is_no_terminal()
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(200, Sample.List(null, Sample.Mounted));

        var ran = await Ran.Async(agent, "ls");

        Assert.Equal(
            """
            MOUNTPOINT  PHASE    TYPE   SOURCE  CONSUMERS  VERSION
            /srv/a      mounted  tmpfs  tmpfs   c          3

            """,
            ran.Out);
    }

    [Fact]
    public async Task A_list_has_lines_and_colours_on_a_terminal()
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(200, Sample.List(null, Sample.Mounted));

        var ran = await Ran.Async(agent.Socket, ["ls"], static s => s with { Rich = true, Width = 100 });

        Assert.Contains('│', ran.Out);
        Assert.Contains("\e[", ran.Out, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Pages_are_followed_and_become_one_document()
    {
        await using var agent = await ScriptedAgent.StartAsync(static context => context.Response.WriteAsync(
            context.Request.Query["cursor"].ToString() switch
            {
                "" => Sample.List("two", """{"n":1}"""),
                "two" => Sample.List("three", """{"n":2}"""),
                _ => Sample.List(null, """{"n":3}"""),
            }));

        var ran = await Ran.Async(agent, "ls", "--json");

        Assert.Equal("""{"items":[{"n":1},{"n":2},{"n":3}],"next":null}""" + "\n", ran.Out);
    }

    [Fact]
    public async Task A_single_page_is_printed_as_it_came()
    {
        const string page = """{"next":null,  "items":[{"unknown":1.50}]}""";
        await using var agent = await ScriptedAgent.AnsweringAsync(200, page);

        Assert.Equal(page + "\n", (await Ran.Async(agent, "ls", "--json")).Out);
    }

    [Theory]
    [InlineData("host ls --json", """{"items":[{"host":"a"},{"host":"b"}],"next":null}""")]
    [InlineData("host ls --json --host b", """{"items":[{"host":"b"}],"next":null}""")]
    public async Task Hosts_are_all_or_the_one_that_is_meant(string line, string document)
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(200, Sample.List(null, """{"host":"a"}""", """{"host":"b"}"""));

        Assert.Equal(document + "\n", (await Ran.Async(agent, line.Split(' '))).Out);
    }

    [Fact]
    public async Task A_cursor_that_repeats_ends_the_run()
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(200, Sample.List("same", Sample.Mounted));

        var ran = await Ran.Async(agent, "ls");

        Assert.Equal(5, ran.Code);
        Assert.Equal(2, agent.Asked.Count);
    }

    [Fact]
    public async Task History_as_json_is_one_event_per_line()
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(
            200, Sample.List(null, "{\n  \"seq\": 1\n}", """{"seq":2,"text":"a\nb"}"""));

        var ran = await Ran.Async(agent, "history", "--json");

        Assert.Equal("{  \"seq\": 1}\n{\"seq\":2,\"text\":\"a\\nb\"}\n", ran.Out);
    }

    [Fact]
    public async Task History_tells_who_did_what_when()
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(200, Sample.List(
            null, Sample.Event(7, "attachment_added", """{"volume":"v","consumer":"c","onFailure":"forget","empty":null}""")));

        var ran = await Ran.Async(agent, "history");

        Assert.Equal(
            """
            AT                        ACTOR  EVENT             MOUNTPOINT  VERSION  DETAIL
            2026-01-31T11:00:00.123Z  uid:0  attachment_added  /srv/a      7        volume=v consumer=c onFailure=forget

            """,
            ran.Out);
    }

    [Fact]
    public async Task The_newest_events_come_in_the_order_in_which_they_happened()
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(
            200, Sample.List("more", """{"seq":9}""", """{"seq":8}""", """{"seq":7}"""));

        var ran = await Ran.Async(agent, "history", "--limit", "2", "--json");

        Assert.Equal("{\"seq\":8}\n{\"seq\":9}\n", ran.Out);
        Assert.Single(agent.Asked);
    }

    [Fact]
    public async Task Status_tells_all_that_is_known()
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(200, Sample.Mounted);

        var ran = await Ran.Async(agent, "status", "/srv/a");

        Assert.Equal(
            """
            /srv/a on host node-1
              phase     mounted
              version   3, generation 1
              mount     tmpfs type tmpfs (nodev,nosuid)
              kernel    mount id 4711, boot b
              attached  v for c, since 2026-01-31T11:00:00.123Z by uid:0
              updated   2026-01-31T11:00:00.500Z

            """,
            ran.Out);
    }

    [Fact]
    public async Task Control_characters_from_elsewhere_are_shown_not_obeyed()
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(
            422, Sample.Problem(422, "mount-failed", "helper said \\u001b[2J\\nmountledger: all is well"));

        var ran = await Ran.Async(agent, _unmount);

        Assert.Equal("mountledger: helper said \\x1b[2J\\x0amountledger: all is well\n", ran.Error);
    }

    [Fact]
    public async Task A_reader_that_goes_away_is_no_error_and_ends_the_reading()
    {
        await using var agent = await ScriptedAgent.StartAsync(static context => context.Response.WriteAsync(
            Sample.List(Guid.NewGuid().ToString(), Sample.Event(1))));

        var ran = await Ran.Async(agent.Socket, ["history"], static s => s with { Out = new ClosedPipe() });

        Assert.Equal((0, ""), (ran.Code, ran.Error));
        Assert.Single(agent.Asked);
    }

    private sealed class ClosedPipe : MemoryStream
    {
        public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default) =>
            throw new IOException("Broken pipe", hresult: 32);
    }
}
