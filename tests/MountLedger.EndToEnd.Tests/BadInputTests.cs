using System.Net.Sockets;
using System.Text;

namespace MountLedger.EndToEnd;

/// <summary>
/// Section 10 of the design against the real program: whatever is wrong is named, nothing is recorded or mounted, and the
/// agent goes on.
/// </summary>
[Collection(AgentSuite.Name)]
public sealed class BadInputTests(AgentSuite suite)
{
    public static TheoryData<string> Requests => [.. BadRequests.All.Select(request => request.What)];

    [RootTheory]
    [MemberData(nameof(Requests))]
    public async Task What_is_wrong_is_named_and_nothing_is_recorded(string what)
    {
        var request = BadRequests.All.Single(request => request.What == what);
        var agent = await suite.SharedAsync();
        var before = await RecordedAsync(agent);
        var mounts = agent.Mounts().Length;

        using var message = request.Request(agent);
        var answer = await agent.SendAsync(message);

        Assert.True(request.Status == answer.Status, answer.ToString());
        Assert.Equal(request.Status, answer.Json.GetProperty("status").GetInt32());
        Assert.NotEmpty(answer.Detail);
        Assert.DoesNotContain("System.", answer.Text, StringComparison.Ordinal);
        Assert.DoesNotContain("hunter2", answer.Text, StringComparison.Ordinal);
        if (request.Field is not null)
        {
            Assert.Equal("invalid-input", answer.Problem);
            var errors = answer.Json.GetProperty("errors").EnumerateArray()
                .Select(error => (error.GetProperty("field").GetString()!, error.GetProperty("rule").GetString()!));
            Assert.Contains((request.Field, request.Rule!), errors);
        }
        Assert.Equal(before, await RecordedAsync(agent));
        Assert.Equal(mounts, agent.Mounts().Length);
        Assert.Equal(200, (await agent.GetAsync("/v1/mountpoints?limit=1")).Status);
    }

    [Fact]
    public void The_table_breaks_every_rule()
    {
        // A fixed option is one of a live mount: RemountTests break that rule.
        Assert.Empty(InputRule.All.Except(BadRequests.All.Select(request => request.Rule)).Except([InputRule.FixedOption]));
        Assert.Equal(BadRequests.All.Count, BadRequests.All.Select(request => request.What).Distinct().Count());
    }

    public static TheoryData<string> Garbage => [.. RawBytes.Keys];

    private static readonly Dictionary<string, byte[]> RawBytes = new()
    {
        ["random bytes"] = RandomBytes(8192),
        ["zeros"] = new byte[4096],
        ["newlines"] = [.. Enumerable.Repeat((byte)'\n', 5000)],
        ["a TLS hello"] = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03, .. RandomBytes(500)],
        ["an HTTP/2 preface"] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"u8.ToArray(),
        ["a line without end"] = [.. "GET /"u8, .. Enumerable.Repeat((byte)'a', 100_000)],
        ["no version"] = "GET /healthz\r\n\r\n"u8.ToArray(),
        ["another version"] = "GET /healthz HTTP/7.3\r\nHost: a\r\n\r\n"u8.ToArray(),
        ["no host"] = "GET /healthz HTTP/1.1\r\n\r\n"u8.ToArray(),
        ["NUL in the path"] = "GET /healthz%00 HTTP/1.1\r\nHost: a\r\n\r\n"u8.ToArray(),
        ["a header without colon"] = "GET /healthz HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n"u8.ToArray(),
        ["a control character in a header"] = "GET /healthz HTTP/1.1\r\nHost: a\r\nIdempotency-Key: a\u0001b\0\r\n\r\n"u8.ToArray(),
        ["thousands of headers"] =
            Encoding.ASCII.GetBytes("GET /healthz HTTP/1.1\r\nHost: a\r\n" + string.Concat(Enumerable.Range(0, 5000).Select(i => $"X-{i}: {i}\r\n")) + "\r\n"),
        ["a header of 1 MiB"] = Encoding.ASCII.GetBytes("GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + new string('x', 1 << 20) + "\r\n\r\n"),
        ["a length that is no number"] = "POST /v1/mounts HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ten\r\n\r\n{}"u8.ToArray(),
        ["two lengths"] = "POST /v1/mounts HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"u8.ToArray(),
        ["a negative length"] = "POST /v1/mounts HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n{}"u8.ToArray(),
        ["a chunk size that is no number"] =
            "POST /v1/mounts HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"u8.ToArray(),
        ["a body far too large"] =
            [.. "POST /v1/mounts HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9000000\r\n\r\n"u8, .. new byte[9_000_000]],
        ["length and chunks"] = "POST /v1/mounts HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: gzip\r\n\r\n{}"u8.ToArray(),
    };

    [RootTheory]
    [MemberData(nameof(Garbage))]
    public async Task Garbage_on_the_socket_is_answered_or_cut_off(string what)
    {
        var agent = await suite.SharedAsync();
        var before = await RecordedAsync(agent);

        var answer = await SendRawAsync(agent, RawBytes[what]);

        // Whoever speaks HTTP/2 may be told in its own words, by a GOAWAY frame, that HTTP/1.1 is wanted: it depends on how much of it arrives at once.
        const string GoAway = "\0\0\b\a";
        if (answer.Length > 0 && !(what == "an HTTP/2 preface" && answer.StartsWith(GoAway, StringComparison.Ordinal)))
            Assert.Matches(@"\AHTTP/1\.[01] (4\d\d|505) ", answer);
        Assert.Equal(before, await RecordedAsync(agent));
        Assert.Equal(200, (await agent.GetAsync("/healthz")).Status);
    }

    [RootFact]
    public async Task Two_keys_are_one_too_many()
    {
        var agent = await suite.SharedAsync();
        var answer = await SendRawAsync(
            agent, "POST /v1/mounts HTTP/1.1\r\nHost: a\r\nIdempotency-Key: a\r\nIdempotency-Key: b\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"u8.ToArray(),
            andNoMore: false);
        Assert.StartsWith("HTTP/1.1 400 ", answer, StringComparison.Ordinal);
        Assert.Contains("rule once", answer, StringComparison.Ordinal);
    }

    [RootFact]
    public async Task Half_requests_of_many_callers_that_go_away_change_nothing()
    {
        var agent = await suite.SharedAsync();
        var before = await RecordedAsync(agent);
        var head = "POST /v1/mounts HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{\"mountpoint\":"u8.ToArray();
        for (var i = 0; i < 200; i++)
        {
            using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(agent.Socket));
            await socket.SendAsync(head.AsMemory(0, head.Length - (i % 40)));
        }
        Assert.Equal(before, await RecordedAsync(agent));
        Assert.Equal("mounted", (await agent.MountAsync("after-halves", "c")).Outcome);
        Assert.Equal("unmounted", (await agent.UnmountAsync("after-halves", "c")).Outcome);
        Assert.DoesNotContain("a request failed by an error of the program", agent.Log, StringComparison.Ordinal);
    }

    public static TheoryData<string, string> CommandLines => new()
    {
        { "relative mountpoint", "mount|-t|tmpfs|scratch|a|--volume|v|--consumer|c" },
        { "traversal", "mount|-t|tmpfs|scratch|ROOT/../../etc|--volume|v|--consumer|c" },
        { "outside", "mount|-t|tmpfs|scratch|/etc|--volume|v|--consumer|c" },
        { "control character", "mount|-t|tmpfs|scratch|ROOT/a\nb|--volume|v|--consumer|c" },
        { "unknown type", "mount|-t|ext5|scratch|ROOT/bad|--volume|v|--consumer|c" },
        { "no type", "mount|scratch|ROOT/bad|--volume|v|--consumer|c" },
        { "unknown option", "mount|-t|tmpfs|-o|frobnicate|scratch|ROOT/bad|--volume|v|--consumer|c" },
        { "option by policy", "mount|-t|tmpfs|-o|size=1m,suid|scratch|ROOT/bad|--volume|v|--consumer|c" },
        { "an empty option", "mount|-t|tmpfs|-o|ro,,noexec|scratch|ROOT/bad|--volume|v|--consumer|c" },
        { "no volume", "mount|-t|tmpfs|scratch|ROOT/bad|--consumer|c" },
        { "an empty consumer", "mount|-t|tmpfs|scratch|ROOT/bad|--volume|v|--consumer|" },
        { "another host", "mount|--host|elsewhere|-t|tmpfs|scratch|ROOT/bad|--volume|v|--consumer|c" },
        { "lazy and force", "unmount|ROOT/bad|--volume|v|--consumer|c|--lazy|--force" },
        { "unknown verb", "mnt|ROOT/bad" },
        { "unknown flag", "ls|--everything" },
        { "a wait that is none", "mount|-t|tmpfs|scratch|ROOT/bad|--volume|v|--consumer|c|--wait|soon" },
        { "unknown phase", "ls|--phase|gone" },
        { "unknown event", "history|--type|Mounted" },
        { "a time that is none", "history|--since|yesterday" },
    };

    [RootTheory]
    [MemberData(nameof(CommandLines))]
    public async Task The_client_ends_with_2_and_one_line(string what, string arguments)
    {
        var agent = await suite.SharedAsync();
        var before = await RecordedAsync(agent);

        var (exit, output, errors) = ClientProcess.Run(agent.Socket, arguments.Replace("ROOT", agent.Root, StringComparison.Ordinal).Split('|'));

        Assert.True(exit == 2, $"{what}: exit {exit}: {errors}{output}");
        Assert.Empty(output);
        Assert.Single(errors.TrimEnd('\n').Split('\n'));
        Assert.Equal(before, await RecordedAsync(agent));
    }

    /// <summary>Everything that a request could leave in the ledger. A foreign mount of an earlier test may be noted, or be over, at any time.</summary>
    private static Task<long> RecordedAsync(AgentProcess agent) => agent.CountAsync(
        """
        with recorded as (select * from mountledger.mt_events where type not in ('drift_detected', 'drift_resolved'))
        select (select count(*) from recorded) + (select count(distinct stream_id) from recorded) + (select count(*) from mountledger.request)
          + (select count(*) from mountledger.mountpoint where generation > 0) + (select count(*) from mountledger.attachment)
        """);

    /// <summary>Sends, says that no more comes (which a server may take as a caller that went away), and reads until the other side ends; nothing when it cut the connection.</summary>
    private static async Task<string> SendRawAsync(AgentProcess agent, byte[] bytes, bool andNoMore = true)
    {
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(20));
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(agent.Socket), limit.Token);
        var answer = new StringBuilder();
        try
        {
            for (var sent = 0; sent < bytes.Length;) sent += await socket.SendAsync(bytes.AsMemory(sent), limit.Token);
            if (andNoMore) socket.Shutdown(SocketShutdown.Send);
        }
        catch (SocketException)
        {
            // It was cut off while it was still sending; an answer may be there all the same.
        }
        var buffer = new byte[4096];
        try
        {
            while (answer.Length < 1 << 20)
            {
                var count = await socket.ReceiveAsync(buffer, limit.Token);
                if (count == 0) break;
                answer.Append(Encoding.Latin1.GetString(buffer, 0, count));
            }
        }
        catch (SocketException)
        {
            // Reset: no more comes.
        }
        return answer.ToString();
    }

    private static byte[] RandomBytes(int count)
    {
        var bytes = new byte[count];
        new Random(7).NextBytes(bytes);
        return bytes;
    }
}
