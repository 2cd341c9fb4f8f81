using System.Globalization;
using System.Text.Json;

namespace MountLedger.EndToEnd.Tests;

/// <summary>The state at a time, by HTTP and by the client, of a real agent's own mounts.</summary>
[Collection(AgentSuite.Name)]
public sealed class StateTests(AgentSuite suite)
{
    [RootFact]
    public async Task At_each_time_it_shows_what_was_mounted_for_whom()
    {
        var agent = await suite.SharedAsync();
        var before = Now();
        Assert.Equal("mounted", (await agent.MountAsync("then", "first")).Outcome);
        var one = (At: Now(), Shown: Shown((await agent.StatusAsync("then")).Json));
        Assert.Equal("attached", (await agent.MountAsync("then", "second")).Outcome);
        var two = (At: Now(), Shown: Shown((await agent.StatusAsync("then")).Json));
        await agent.UnmountAsync("then", "first");
        await agent.UnmountAsync("then", "second");
        var gone = Now();
        Assert.Equal("mounted", (await agent.MountAsync("then", "third")).Outcome);

        Assert.Null(await AtAsync(agent, before));
        Assert.Equal(one.Shown, await AtAsync(agent, one.At));
        Assert.Equal(two.Shown, await AtAsync(agent, two.At));
        Assert.Null(await AtAsync(agent, gone));
        Assert.Contains("third", await AtAsync(agent, Now()), StringComparison.Ordinal);

        var (exit, output, errors) = ClientProcess.Run(agent.Socket, ["state", "--at", two.At]);
        Assert.Equal((0, ""), (exit, errors));
        Assert.Matches($@"(?m)^{agent.PathOf("then")} +mounted +tmpfs +\S+ +first,second ", output);
        (exit, output, errors) = ClientProcess.Run(agent.Socket, ["state", "--at", two.At, "--json"]);
        Assert.Equal((0, ""), (exit, errors));
        Assert.Equal(two.Shown, Find(agent, JsonDocument.Parse(output).RootElement));
        (exit, output, errors) = ClientProcess.Run(agent.Socket, ["state", "--at", "2020-01-01T00:00:00Z"]);
        Assert.Equal((0, "no mountpoints at 2020-01-01T00:00:00Z\n", ""), (exit, output, errors));
    }

    [RootTheory]
    [InlineData("/v1/state", "at", "required")]
    [InlineData("/v1/state?at=yesterday", "at", "time")]
    [InlineData("/v1/state?at=2999-01-01T00:00:00Z", "at", "time")]
    [InlineData("/v1/state?at=1s&host=..", "host", "host-name")]
    [InlineData("/v1/state?at=1s&limit=0", "limit", "limit-range")]
    [InlineData("/v1/state?at=1s&cursor=%25", "cursor", "cursor")]
    [InlineData("/v1/state?at=1s&phase=mounted", "phase", "known-parameter")]
    public async Task What_cannot_be_asked_is_refused_by_field_and_rule(string query, string field, string rule)
    {
        var agent = await suite.SharedAsync();

        var answer = await agent.GetAsync(query);

        Assert.Equal(400, answer.Status);
        var error = Assert.Single(answer.Json.GetProperty("errors").EnumerateArray());
        Assert.Equal((field, rule), (error.GetProperty("field").GetString(), error.GetProperty("rule").GetString()));
    }

    private static async Task<string?> AtAsync(AgentProcess agent, string at)
    {
        var answer = await agent.GetAsync($"/v1/state?at={Uri.EscapeDataString(at)}&limit=1000");
        Assert.Equal(200, answer.Status);
        return Find(agent, answer.Json);
    }

    private static string? Find(AgentProcess agent, JsonElement list) => list.GetProperty("items").EnumerateArray()
        .Where(item => item.GetProperty("mountpoint").GetString() == agent.PathOf("then")).Select(Shown).SingleOrDefault();

    private static string Shown(JsonElement mountpoint) => JsonSerializer.Serialize(mountpoint);

    /// <summary>The agent's machine and the database's are one, so their clocks are.</summary>
    private static string Now() => DateTimeOffset.UtcNow.ToString("yyyy-MM-dd'T'HH:mm:ss.ffffff'Z'", CultureInfo.InvariantCulture);
}
