using System.Diagnostics.Metrics;
using System.Globalization;

namespace MountLedger.Agent;

/// <summary>
/// Listens to the instruments of the parts that have some (our own, Npgsql's pool, the web server) and keeps their sums. Bounded: as many series as
/// <see cref="SeriesMax"/> for one family; what comes beyond is dropped and counted.
/// </summary>
public sealed class MeterReadings : IDisposable
{
    private const int SeriesMax = 200;

    private static readonly double[] Bounds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

    private static readonly Source[] Sources =
    [
        new("mountledger.operation.duration", "mountledger_operation_duration_seconds", "Calls of the worker by what came of them",
            [("operation", "operation"), ("outcome", "outcome")]),
        new("mountledger.append.duration", "mountledger_append_duration_seconds", "Appends to the ledger by what came of them", [("outcome", "outcome")]),
        new("http.server.request.duration", "mountledger_http_request_duration_seconds", "Requests to the agent, with the wait for outcomes",
            [("http.request.method", "method"), ("http.route", "route"), ("http.response.status_code", "status")]),
        new("db.client.connection.count", "mountledger_postgres_connections", "Connections of the pool to the ledger", [("db.client.connection.state", "state")]),
        new("db.client.connection.max", "mountledger_postgres_connections_max", "Most connections that the pool may have", []),
    ];

    private readonly MeterListener listener = new();
    private readonly Lock gate = new();

    /// <summary>One reader at a time: two would add up the same gauges.</summary>
    private readonly Lock reading = new();
    private readonly Dictionary<Source, SortedDictionary<string, Series>> families = Sources.ToDictionary(source => source, _ => new SortedDictionary<string, Series>(StringComparer.Ordinal));
    private long dropped;

    private sealed record Source(string Instrument, string Family, string Help, (string Tag, string Label)[] Labels);

    private sealed class Series((string, string)[] labels)
    {
        public readonly (string, string)[] Labels = labels;
        public readonly long[] Buckets = new long[Bounds.Length + 1];
        public double Sum;
        public long Count;
    }

    public MeterReadings()
    {
        listener.InstrumentPublished = (instrument, self) =>
        {
            if (instrument.Meter.Name is not (OperationMeter.Name or "Npgsql" or "Microsoft.AspNetCore.Hosting")) return;
            if (Sources.FirstOrDefault(source => source.Instrument == instrument.Name) is { } known) self.EnableMeasurementEvents(instrument, known);
        };
        listener.SetMeasurementEventCallback<double>((instrument, value, tags, state) => Take(instrument, value, tags, state));
        listener.SetMeasurementEventCallback<long>((instrument, value, tags, state) => Take(instrument, value, tags, state));
        listener.SetMeasurementEventCallback<int>((instrument, value, tags, state) => Take(instrument, value, tags, state));
        listener.Start();
    }

    public void WriteTo(MetricsText text)
    {
        lock (reading) Write(text);
    }

    private void Write(MetricsText text)
    {
        lock (gate)
        {
            // What is read at this moment replaces what was read before.
            foreach (var (source, series) in families)
                if (!IsDuration(source)) series.Clear();
        }
        listener.RecordObservableInstruments();
        lock (gate)
        {
            foreach (var (source, series) in families)
            {
                if (series.Count == 0) continue;
                text.Family(source.Family, IsDuration(source) ? "histogram" : "gauge", source.Help);
                foreach (var one in series.Values)
                {
                    if (IsDuration(source)) Histogram(text, source.Family, one);
                    else text.Sample(source.Family, one.Sum, one.Labels);
                }
            }
            text.One("mountledger_metrics_dropped_total", "counter", "Measurements that would have made too many series", dropped);
        }
    }

    public void Dispose() => listener.Dispose();

    private static bool IsDuration(Source source) => source.Family.EndsWith("_seconds", StringComparison.Ordinal);

    private static void Histogram(MetricsText text, string name, Series series)
    {
        var below = 0L;
        for (var i = 0; i <= Bounds.Length; i++)
        {
            below += series.Buckets[i];
            text.Sample(name + "_bucket", below, [.. series.Labels, ("le", MetricsText.Number(i < Bounds.Length ? Bounds[i] : double.PositiveInfinity))]);
        }
        text.Sample(name + "_sum", series.Sum, series.Labels).Sample(name + "_count", series.Count, series.Labels);
    }

    private void Take(Instrument instrument, double value, ReadOnlySpan<KeyValuePair<string, object?>> tags, object? state)
    {
        if (state is not Source source) return;
        var labels = new (string, string)[source.Labels.Length];
        var key = "";
        for (var i = 0; i < labels.Length; i++)
        {
            labels[i] = (source.Labels[i].Label, ValueOf(tags, source.Labels[i].Tag));
            key += labels[i].Item2 + "\n";
        }
        lock (gate)
        {
            var family = families[source];
            if (!family.TryGetValue(key, out var series))
            {
                if (family.Count >= SeriesMax)
                {
                    dropped++;
                    return;
                }
                family[key] = series = new Series(labels);
            }
            // An instrument that counts up and down by itself tells differences, one that is read tells its value, each pool its own.
            series.Sum += value;
            series.Count++;
            if (!IsDuration(source)) return;
            var bucket = Array.FindIndex(Bounds, bound => value <= bound);
            series.Buckets[bucket < 0 ? Bounds.Length : bucket]++;
        }
    }

    private static string ValueOf(ReadOnlySpan<KeyValuePair<string, object?>> tags, string name)
    {
        foreach (var (key, value) in tags)
            if (key == name) return Convert.ToString(value, CultureInfo.InvariantCulture) ?? "";
        return "";
    }
}
