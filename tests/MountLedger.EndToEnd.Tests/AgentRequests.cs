using System.Diagnostics;
using System.Net.Http.Json;
using System.Text.Json;
using MountLedger.Postgres;
using Npgsql;

namespace MountLedger.EndToEnd;

/// <summary>What the agent answered.</summary>
public sealed record Answer(int Status, string Text, string? Tag)
{
    public JsonElement Json => JsonDocument.Parse(Text).RootElement;

    public string? Outcome => Json.TryGetProperty("outcome", out var outcome) ? outcome.GetString() : null;

    public string Phase => Json.GetProperty("phase").GetString()!;

    public long Version => Json.GetProperty("version").GetInt64();

    /// <summary>The last segment of a problem's type.</summary>
    public string? Problem => Json.TryGetProperty("type", out var type) ? type.GetString()!.Split('/')[^1] : null;

    public string Detail => Json.GetProperty("detail").GetString()!;

    public override string ToString() => $"{Status} {Text}";
}

/// <summary>Requests to an agent and reads of its ledger, in the words of the tests.</summary>
public static class AgentRequests
{
    private static readonly TimeSpan AwayMax = TimeSpan.FromSeconds(60);

    public static Task<Answer> MountAsync(
        this AgentProcess agent, string name, string consumer, string source = "scratch", string fstype = "tmpfs", string[]? options = null,
        double? wait = null, string? onFailure = null, params (string Name, string Value)[] headers) =>
        agent.PostAsync(
            "/v1/mounts",
            new { mountpoint = agent.PathOf(name), source, fstype, options = options ?? [], volume = "vol", consumer, onFailure, waitSeconds = wait },
            headers);

    public static Task<Answer> UnmountAsync(
        this AgentProcess agent, string name, string consumer, double? wait = null, string? mode = null, params (string Name, string Value)[] headers) =>
        agent.PostAsync(
            "/v1/unmounts", new { mountpoint = agent.PathOf(name), volume = "vol", consumer, mode, waitSeconds = wait }, headers);

    public static async Task<Answer> PostAsync(this AgentProcess agent, string route, object? body, params (string Name, string Value)[] headers)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, route) { Content = body is null ? null : JsonContent.Create(body) };
        return await agent.SendAsync(request, headers);
    }

    public static async Task<Answer> GetAsync(this AgentProcess agent, string route)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, route);
        return await agent.SendAsync(request);
    }

    public static async Task<Answer> SendAsync(this AgentProcess agent, HttpRequestMessage request, params (string Name, string Value)[] headers)
    {
        foreach (var (name, value) in headers) request.Headers.TryAddWithoutValidation(name, value);
        using var answer = await agent.Http.SendAsync(request);
        return new Answer((int)answer.StatusCode, await answer.Content.ReadAsStringAsync(), answer.Headers.ETag?.ToString());
    }

    /// <summary>
    /// The first answer that is not 503, for tests that are not about that: a PostgreSQL, or a network to it, that gets no time for a moment is told as one
    /// that is away.
    /// </summary>
    /// <param name="ask">Sends the request.</param>
    /// <param name="enough">From then on 503 is an answer too.</param>
    public static async Task<Answer> ServedAsync(Func<Task<Answer>> ask, CancellationToken enough = default)
    {
        var clock = Stopwatch.StartNew();
        while (true)
        {
            var answer = await ask();
            if (answer.Status != 503 || enough.IsCancellationRequested || clock.Elapsed > AwayMax) return answer;
            await Task.Delay(50, CancellationToken.None);
        }
    }

    public static Task<Answer> StatusAsync(this AgentProcess agent, string name) =>
        agent.GetAsync($"/v1/mountpoints/status?path={Uri.EscapeDataString(agent.PathOf(name))}");

    public static Task UntilPhaseAsync(this AgentProcess agent, string name, string phase) => agent.UntilAsync(
        async () => await agent.StatusAsync(name) is { Status: 200 } status && status.Phase == phase, $"{name} is {phase}");

    /// <summary>The stored names of a mountpoint's events over HTTP, oldest first; of the host itself for <c>@host</c>.</summary>
    public static async Task<string[]> EventsAsync(this AgentProcess agent, string name)
    {
        var path = name == "@host" ? name : agent.PathOf(name);
        var answer = await agent.GetAsync($"/v1/history?path={Uri.EscapeDataString(path)}&host={AgentProcess.HostName}&limit=1000");
        Assert.Equal(200, answer.Status);
        return [.. answer.Json.GetProperty("items").EnumerateArray().Select(item => item.GetProperty("type").GetString()!)];
    }

    /// <summary>One number out of the ledger itself.</summary>
    public static async Task<long> CountAsync(this AgentProcess agent, string sql)
    {
        await using var connection = new NpgsqlConnection($"{agent.Postgres};Pooling=false");
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand(sql, connection);
        return (long)(await command.ExecuteScalarAsync())!;
    }

    /// <summary>The folded states of all mountpoints that the ledger knows of this agent's host.</summary>
    public static async Task<IReadOnlyList<MountState>> StatesAsync(this AgentProcess agent)
    {
        await using var database = LedgerDatabase.Open(agent.Postgres!);
        var page = new List<MountState>();
        string? cursor = null;
        do
        {
            var next = await new LedgerQueries(database).ListMountpointsAsync(
                new MountpointFilter(AgentProcess.HostName, null, null, cursor, 1000), CancellationToken.None);
            page.AddRange(next.Items);
            cursor = next.Next;
        }
        while (cursor is not null);
        return page;
    }
}
