namespace MountLedger.Cli.Tests;

public class DoctorTests
{
    private const string Well =
        """{"host":"node-1","findings":[{"area":"kernel","name":"openat2","level":"ok","says":"openat2"},{"area":"helpers","name":"nfs","level":"note","says":"mount.nfs is not installed","remedy":"install it","command":"apt-get install -y nfs-common"}],"well":true}""";

    private const string Ill =
        """{"host":"node-1","findings":[{"area":"roots","name":"/srv","level":"shortfall","says":"others may write\nto it","remedy":"let only root","command":"chmod go-w /srv"},{"area":"kernel","name":"openat2","level":"ok","says":"openat2"}],"well":false}""";

    [Fact]
    public async Task Notes_alone_are_no_reason_to_fail()
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(200, Well);

        var ran = await Ran.Async(agent, "doctor");

        Assert.Equal(
            """
            note       helpers: nfs              mount.nfs is not installed
                         remedy: install it
                         run:    apt-get install -y nfs-common
            host node-1: 0 shortfalls, 1 note, 1 thing as it should be (--all shows them)

            """,
            ran.Out);
        Assert.Equal(0, ran.Code);
    }

    [Fact]
    public async Task A_shortfall_exits_with_1_and_prints_remedy_and_command_on_lines_of_their_own()
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(200, Ill);

        var ran = await Ran.Async(agent, "doctor", "--all");

        Assert.Equal(
            """
            shortfall  roots: /srv               others may write\x0ato it
                         remedy: let only root
                         run:    chmod go-w /srv
            ok         kernel: openat2           openat2
            host node-1: 1 shortfall, 0 notes, 1 thing as it should be

            """,
            ran.Out);
        Assert.Equal(1, ran.Code);
    }

    [Fact]
    public async Task As_json_it_is_one_document()
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(200, Ill);

        var ran = await Ran.Async(agent, "doctor", "--json");

        using var document = System.Text.Json.JsonDocument.Parse(ran.Out);
        Assert.False(document.RootElement.GetProperty("well").GetBoolean());
        Assert.Equal("shortfall", document.RootElement.GetProperty("findings")[0].GetProperty("level").GetString());
        Assert.Equal(1, ran.Code);
    }

    [Fact]
    public async Task Without_an_agent_it_says_what_the_client_can_see_and_how_to_start_one()
    {
        var ran = await Ran.Async("/nonexistent/agent.sock", ["doctor", "--all"]);

        Assert.Equal((1, ""), (ran.Code, ran.Error));
        Assert.Contains("there is no socket at /nonexistent/agent.sock", ran.Out, StringComparison.Ordinal);
        Assert.Contains("mountledgerd --socket /nonexistent/agent.sock", ran.Out, StringComparison.Ordinal);
        Assert.Contains("kernel: release", ran.Out, StringComparison.Ordinal);
        Assert.Contains("this host: 1 shortfall", ran.Out, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Another_host_cannot_be_looked_at_through_this_agent()
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(200, Well);

        var ran = await Ran.Async(agent, "doctor", "--host", "node-2");

        Assert.Equal(2, ran.Code);
        Assert.Empty(agent.Asked);
    }
}
