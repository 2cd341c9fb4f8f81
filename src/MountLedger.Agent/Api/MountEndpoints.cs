using MountLedger.Wire;

namespace MountLedger.Agent;

/// <summary><c>POST /v1/mounts</c>, <c>POST /v1/unmounts</c> and <c>POST /v1/remounts</c>.</summary>
public static class MountEndpoints
{
    public static void MapMounts(this IEndpointRouteBuilder routes)
    {
        routes.MapPost("/v1/mounts", MountAsync)
            .Accepts<MountRequest>("application/json")
            .DescribesOutcome("Attach a volume for a consumer, mounting when it is the first");
        routes.MapPost("/v1/unmounts", UnmountAsync)
            .Accepts<UnmountRequest>("application/json")
            .DescribesOutcome("Detach a volume of a consumer, unmounting when it was the last");
        routes.MapPost("/v1/remounts", RemountAsync)
            .Accepts<RemountRequest>("application/json")
            .DescribesOutcome("Change options of a live mount; those that are not named stay");
    }

    private static async Task<IResult> MountAsync(HttpContext http, MountVolumeHandler handler)
    {
        var read = await RequestReading.BodyAsync(http, RequestJson.Default.MountRequest);
        var conditions = read.Conditions;
        if ((read.Problem ?? RequestReading.Headers(http, ref conditions)) is { } problem) return JsonAnswer.Of(problem);
        var body = read.Value!;
        var command = new MountVolume
        {
            Actor = Caller.ActorOf(http),
            Host = body.Host,
            Mountpoint = body.Mountpoint,
            Source = body.Source,
            Fstype = body.Fstype,
            Options = body.Options,
            Volume = body.Volume,
            Consumer = body.Consumer,
            OnFailure = body.OnFailure,
            WaitSeconds = body.WaitSeconds,
            Conditions = conditions,
        };
        return JsonAnswer.Of(await handler.Handle(command, http.RequestAborted));
    }

    private static async Task<IResult> UnmountAsync(HttpContext http, UnmountVolumeHandler handler)
    {
        var read = await RequestReading.BodyAsync(http, RequestJson.Default.UnmountRequest);
        var conditions = read.Conditions;
        if ((read.Problem ?? RequestReading.Headers(http, ref conditions)) is { } problem) return JsonAnswer.Of(problem);
        var body = read.Value!;
        var command = new UnmountVolume
        {
            Actor = Caller.ActorOf(http),
            Host = body.Host,
            Mountpoint = body.Mountpoint,
            Volume = body.Volume,
            Consumer = body.Consumer,
            Mode = body.Mode,
            WaitSeconds = body.WaitSeconds,
            Conditions = conditions,
        };
        return JsonAnswer.Of(await handler.Handle(command, http.RequestAborted));
    }

    private static async Task<IResult> RemountAsync(HttpContext http, RemountVolumeHandler handler)
    {
        var read = await RequestReading.BodyAsync(http, RequestJson.Default.RemountRequest);
        var conditions = read.Conditions;
        if ((read.Problem ?? RequestReading.Headers(http, ref conditions)) is { } problem) return JsonAnswer.Of(problem);
        var body = read.Value!;
        var command = new RemountVolume
        {
            Actor = Caller.ActorOf(http),
            Host = body.Host,
            Mountpoint = body.Mountpoint,
            Options = body.Options,
            WaitSeconds = body.WaitSeconds,
            Conditions = conditions,
        };
        return JsonAnswer.Of(await handler.Handle(command, http.RequestAborted));
    }

    private static void DescribesOutcome(this RouteHandlerBuilder route, string summary) => route
        .WithSummary(summary)
        .Produces<OutcomeView>(200).Produces<OutcomeView>(202)
        .Produces<Problem>(400, "application/problem+json").Produces<Problem>(403, "application/problem+json")
        .Produces<Problem>(409, "application/problem+json").Produces<Problem>(412, "application/problem+json")
        .Produces<Problem>(422, "application/problem+json").Produces<Problem>(503, "application/problem+json");
}
