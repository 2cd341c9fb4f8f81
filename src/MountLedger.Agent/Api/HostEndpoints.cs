using MountLedger.Postgres;
using MountLedger.Wire;

namespace MountLedger.Agent;

/// <summary><c>GET /v1/hosts</c>, <c>POST /v1/hosts/{host}/up|down</c>, and how the agent itself is.</summary>
public static class HostEndpoints
{
    public static void MapHosts(this IEndpointRouteBuilder routes)
    {
        routes.MapGet("/v1/hosts", ListAsync).WithSummary("All hosts of the ledger").Produces<ListOf<HostView>>(200);
        routes.MapPost("/v1/hosts/{host}/up", (HttpContext http, string host) => ChangeAsync(http, host, up: true))
            .WithSummary("Take mounts again").Accepts<HostChangeRequest>("application/json").Produces<HostView>(200);
        routes.MapPost("/v1/hosts/{host}/down", (HttpContext http, string host) => ChangeAsync(http, host, up: false))
            .WithSummary("Take no new mounts; unmounts go on").Accepts<HostChangeRequest>("application/json").Produces<HostView>(200);

        routes.MapGet("/v1/doctor", DoctorAsync).WithSummary("What this host has and lacks, with remedies").Produces<DoctorView>(200);
        routes.MapGet("/healthz", () => Results.Text("alive\n")).WithSummary("The program runs");
        routes.MapGet("/readyz", ReadyAsync).WithSummary("Commands are taken").Produces<Problem>(503, "application/problem+json");
    }

    private static async Task<IResult> ListAsync(HttpContext http, PresentQueries present, InputPolicy policy, NodeAccess access)
    {
        var errors = new InputErrors();
        var query = RequestReading.Query(http, errors, "host");
        var only = query.TryGetValue("host", out var h) ? InputRules.HostName("host", h, errors) : null;
        if (errors.Count > 0) return JsonAnswer.Of(Problems.Invalid(errors));
        var (hosts, asOf) = await present.HostsAsync(http.RequestAborted);
        var views = hosts.Where(summary => only is null || summary.State.Host == only).Select(summary => Of(summary, policy, access.Node));
        return JsonAnswer.Of(new ListOf<HostView>([.. views], Next: null) { AsOf = asOf }, Answers.Json.ListOfHostView);
    }

    private static async Task<IResult> ChangeAsync(HttpContext http, string host, bool up)
    {
        string? reason = null;
        var conditions = RequestConditions.None;
        if (http.Request.ContentLength is not (null or 0) || http.Request.Headers.TransferEncoding.Count > 0)
        {
            var read = await RequestReading.BodyAsync(http, RequestJson.Default.HostChangeRequest);
            if (read.Problem is { } problem) return JsonAnswer.Of(problem);
            (reason, conditions) = (read.Value!.Reason, read.Conditions);
        }
        return await OperatorRequests.RunAsync(http, conditions, takesVersion: false, _ => ChangeAsync(http, host, up, reason));
    }

    private static async Task<JsonAnswer> ChangeAsync(HttpContext http, string host, bool up, string? reason)
    {
        var handler = http.RequestServices.GetRequiredService<ChangeHostHandler>();
        switch (await handler.Handle(new ChangeHost(Caller.ActorOf(http), host, up, reason), http.RequestAborted))
        {
            case HostResult.Invalid invalid: return JsonAnswer.Of(Problems.Invalid(invalid.Errors));
            case HostResult.Unavailable unavailable: return JsonAnswer.Of(Problems.Unavailable(unavailable.Reason));
        }
        var (hosts, _) = await http.RequestServices.GetRequiredService<PresentQueries>().HostsAsync(http.RequestAborted);
        var policy = http.RequestServices.GetRequiredService<InputPolicy>();
        return JsonAnswer.Of(
            Of(hosts.First(summary => summary.State.Host == host), policy, http.RequestServices.GetRequiredService<NodeAccess>().Node), Answers.Json.HostView);
    }

    private static async Task<IResult> DoctorAsync(HttpContext http, AgentExamination examination)
    {
        var errors = new InputErrors();
        RequestReading.Query(http, errors);
        return errors.Count > 0
            ? JsonAnswer.Of(Problems.Invalid(errors))
            : JsonAnswer.Of(await examination.RunAsync(http.RequestAborted), Answers.Json.DoctorView);
    }

    private static async Task<IResult> ReadyAsync(HttpContext http, NodeAccess access, LedgerAccess ledger)
    {
        if (access.Node is not { } node) return JsonAnswer.Of(Problems.Unavailable(access.NotServing));
        if (node.Journal.IsFenced) return JsonAnswer.Of(Problems.Unavailable($"host {node.Agent.Host} is served by another agent now"));
        await access.Ledger.AskAsync(async () => await ledger.Store.LoadHostStateAsync(node.Agent.Host, http.RequestAborted));
        if (access.Ledger.Unwritable is { } why) return JsonAnswer.Of(Problems.Unavailable(why));
        var heads = http.RequestServices.GetRequiredService<MountLedgerService>().HeadsProblem is { } problem
            ? $"what the agent has seen of its ledger cannot be kept: {problem}\n" : "";
        return Results.Text(heads + (node.Behind.Count() is > 0 and var behind
            ? $"ready\nledger-behind: {behind} mountpoints are left alone until an operator decides\n"
            : "ready\n"));
    }

    private static HostView Of(HostSummary summary, InputPolicy policy, HostNode? node) => new(
        summary.State.Host, summary.State.Host == policy.Host, summary.State.IsUp, summary.State.DownReason, summary.State.DownBy, summary.State.DownSince,
        summary.State.Agent is { } agent
            ? new AgentView(agent.Agent, agent.Epoch, agent.BootId, agent.Kernel, agent.Version, summary.State.AgentStartedAt ?? default)
            : null,
        summary.Mountpoints, summary.Attachments)
    {
        LedgerBehind = summary.State.Host == node?.Agent.Host ? node.Behind.Count() : 0,
        Repair = summary.State.Host == node?.Agent.Host && node.Progress() is { ToRepair: > 0 } progress
            ? new RepairProgressView(progress.ToRepair, progress.Done, progress.Failed) : null,
    };
}
