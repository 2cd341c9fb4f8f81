using System.Text;
using MountLedger.Wire;

namespace MountLedger.Agent;

/// <summary>
/// What the headers of an operator's request mean, one that is no command of a single mountpoint: an <c>Idempotency-Key</c> gets the same answer again, <c>If-Match</c>
/// is honoured where there is a version, and refused where there is none.
/// </summary>
public static class OperatorRequests
{
    /// <summary>Runs a request once for each key, and answers what it came to.</summary>
    /// <param name="http">The request; its actor is the peer of the socket.</param>
    /// <param name="conditions">Of <see cref="RequestReading.BodyAsync"/>, with the hash of the body.</param>
    /// <param name="takesVersion">It is about one mountpoint, so that <c>If-Match</c> means something.</param>
    /// <param name="run">Carries it out; the version that is expected, if any.</param>
    public static async Task<IResult> RunAsync(HttpContext http, RequestConditions conditions, bool takesVersion, Func<long?, Task<JsonAnswer>> run)
    {
        if (RequestReading.Headers(http, ref conditions) is { } problem) return JsonAnswer.Of(problem);
        if (!takesVersion && http.Request.Headers.IfMatch.Count > 0)
        {
            return JsonAnswer.Of(Problems.Invalid(
                "If-Match", "no-version", http.Request.Headers.IfMatch, "leave it out: this is not about one mountpoint, and has no version"));
        }
        if (conditions.IdempotencyKey is not { } key) return await run(conditions.IfVersion);

        var access = http.RequestServices.GetRequiredService<NodeAccess>();
        if (access.Node is not { } node) return JsonAnswer.Of(Problems.Unavailable(access.NotServing));
        var (host, actor, store) = (node.Agent.Host, Caller.ActorOf(http), http.RequestServices.GetRequiredService<LedgerAccess>().Store);
        // What was asked is the route as well: pause and resume have the same body.
        var asked = $"{http.Request.Path} {conditions.BodyHash}";
        if (await access.Ledger.AskAsync(async () => await store.FindRequestAsync(host, key, CancellationToken.None)) is { } earlier)
            return Again(earlier, asked, actor);

        var answer = await run(conditions.IfVersion);
        if (answer.Status >= 500) return answer; // Not an answer to keep: the repeat is to try again, and what is so already is recorded once.
        var json = Encoding.UTF8.GetString(answer.Json);
        var row = await access.Ledger.RecordAsync(async () => await store.SaveAnswerAsync(
            host, new StoredRequest(key, actor, asked, Mountpoint: null, Version: null, answer.Status, json), CancellationToken.None));
        return row.Answer == json && row.BodyHash == asked ? answer : Again(row, asked, actor);
    }

    private static JsonAnswer Again(StoredRequest row, string asked, string actor) =>
        row.BodyHash != asked || row.Actor != actor
            ? JsonAnswer.Of(new CommandResult.KeyReused(row.Key))
            : new JsonAnswer(row.Status ?? 200, Encoding.UTF8.GetBytes(row.Answer ?? ""));
}
