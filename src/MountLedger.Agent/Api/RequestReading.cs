using System.Buffers;
using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using System.Text.Unicode;
using Microsoft.AspNetCore.Http.Features;
using MountLedger.Wire;

namespace MountLedger.Agent;

/// <summary>What could be read of a request, or the problem that answers it.</summary>
public readonly record struct Read<T>(T? Value, Problem? Problem, RequestConditions Conditions);

/// <summary>From the bytes and headers of a request to a value. Every way in which they can be wrong is a problem with a field and a rule.</summary>
public static class RequestReading
{
    /// <summary>A mount request with 64 options of 4 096 bytes fits.</summary>
    public const int BodyBytesMax = 1 << 20;

    /// <summary>A list of 50 000 consumers fits, of 128 characters each.</summary>
    public const int SyncBodyBytesMax = 32 << 20;

    /// <param name="http">The request.</param>
    /// <param name="type">What its body is read as.</param>
    /// <param name="bytesMax">How large the body may be.</param>
    public static async Task<Read<T>> BodyAsync<T>(HttpContext http, JsonTypeInfo<T> type, int bytesMax = BodyBytesMax) where T : class
    {
        var request = http.Request;
        if (http.Features.Get<IHttpMaxRequestBodySizeFeature>() is { IsReadOnly: false } limit) limit.MaxRequestBodySize = bytesMax + 1;
        var errors = new InputErrors();
        Query(http, errors);
        if (errors.Count > 0) return new(null, Problems.Invalid(errors), RequestConditions.None);
        if (request.ContentLength > bytesMax) return TooLarge<T>(bytesMax);
        if (request.ContentType is { Length: > 0 } media && !media.Split(';')[0].Trim().Equals("application/json", StringComparison.OrdinalIgnoreCase))
        {
            return new(null, Problems.OfStatus(
                415, "unsupported-media-type", "send the body as application/json"), RequestConditions.None);
        }

        byte[] body;
        try
        {
            var buffer = new ArrayBufferWriter<byte>(4096);
            int count;
            while ((count = await request.Body.ReadAsync(buffer.GetMemory(4096), http.RequestAborted)) > 0)
            {
                buffer.Advance(count);
                if (buffer.WrittenCount > bytesMax) return TooLarge<T>(bytesMax);
            }
            body = buffer.WrittenSpan.ToArray();
        }
        catch (BadHttpRequestException e) when (e.StatusCode == StatusCodes.Status413PayloadTooLarge)
        {
            return TooLarge<T>(bytesMax); // The server counts what frames the chunks too, and so is the first to find it.
        }
        catch (BadHttpRequestException e)
        {
            return new(null, Problems.Invalid("body", "readable", null, e.Message), RequestConditions.None);
        }

        if (!Utf8.IsValid(body)) return new(null, Problems.Invalid("body", "utf-8", null, "send valid UTF-8"), RequestConditions.None);
        if (body.Length == 0) return new(null, Problems.Invalid("body", "required", null, "send a JSON object"), RequestConditions.None);
        try
        {
            var value = JsonSerializer.Deserialize(body, type);
            return value is null
                ? new(null, Problems.Invalid("body", "json-object", "null", "send a JSON object"), RequestConditions.None)
                : new(value, null, new RequestConditions(null, Convert.ToHexStringLower(SHA256.HashData(body)), null));
        }
        catch (JsonException e)
        {
            return new(null, OfJson(e), RequestConditions.None);
        }
    }

    /// <summary>Adds what the headers say: <c>Idempotency-Key</c>, <c>If-Match</c>.</summary>
    public static Problem? Headers(HttpContext http, ref RequestConditions conditions)
    {
        var errors = new InputErrors();
        if (http.Request.Headers.TryGetValue("Idempotency-Key", out var keys) && keys.Count > 1)
            errors.Add("Idempotency-Key", "once", keys, "give it once");
        else if (keys.Count == 1)
            conditions = conditions with { IdempotencyKey = InputRules.IdempotencyKey("Idempotency-Key", keys.ToString(), errors) };
        if (http.Request.Headers.TryGetValue("If-Match", out var tags) && tags.ToString() != "*")
            conditions = conditions with { IfVersion = InputRules.Version("If-Match", tags.ToString(), errors) };
        return errors.Count == 0 ? null : Problems.Invalid(errors);
    }

    /// <summary>The parameters of a query; unknown or repeated ones are refused, as a misspelt filter must not silently find everything.</summary>
    public static IReadOnlyDictionary<string, string> Query(HttpContext http, InputErrors errors, params ReadOnlySpan<string> known)
    {
        var values = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var (name, value) in http.Request.Query)
        {
            if (!known.Contains(name)) errors.Add(name, "known-parameter", value, known.IsEmpty ? "leave it out: this takes no parameters" : $"give only {string.Join(", ", known.ToArray())}");
            else if (value.Count > 1) errors.Add(name, "once", value, "give it once");
            else values[name] = value.ToString();
        }
        return values;
    }

    private static Read<T> TooLarge<T>(int bytesMax) => new(default, Problems.OfStatus(
        413, "body-too-large", $"body: send at most {bytesMax} bytes (rule body-size)"), RequestConditions.None);

    /// <summary>The serializer says where; what it says why is in terms of .NET types, which are no caller's business.</summary>
    private static Problem OfJson(JsonException exception)
    {
        var field = exception.Path is { Length: > 2 } path && path.StartsWith("$.", StringComparison.Ordinal) ? path[2..] : "body";
        var (rule, remedy) = exception.Message switch
        {
            var message when message.Contains("could not be mapped to any .NET member", StringComparison.Ordinal) =>
                ("known-member", "leave it out: it is not a member of this request"),
            var message when message.Contains("Duplicate property", StringComparison.Ordinal) => ("once", "give it once"),
            // An escape such as \ud83d that stands for half a character; JSON allows to write it, UTF-8 cannot hold it.
            _ when exception.InnerException?.Message.Contains("UTF-16", StringComparison.Ordinal) == true =>
                (InputRule.ValidUtf8, "send whole characters: an escaped surrogate needs its other half"),
            var message when message.Contains("could not be converted", StringComparison.Ordinal) && field != "body" =>
                ("json-type", Expected(field)),
            var message when message.Contains("could not be converted", StringComparison.Ordinal) => ("json-object", "send a JSON object"),
            _ => ("json", $"send well-formed JSON (the error is on line {exception.LineNumber + 1}, byte {exception.BytePositionInLine})"),
        };
        return Problems.Invalid(field, rule, null, remedy);
    }

    private static string Expected(string field) => field switch
    {
        "waitSeconds" => "give a number of seconds from 0 to 3600",
        "options" => "give an array of strings",
        "onFailure" => "give \"forget\" or \"retry\"",
        "ledgerBehind" => "give \"keep-mounts\" or \"trust-ledger\"",
        "mode" => "give \"normal\", \"lazy\" or \"force\"",
        _ => "give a string",
    };
}
