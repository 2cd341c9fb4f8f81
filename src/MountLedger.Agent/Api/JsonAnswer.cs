using System.Buffers;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using MountLedger.Wire;

namespace MountLedger.Agent;

/// <summary>An answer that has been written already, with its status; a problem has its own content type.</summary>
public sealed class JsonAnswer(int status, ReadOnlySequence<byte> json, long? version = null) : IResult
{
    /// <summary>How much of a long document is written before the socket is to take it.</summary>
    private const int FlushBytes = 64 * 1024;

    public JsonAnswer(int status, byte[] json, long? version = null) : this(status, new ReadOnlySequence<byte>(json), version) { }

    public int Status => status;

    /// <summary>The document, in UTF-8.</summary>
    public ReadOnlySequence<byte> Json => json;

    public static JsonAnswer Of<T>(T value, JsonTypeInfo<T> type) => new(200, JsonSerializer.SerializeToUtf8Bytes(value, type));

    public static JsonAnswer Of(Problem problem)
    {
        var (status, json) = Answers.Render(problem);
        return new JsonAnswer(status, json);
    }

    /// <summary>The answer of a command; a mountpoint's version is its ETag.</summary>
    public static JsonAnswer Of(CommandResult result)
    {
        var (status, json) = Answers.Render(result);
        return new JsonAnswer(status, json, result switch
        {
            CommandResult.Done done => done.State.Version,
            CommandResult.Pending pending => pending.State.Version,
            CommandResult.Rejected rejected => rejected.State.Version,
            CommandResult.Replayed { Status: 200 } replayed => VersionIn(replayed.Answer),
            _ => null,
        });
    }

    private static long? VersionIn(string answer)
    {
        using var document = JsonDocument.Parse(answer);
        return document.RootElement.TryGetProperty("version", out var version) ? version.GetInt64() : null;
    }

    public async Task ExecuteAsync(HttpContext httpContext)
    {
        var response = httpContext.Response;
        response.StatusCode = status;
        response.ContentType = status >= 400 ? "application/problem+json" : "application/json";
        response.ContentLength = json.Length;
        if (version is { } current) response.Headers.ETag = $"\"{current}\"";
        if (status == 503) response.Headers.RetryAfter = "1";
        var unflushed = 0;
        foreach (var part in json)
        {
            response.BodyWriter.Write(part.Span);
            unflushed += part.Length;
            if (unflushed < FlushBytes) continue;
            unflushed = 0;
            // The caller has gone: nobody reads the rest.
            if ((await response.BodyWriter.FlushAsync(httpContext.RequestAborted)).IsCompleted) return;
        }
        await response.BodyWriter.FlushAsync(httpContext.RequestAborted);
    }
}
