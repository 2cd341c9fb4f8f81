using System.Diagnostics.Metrics;
using System.Text.Json;

namespace MountLedger;

/// <summary>
/// How long calls of the kernel and appends take and what came of them, as instruments of the meter <c>MountLedger</c>: the agent makes <c>/metrics</c>
/// of it, and a program that embeds the agent can listen to it with OpenTelemetry.
/// </summary>
public static class OperationMeter
{
    public const string Name = "MountLedger";

    private static readonly Meter Meter = new(Name);

    private static readonly Histogram<double> Operations = Meter.CreateHistogram<double>(
        "mountledger.operation.duration", "s", "Calls of the worker: prepare, attach, unmount");

    private static readonly Histogram<double> Appends = Meter.CreateHistogram<double>(
        "mountledger.append.duration", "s", "Appends to the ledger, with the wait for the commit");

    internal static async Task<T> TimedAsync<T>(TimeProvider time, string operation, Func<Task<T>> run) where T : class
    {
        var began = time.GetTimestamp();
        var result = await run();
        if (Operations.Enabled)
            Operations.Record(time.GetElapsedTime(began).TotalSeconds, new("operation", operation), new("outcome", OutcomeOf(result)));
        return result;
    }

    /// <param name="result">Null: the ledger could not be reached.</param>
    /// <param name="duration">From the call to its answer.</param>
    internal static void Appended(AppendResult? result, TimeSpan duration)
    {
        if (Appends.Enabled) Appends.Record(duration.TotalSeconds, new KeyValuePair<string, object?>("outcome", result is null ? "unavailable" : OutcomeOf(result)));
    }

    /// <summary>The results are closed hierarchies: the name of the case is the outcome.</summary>
    private static string OutcomeOf(object result) => JsonNamingPolicy.KebabCaseLower.ConvertName(result.GetType().Name);
}
