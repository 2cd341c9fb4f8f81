using System.Text;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;

namespace MountLedger.Cli.Tests;

/// <summary>
/// An HTTP server on a unix socket that answers what a test says, and keeps what it was asked. It stands in for the agent
/// only here, where the client's own part is tested: command line, exit codes, output.
/// </summary>
internal sealed class ScriptedAgent : IAsyncDisposable
{
    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("mountledger-cli-");
    private readonly WebApplication _server;

    private ScriptedAgent(RequestDelegate answer)
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.ConfigureKestrel(kestrel => kestrel.ListenUnixSocket(Socket));
        _server = builder.Build();
        _server.Run(async context =>
        {
            using var reader = new StreamReader(context.Request.Body, Encoding.UTF8);
            var body = await reader.ReadToEndAsync();
            lock (Asked)
            {
                Asked.Add(new Request(
                    $"{context.Request.Method} {context.Request.Path}{context.Request.QueryString}",
                    body,
                    context.Request.Headers["Idempotency-Key"].ToString(),
                    context.Request.Headers.IfMatch.ToString()));
            }

            await answer(context);
        });
    }

    public string Socket => Path.Combine(_directory.FullName, "agent.sock");

    public List<Request> Asked { get; } = [];

    public static Task<ScriptedAgent> AnsweringAsync(int status, string body) => StartAsync(async context =>
    {
        context.Response.StatusCode = status;
        await context.Response.WriteAsync(body);
    });

    public static async Task<ScriptedAgent> StartAsync(RequestDelegate answer)
    {
        var agent = new ScriptedAgent(answer);
        await agent._server.StartAsync();
        return agent;
    }

    public async ValueTask DisposeAsync()
    {
        using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(1));
        await _server.StopAsync(deadline.Token);
        await _server.DisposeAsync();
        _directory.Delete(recursive: true);
    }

    internal sealed record Request(string Line, string Body, string IdempotencyKey, string IfMatch);
}

/// <summary>One run of the client in this process.</summary>
internal sealed record Ran(int Code, string Out, string Error)
{
    public static readonly DateTimeOffset Now = new(2026, 1, 31, 12, 0, 0, TimeSpan.Zero);

    public static Task<Ran> Async(ScriptedAgent agent, params string[] args) => Async(agent.Socket, args);

    public static async Task<Ran> Async(string socket, string[] args, Func<Surroundings, Surroundings>? change = null)
    {
        using var output = new MemoryStream();
        using var error = new StringWriter { NewLine = "\n" };
        var surroundings = new Surroundings
        {
            Out = output,
            Error = error,
            Variable = name => name == AgentClient.SocketVariable ? socket : null,
            Clock = new StandingClock(),
        };
        var code = await Program.RunAsync(args, change?.Invoke(surroundings) ?? surroundings);
        return new Ran(code, Encoding.UTF8.GetString(output.ToArray()), error.ToString());
    }

    private sealed class StandingClock : TimeProvider
    {
        public override DateTimeOffset GetUtcNow() => Now;
    }
}

/// <summary>Answers as the agent gives them.</summary>
internal static class Sample
{
    public const string Mounted = """
        {"host":"node-1","mountpoint":"/srv/a","phase":"mounted","version":3,"generation":1,"source":"tmpfs","fstype":"tmpfs","options":["nodev","nosuid"],"attachments":[{"volume":"v","consumer":"c","since":"2026-01-31T11:00:00.123456+00:00","actor":"uid:0"}],"kernel":{"bootId":"b","mountId":4711},"error":null,"updatedAt":"2026-01-31T11:00:00.5+00:00","outcome":"mounted"}
        """;

    public static string Outcome(string outcome, string phase = "mounted") =>
        Mounted.Replace("\"outcome\":\"mounted\"", $"\"outcome\":\"{outcome}\"", StringComparison.Ordinal)
            .Replace("\"phase\":\"mounted\"", $"\"phase\":\"{phase}\"", StringComparison.Ordinal);

    public static string Problem(int status, string name, string detail, string more = "") =>
        $$"""{"type":"https://mountledger.dev/problems/{{name}}","title":"t","status":{{status}},"detail":"{{detail}}"{{more}}}""";

    public static string Event(int seq, string type = "mounted", string data = "{}") => $$$"""
        {"seq":{{{seq}}},"host":"node-1","mountpoint":"/srv/a","version":{{{seq}}},"type":"{{{type}}}","at":"2026-01-31T11:00:00.123456+00:00","actor":"uid:0","correlationId":"x","data":{{{data}}},"hash":"00"}
        """;

    public static string List(string? next, params string[] items) =>
        $$"""{"items":[{{string.Join(',', items)}}],"next":{{(next is null ? "null" : $"\"{next}\"")}}}""";
}
