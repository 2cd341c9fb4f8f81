namespace MountLedger.Cli.Tests;

/// <summary>What the client asks of the agent.</summary>
public class RequestTests
{
    [Theory]
    [InlineData(
        "mount -t tmpfs -o size=1G,mode=0700 tmpfs /srv/a --volume v --consumer c", "POST /v1/mounts",
        """{"mountpoint":"/srv/a","source":"tmpfs","fstype":"tmpfs","options":["size=1G","mode=0700"],"volume":"v","consumer":"c","waitSeconds":30}""")]
    [InlineData(
        "mount x /srv/a --volume v --consumer c --host node-2 --on-failure retry --no-wait -o ro -o noexec", "POST /v1/mounts",
        """{"host":"node-2","mountpoint":"/srv/a","source":"x","options":["ro","noexec"],"volume":"v","consumer":"c","onFailure":"retry","waitSeconds":0}""")]
    [InlineData(
        "mount x /srv/a --volume v --consumer c -o a,,b --wait 1500ms", "POST /v1/mounts",
        """{"mountpoint":"/srv/a","source":"x","options":["a","","b"],"volume":"v","consumer":"c","waitSeconds":1.5}""")]
    [InlineData(
        "mount --volume v --consumer c -- -x @y", "POST /v1/mounts",
        """{"mountpoint":"@y","source":"-x","options":[],"volume":"v","consumer":"c","waitSeconds":30}""")]
    [InlineData(
        "unmount /srv/a --volume v --consumer c", "POST /v1/unmounts",
        """{"mountpoint":"/srv/a","volume":"v","consumer":"c","waitSeconds":30}""")]
    [InlineData(
        "umount /srv/a --volume v --consumer c --lazy --wait 2m", "POST /v1/unmounts",
        """{"mountpoint":"/srv/a","volume":"v","consumer":"c","mode":"lazy","waitSeconds":120}""")]
    [InlineData(
        "umount /srv/a --volume v --consumer c --force", "POST /v1/unmounts",
        """{"mountpoint":"/srv/a","volume":"v","consumer":"c","mode":"force","waitSeconds":30}""")]
    [InlineData("remount /srv/a -o ro,size=2G -o noexec --no-wait", "POST /v1/remounts", """{"mountpoint":"/srv/a","options":["ro","size=2G","noexec"],"waitSeconds":0}""")]
    [InlineData("host down --host node-1 --reason disk", "POST /v1/hosts/node-1/down", """{"reason":"disk"}""")]
    [InlineData("host up --host ../x", "POST /v1/hosts/..%2Fx/up", "{}")]
    [InlineData("status /srv/a&b=c", "GET /v1/mountpoints/status?path=%2Fsrv%2Fa%26b%3Dc", "")]
    public async Task A_verb_asks_one_thing(string line, string request, string body)
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(200, Sample.Mounted);

        var ran = await Ran.Async(agent, line.Split(' '));

        Assert.Equal((0, ""), (ran.Code, ran.Error));
        var asked = Assert.Single(agent.Asked);
        Assert.Equal((request, body), (asked.Line, asked.Body));
    }

    [Theory]
    [InlineData("ls", "GET /v1/mountpoints")]
    [InlineData("ls --host n --phase failed --consumer c/1", "GET /v1/mountpoints?host=n&phase=failed&consumer=c%2F1")]
    [InlineData("history", "GET /v1/history?order=asc")]
    [InlineData("history --since 10m", "GET /v1/history?since=2026-01-31T11%3A50%3A00Z&order=asc")]
    [InlineData(
        "history /srv/a --consumer c --actor uid:0 --type mounted --since 2026-01-31T12:00:00.5+01:00 --until 1h",
        "GET /v1/history?path=%2Fsrv%2Fa&consumer=c&actor=uid%3A0&type=mounted&since=2026-01-31T11%3A00%3A00.5Z&until=2026-01-31T11%3A00%3A00Z&order=asc")]
    [InlineData("history --limit 5", "GET /v1/history?order=desc&limit=5")]
    [InlineData("state --at 10m", "GET /v1/state?at=2026-01-31T11%3A50%3A00Z&limit=1000")]
    [InlineData("state --at 2026-01-31T12:00:00.5+01:00 --host n", "GET /v1/state?host=n&at=2026-01-31T11%3A00%3A00.5Z&limit=1000")]
    [InlineData("host ls", "GET /v1/hosts")]
    public async Task A_list_asks_with_its_filters(string line, string request)
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(200, Sample.List(null));

        var ran = await Ran.Async(agent, line.Split(' '));

        Assert.Equal((0, ""), (ran.Code, ran.Error));
        Assert.Equal(request, Assert.Single(agent.Asked).Line);
    }

    [Theory]
    [InlineData("7")]
    [InlineData("\"7\"")]
    public async Task Key_and_version_travel_as_headers(string version)
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(200, Sample.Mounted);

        await Ran.Async(
            agent, "unmount", "/srv/a", "--volume", "v", "--consumer", "c", "--idempotency-key", "k-1", "--if-match", version);

        var asked = Assert.Single(agent.Asked);
        Assert.Equal(("k-1", "\"7\""), (asked.IdempotencyKey, asked.IfMatch));
    }

    [Fact]
    public async Task The_own_host_is_the_one_that_the_agent_says_is_its_own()
    {
        const string host = """{"host":"node-1","own":true,"up":true,"downReason":null,"downBy":null,"downSince":null,"agent":null,"mountpoints":0,"attachments":0}""";
        await using var agent = await ScriptedAgent.AnsweringAsync(200, Sample.List(null, host));

        var ran = await Ran.Async(agent, "host", "down");

        Assert.Equal((0, "host node-1 is down\n"), (ran.Code, ran.Out));
        Assert.Equal("POST /v1/hosts/node-1/down", agent.Asked[^1].Line);
    }
}
