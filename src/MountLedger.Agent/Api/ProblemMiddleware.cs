using MountLedger.Wire;

namespace MountLedger.Agent;

/// <summary>Whatever goes wrong around an endpoint is answered as a problem too, and never with a stack trace.</summary>
public static class ProblemMiddleware
{
    public static void UseProblems(this WebApplication app)
    {
        var logger = app.Services.GetRequiredService<ILoggerFactory>().CreateLogger("mountledgerd");
        app.Use(async (http, next) =>
        {
            Problem? problem;
            try
            {
                await next(http);
                problem = http.Response.HasStarted ? null : OfStatus(http);
            }
            catch (LedgerUnavailableException e)
            {
                problem = Problems.Unavailable(e.Message);
            }
            catch (OperationCanceledException) when (http.RequestAborted.IsCancellationRequested)
            {
                return; // Nobody is there to be answered.
            }
#pragma warning disable CA1031 // The agent goes on whatever one request does to it.
            catch (Exception e)
#pragma warning restore CA1031
            {
                logger.RequestFailed(http.Request.Method, http.Request.Path, e);
                problem = Problems.OfStatus(500, "internal", "the agent failed; its log says why");
            }
            if (problem is not null && !http.Response.HasStarted) await JsonAnswer.Of(problem).ExecuteAsync(http);
        });
    }

    private static Problem? OfStatus(HttpContext http) => http.Response.StatusCode switch
    {
        404 when http.GetEndpoint() is null => Problems.NotFound($"there is no {http.Request.Path}: /openapi/v1.json lists what there is"),
        405 => Problems.OfStatus(405, "method-not-allowed", $"{http.Request.Method} is not for {http.Request.Path}: /openapi/v1.json says what is"),
        413 => Problems.OfStatus(413, "body-too-large", "body: send less"),
        415 => Problems.OfStatus(415, "unsupported-media-type", "send the body as application/json"),
        _ => null,
    };
}
