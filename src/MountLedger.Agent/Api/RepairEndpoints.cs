using System.Collections.Immutable;
using MountLedger.Postgres;
using MountLedger.Wire;

namespace MountLedger.Agent;

/// <summary><c>GET /v1/drift</c>, <c>POST /v1/reconcile</c>, <c>POST /v1/pause|resume</c>, <c>POST /v1/hosts/{host}/sync</c>.</summary>
public static class RepairEndpoints
{
    public static void MapRepairs(this IEndpointRouteBuilder routes)
    {
        routes.MapGet("/v1/drift", DriftAsync).WithSummary("What differs between ledger and kernel").Produces<ListOf<DriftView>>(200)
            .Produces<Problem>(400, "application/problem+json").Produces<Problem>(503, "application/problem+json");
        Describe<ListOf<RepairView>>(
            routes.MapPost("/v1/reconcile", ReconcileAsync).Accepts<ReconcileRequest>("application/json"),
            "Repair what differs, of one mountpoint or of all, or say what would be done");
        Describe<MountpointView>(
            routes.MapPost("/v1/pause", (HttpContext http, RepairHandler handler) => PauseAsync(http, handler, paused: true)).Accepts<RepairRequest>("application/json"),
            "Pause the automatic repair of a mountpoint");
        Describe<MountpointView>(
            routes.MapPost("/v1/resume", (HttpContext http, RepairHandler handler) => PauseAsync(http, handler, paused: false)).Accepts<RepairRequest>("application/json"),
            "Resume the automatic repair of a mountpoint");
        Describe<SyncView>(
            routes.MapPost("/v1/hosts/{host}/sync", SyncAsync).Accepts<SyncRequest>("application/json"),
            "Remove the attachments of consumers that are not alive any more");
    }

    private static void Describe<T>(RouteHandlerBuilder route, string summary) => route.WithSummary(summary).Produces<T>(200)
        .Produces<Problem>(400, "application/problem+json").Produces<Problem>(403, "application/problem+json")
        .Produces<Problem>(404, "application/problem+json").Produces<Problem>(503, "application/problem+json");

    private static async Task<IResult> DriftAsync(HttpContext http, PresentQueries present, InputPolicy policy)
    {
        var errors = new InputErrors();
        var query = RequestReading.Query(http, errors, "host", "cursor", "limit");
        var host = query.TryGetValue("host", out var h) ? h == "*" ? null : InputRules.HostName("host", h, errors) : policy.Host;
        var limit = InputRules.Limit("limit", query.GetValueOrDefault("limit"), errors);
        if (errors.Count > 0) return JsonAnswer.Of(Problems.Invalid(errors));
        try
        {
            var (page, asOf) = await present.ListAsync(
                new MountpointFilter(host, Cursor: query.GetValueOrDefault("cursor"), Limit: limit!.Value, Drifted: true), http.RequestAborted);
            var items = page.Items.SelectMany(state => state.Drift.Select(drift =>
                new DriftView(state.Stream.Host, state.Mountpoint, drift.Key, drift.Value, state.Phase, state.RepairPaused)));
            return JsonAnswer.Of(new ListOf<DriftView>([.. items], page.Next) { AsOf = asOf }, Answers.Json.ListOfDriftView);
        }
        catch (FormatException)
        {
            return JsonAnswer.Of(Problems.Invalid("cursor", "cursor", query["cursor"], "give the cursor of the page before, unchanged"));
        }
    }

    private static async Task<IResult> ReconcileAsync(HttpContext http, RepairHandler handler)
    {
        var read = await RequestReading.BodyAsync(http, RequestJson.Default.ReconcileRequest);
        if (read.Problem is { } problem) return JsonAnswer.Of(problem);
        var body = read.Value!;
        var command = new Reconcile(Caller.ActorOf(http), body.Host, body.Mountpoint, body.DryRun == true, body.LedgerBehind, body.Reason);
        return await OperatorRequests.RunAsync(
            http, read.Conditions, takesVersion: false, async _ => Of(await handler.Handle(command, http.RequestAborted)));
    }

    private static async Task<IResult> PauseAsync(HttpContext http, RepairHandler handler, bool paused)
    {
        var read = await RequestReading.BodyAsync(http, RequestJson.Default.RepairRequest);
        if (read.Problem is { } problem) return JsonAnswer.Of(problem);
        var body = read.Value!;
        if (!paused && body.Reason is not null)
            return JsonAnswer.Of(Problems.Invalid("reason", "unknown-member", body.Reason, "leave it out: a resume has no reason"));
        return await OperatorRequests.RunAsync(
            http, read.Conditions, takesVersion: true,
            async version => Of(await handler.Handle(
                new PauseRepair(Caller.ActorOf(http), body.Host, body.Mountpoint, paused, body.Reason) { IfVersion = version }, http.RequestAborted)));
    }

    private static async Task<IResult> SyncAsync(HttpContext http, string host, RepairHandler handler)
    {
        var read = await RequestReading.BodyAsync(http, RequestJson.Default.SyncRequest, RequestReading.SyncBodyBytesMax);
        if (read.Problem is { } problem) return JsonAnswer.Of(problem);
        var body = read.Value!;
        return await OperatorRequests.RunAsync(http, read.Conditions, takesVersion: false, async _ =>
        {
            var answer = await handler.Handle(
                new SyncConsumers(Caller.ActorOf(http), host, body.Consumers, body.AsOf, body.DryRun == true), http.RequestAborted);
            return answer is RepairAnswer.Synced synced
                ? JsonAnswer.Of(
                    new SyncView(
                        host, synced.AsOf, synced.ConsumersAlive, body.DryRun == true,
                        [.. synced.Removed.Select(line => new SyncedAttachmentView(
                            line.Mountpoint, line.Attachment.Volume, line.Attachment.Consumer, line.Attachment.Since))]),
                    Answers.Json.SyncView)
                : Of(answer);
        });
    }

    private static JsonAnswer Of(RepairAnswer answer) => answer switch
    {
        RepairAnswer.Changed changed => new JsonAnswer(
            200, System.Text.Json.JsonSerializer.SerializeToUtf8Bytes(Views.Of(changed.State), Answers.Json.MountpointView), changed.State.Version),
        RepairAnswer.Reconciled done => JsonAnswer.Of(
            new ListOf<RepairView>([.. done.Lines.Select(Views.Of)], Next: null), Answers.Json.ListOfRepairView),
        RepairAnswer.Rejected rejected => JsonAnswer.Of(new CommandResult.Rejected(rejected.Rejection, rejected.State)),
        RepairAnswer.NotFound missing => JsonAnswer.Of(Problems.NotFound($"nothing was ever recorded of {missing.Mountpoint}: `mountledger ls` shows what is")),
        RepairAnswer.Invalid invalid => JsonAnswer.Of(Problems.Invalid(invalid.Errors)),
        RepairAnswer.Unavailable unavailable => JsonAnswer.Of(Problems.Unavailable(unavailable.Reason)),
        _ => throw new ArgumentOutOfRangeException(nameof(answer), answer, "not an answer"),
    };
}
