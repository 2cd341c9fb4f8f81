using System.Globalization;
using MountLedger.Postgres;
using MountLedger.Wire;

namespace MountLedger.Agent;

/// <summary>
/// The reads: mountpoints, one mountpoint's status, the history, the state at a time. They cover all hosts in the ledger: the agent's own unless
/// the query names another, or <c>*</c> for all (not for the state at a time).
/// </summary>
public static class QueryEndpoints
{
    private const string AllHosts = "*";

    public static void MapQueries(this IEndpointRouteBuilder routes)
    {
        routes.MapGet("/v1/mountpoints", ListAsync).WithSummary("Mountpoints that are not absent, or those in one phase")
            .Describes<ListOf<MountpointView>>();
        routes.MapGet("/v1/mountpoints/status", StatusAsync).WithSummary("One mountpoint").Describes<MountpointView>()
            .Produces<Problem>(404, "application/problem+json");
        routes.MapGet("/v1/history", HistoryAsync).WithSummary("Events, oldest first").Describes<ListOf<EventView>>();
        routes.MapGet("/v1/state", StateAsync).WithSummary("Mountpoints as they were at a time, without those that were absent")
            .Describes<ListOf<MountpointView>>();
    }

    private static async Task<IResult> ListAsync(HttpContext http, PresentQueries present, InputPolicy policy)
    {
        var errors = new InputErrors();
        var query = RequestReading.Query(http, errors, "host", "phase", "consumer", "cursor", "limit");
        var host = HostOf(query, policy, errors);
        var consumer = query.TryGetValue("consumer", out var c) ? InputRules.Name("consumer", c, errors) : null;
        var limit = InputRules.Limit("limit", query.GetValueOrDefault("limit"), errors);
        Phase? phase = null;
        if (query.TryGetValue("phase", out var p))
        {
            if (Enum.GetNames<Phase>().Contains(p, StringComparer.OrdinalIgnoreCase) && Enum.TryParse<Phase>(p, ignoreCase: true, out var parsed)) phase = parsed;
            else errors.Add("phase", "known-value", p, "give one of absent, mounting, mounted, unmounting, failed, uncertain");
        }
        if (errors.Count > 0) return JsonAnswer.Of(Problems.Invalid(errors));
        try
        {
            var (page, asOf) = await present.ListAsync(
                new MountpointFilter(host, phase, consumer, query.GetValueOrDefault("cursor"), limit!.Value), http.RequestAborted);
            return JsonAnswer.Of(
                new ListOf<MountpointView>([.. page.Items.Select(Views.Of)], page.Next) { AsOf = asOf }, Answers.Json.ListOfMountpointView);
        }
        catch (FormatException)
        {
            return JsonAnswer.Of(WrongCursor(query["cursor"]));
        }
    }

    private static async Task<IResult> StatusAsync(HttpContext http, PresentQueries present, InputPolicy policy)
    {
        var errors = new InputErrors();
        var query = RequestReading.Query(http, errors, "path", "host");
        var path = InputRules.AbsolutePath("path", query.GetValueOrDefault("path"), errors);
        var host = query.TryGetValue("host", out var h) ? InputRules.HostName("host", h, errors) : policy.Host;
        if (errors.Count > 0) return JsonAnswer.Of(Problems.Invalid(errors));

        var (state, asOf) = await present.StatusAsync(new StreamKey(host!, path!), http.RequestAborted);
        if (state.Version == 0)
            return JsonAnswer.Of(Problems.NotFound($"nothing was ever recorded of {path} on host {host}: `mountledger ls` shows what is"));
        return new JsonAnswer(
            200, System.Text.Json.JsonSerializer.SerializeToUtf8Bytes(Views.Of(state) with { AsOf = asOf }, Answers.Json.MountpointView), state.Version);
    }

    private static async Task<IResult> HistoryAsync(HttpContext http, LedgerAccess ledger, NodeAccess access, InputPolicy policy, TimeProvider time)
    {
        var errors = new InputErrors();
        var query = RequestReading.Query(
            http, errors, "host", "path", "consumer", "volume", "actor", "type", "since", "until", "cursor", "limit", "order");
        var now = time.GetUtcNow();
        string? Text(string field, Func<string, string?, InputErrors, string?> rule) =>
            query.TryGetValue(field, out var value) ? rule(field, value, errors) : null;
        DateTimeOffset? Time(string field) =>
            query.TryGetValue(field, out var value) ? InputRules.Time(field, value, now, errors) : null;

        var filter = new HistoryFilter(
            HostOf(query, policy, errors), Text("path", PathOrHostStream), Text("consumer", InputRules.Name),
            Text("volume", InputRules.Name), Text("actor", InputRules.Actor), Text("type", InputRules.EventType),
            Time("since"), Time("until"));
        var limit = InputRules.Limit("limit", query.GetValueOrDefault("limit"), errors);
        var order = query.GetValueOrDefault("order", "asc");
        if (order is not ("asc" or "desc")) errors.Add("order", "known-value", order, "give asc or desc");
        if (errors.Count > 0) return JsonAnswer.Of(Problems.Invalid(errors));

        long? after = null;
        if (query.TryGetValue("cursor", out var cursor))
        {
            if (!long.TryParse(cursor, NumberStyles.None, CultureInfo.InvariantCulture, out var seq)) return JsonAnswer.Of(WrongCursor(cursor));
            after = seq;
        }
        var page = await access.Ledger.AskAsync(() => ledger.Queries.ReadHistoryAsync(
            filter with { AfterSeq = after, NewestFirst = order == "desc", Limit = limit!.Value }, http.RequestAborted));
        return JsonAnswer.Of(new ListOf<EventView>([.. page.Items.Select(Views.Of)], page.Next), Answers.Json.ListOfEventView);
    }

    private static async Task<IResult> StateAsync(HttpContext http, LedgerAccess ledger, NodeAccess access, InputPolicy policy, TimeProvider time)
    {
        var errors = new InputErrors();
        var query = RequestReading.Query(http, errors, "at", "host", "cursor", "limit");
        var now = time.GetUtcNow();
        var at = InputRules.Time("at", query.GetValueOrDefault("at"), now, errors);
        if (at > now) errors.Add("at", InputRule.Time, query["at"], "give a time that is not in the future");
        var host = query.TryGetValue("host", out var h) ? InputRules.HostName("host", h, errors) : policy.Host;
        var limit = InputRules.Limit("limit", query.GetValueOrDefault("limit"), errors);
        if (errors.Count > 0) return JsonAnswer.Of(Problems.Invalid(errors));
        try
        {
            var page = await access.Ledger.AskAsync(() => ledger.Past.ReadAsync(
                host!, at!.Value, query.GetValueOrDefault("cursor"), limit!.Value, http.RequestAborted));
            return JsonAnswer.Of(new ListOf<MountpointView>([.. page.Items.Select(Views.Of)], page.Next), Answers.Json.ListOfMountpointView);
        }
        catch (FormatException)
        {
            return JsonAnswer.Of(WrongCursor(query["cursor"]));
        }
    }

    /// <summary>Null: all hosts.</summary>
    private static string? HostOf(IReadOnlyDictionary<string, string> query, InputPolicy policy, InputErrors errors) =>
        !query.TryGetValue("host", out var host) ? policy.Host
        : host == AllHosts ? null
        : InputRules.HostName("host", host, errors);

    private static string? PathOrHostStream(string field, string? value, InputErrors errors) =>
        value == HostEvent.StreamId ? value : InputRules.AbsolutePath(field, value, errors);

    private static Problem WrongCursor(string cursor) =>
        Problems.Invalid("cursor", "cursor", cursor, "give the `next` of an earlier answer to the same query");

    private static RouteHandlerBuilder Describes<T>(this RouteHandlerBuilder route) => route
        .Produces<T>(200).Produces<Problem>(400, "application/problem+json").Produces<Problem>(503, "application/problem+json");
}
