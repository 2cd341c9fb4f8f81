using System.Globalization;
using System.Text.RegularExpressions;
using MountLedger.Agent;

namespace MountLedger.EndToEnd;

/// <summary>What <c>/metrics</c> says is what happened, and a scraper can read it.</summary>
[Collection(AgentSuite.Name)]
public sealed partial class MetricsTests(AgentSuite suite)
{
    [RootFact]
    public async Task Counters_tell_what_has_happened()
    {
        await using var agent = await suite.StartAsync();
        for (var i = 0; i < 3; i++) Assert.Equal(200, (await agent.MountAsync($"m{i}", "c")).Status);
        Assert.Equal(200, (await agent.MountAsync("m0", "d")).Status);
        Assert.Equal(200, (await agent.UnmountAsync("m2", "c")).Status);
        Assert.Equal(422, (await agent.MountAsync("bad", "c", source: "/nonexistent", fstype: "bind")).Status);
        Assert.Equal(400, (await agent.MountAsync("bad", "c", fstype: "nosuchfs")).Status);

        // A request is counted when its answer has been sent, and a connection is busy for a moment.
        var seen = await ScrapeUntilAsync(
            agent, samples => samples.GetValueOrDefault("mountledger_http_request_duration_seconds_count{method=\"POST\",route=\"/v1/mounts\",status=\"400\"}") == 1
                && samples["mountledger_postgres_connections{state=\"idle\"}"] >= 1, "all requests are counted, and a connection is idle");
        Assert.Equal(2, seen["mountledger_mountpoints{phase=\"mounted\"}"]);
        Assert.Equal(3, seen["mountledger_attachments"]);
        Assert.Equal((1.0, 1.0, 1.0, 0.0), (seen["mountledger_ready"], seen["mountledger_host_up"], seen["mountledger_epoch"], seen["mountledger_fenced"]));
        Assert.Equal(3, seen["mountledger_operation_duration_seconds_count{operation=\"attach\",outcome=\"attached\"}"]);
        Assert.Equal(1, seen["mountledger_operation_duration_seconds_count{operation=\"unmount\",outcome=\"unmounted\"}"]);
        Assert.True(seen["mountledger_operation_duration_seconds_count{operation=\"prepare\",outcome=\"failed\"}"] >= 1);
        Assert.True(seen["mountledger_append_duration_seconds_count{outcome=\"appended\"}"] >= 8);
        Assert.Equal(4, seen["mountledger_http_request_duration_seconds_count{method=\"POST\",route=\"/v1/mounts\",status=\"200\"}"]);
        Assert.Equal(1, seen["mountledger_http_request_duration_seconds_count{method=\"POST\",route=\"/v1/mounts\",status=\"422\"}"]);
        Assert.Equal(1, seen["mountledger_http_request_duration_seconds_count{method=\"POST\",route=\"/v1/mounts\",status=\"400\"}"]);
        Assert.True(seen["mountledger_postgres_connections_max"] >= 12); // 12 for what is asked, and some for what is appended
        Assert.True(seen["process_resident_memory_bytes"] > 1 << 20);

        var died = seen["mountledger_workers_died_total"];
        agent.KillWorkers();
        Assert.Equal(200, (await agent.MountAsync("after", "c")).Status);
        var later = await ScrapeUntilAsync(agent, samples => samples["mountledger_workers_died_total"] == died + 1, "its death is counted");
        Assert.True(later["mountledger_workers_started_total"] > seen["mountledger_workers_started_total"]);
        Assert.All(seen.Where(sample => sample.Key.Contains("_total", StringComparison.Ordinal) || sample.Key.Contains("_bucket", StringComparison.Ordinal)),
            sample => Assert.True(later[sample.Key] >= sample.Value, sample.Key));
    }

    [RootFact]
    public async Task An_agent_that_waits_for_its_ledger_has_metrics_too()
    {
        await using var agent = AgentProcess.Create("Host=/nonexistent;Username=nobody;Database=none");
        agent.Launch();
        await agent.UntilAsync(async () => (await agent.ReadyAsync()).Status == 503, "the agent listens");
        Assert.Equal(0, (await ScrapeAsync(agent))["mountledger_ready"]);
    }

    [Fact]
    public void Labels_are_escaped() => Assert.Equal(
        "# HELP f a\\nb\n# TYPE f gauge\nf{x=\"a\\\\b\\\"c\\nd\"} +Inf\n",
        new MetricsText().Family("f", "gauge", "a\nb").Sample("f", double.PositiveInfinity, ("x", "a\\b\"c\nd")).ToString());

    private static async Task<Dictionary<string, double>> ScrapeUntilAsync(AgentProcess agent, Func<Dictionary<string, double>, bool> so, string what)
    {
        Dictionary<string, double> samples = [];
        await agent.UntilAsync(async () => so(samples = await ScrapeAsync(agent)), what);
        return samples;
    }

    /// <summary>Reads it as a scraper does: each sample belongs to the family announced before it, no series comes twice, buckets grow up to the count.</summary>
    private static async Task<Dictionary<string, double>> ScrapeAsync(AgentProcess agent)
    {
        using var answer = await agent.Http.GetAsync("/metrics");
        Assert.Equal("text/plain", answer.Content.Headers.ContentType!.MediaType);
        var samples = new Dictionary<string, double>();
        var (family, type) = ("", "");
        var families = new HashSet<string>();
        var bucket = 0.0;
        foreach (var line in (await answer.Content.ReadAsStringAsync()).Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            if (line.StartsWith("# HELP ", StringComparison.Ordinal)) continue;
            if (line.StartsWith("# TYPE ", StringComparison.Ordinal))
            {
                (family, type) = (line.Split(' ')[2], line.Split(' ')[3]);
                Assert.True(families.Add(family), line);
                continue;
            }
            var match = SampleLine().Match(line);
            Assert.True(match.Success, line);
            var (name, value) = (match.Groups[1].Value, double.Parse(match.Groups[3].Value, CultureInfo.InvariantCulture));
            Assert.Equal(family, type == "histogram" ? HistogramPart().Replace(name, "") : name);
            if (name.EndsWith("_bucket", StringComparison.Ordinal))
            {
                Assert.True(value >= bucket, line);
                bucket = value;
            }
            else if (name.EndsWith("_count", StringComparison.Ordinal) && type == "histogram")
            {
                Assert.Equal(bucket, value);
                bucket = 0;
            }
            Assert.True(samples.TryAdd(name + match.Groups[2].Value, value), line);
        }
        return samples;
    }

    [GeneratedRegex("""^([a-z_]+)(\{[a-z_]+="[^"]*"(?:,[a-z_]+="[^"]*")*\})? ([-+0-9.eE]+)$""")]
    private static partial Regex SampleLine();

    [GeneratedRegex("_(bucket|sum|count)$")]
    private static partial Regex HistogramPart();
}
