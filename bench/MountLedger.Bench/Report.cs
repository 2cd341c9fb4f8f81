using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace MountLedger.Bench;

/// <summary>Figures of several rounds: the median, and the span from the least to the greatest.</summary>
internal sealed record Figure(double Median, double Min, double Max, string Unit)
{
    public static Figure Of(IEnumerable<double> rounds, string unit)
    {
        var sorted = rounds.Order().ToArray();
        return new Figure(Quantile(sorted, 0.5), sorted[0], sorted[^1], unit);
    }

    public static double Quantile(IReadOnlyList<double> sorted, double share) => sorted[Math.Min(sorted.Count - 1, (int)(sorted.Count * share))];

    public override string ToString() => Min == Max ? $"{Text(Median)} {Unit}" : $"{Text(Median)} {Unit} ({Text(Min)}–{Text(Max)})";

    public static string Text(double value) => Math.Abs(value) switch
    {
        0 => "0",
        < 1 => value.ToString("0.000", CultureInfo.InvariantCulture),
        < 100 => value.ToString("0.00", CultureInfo.InvariantCulture),
        _ => value.ToString("0", CultureInfo.InvariantCulture),
    };
}

/// <summary>A row of the table. <paramref name="Met"/> is null where there is no target, or where nothing could be measured.</summary>
internal sealed record Row(
    string Measure, string? Note = null, Figure? Ours = null, string? PeerName = null, Figure? Peer = null, double? Ratio = null, string? Target = null,
    bool? Met = null)
{
    /// <summary>Ours against a peer that was measured by turns with it; the ratio is the median of the rounds' own.</summary>
    public static Row Against(
        string measure, string unit, IReadOnlyList<double> ours, string peerName, IReadOnlyList<double> peer, string target, Func<double, bool> isMet)
    {
        var ratio = Figure.Quantile([.. ours.Zip(peer, (mine, other) => mine / other).Order()], 0.5);
        return new Row(measure, null, Figure.Of(ours, unit), peerName, Figure.Of(peer, unit), ratio, target, isMet(ratio));
    }

    public bool HasFailed => Note?.StartsWith("failed", StringComparison.Ordinal) == true;
}

/// <summary>Everything that was measured, with the machine that it was measured on.</summary>
internal sealed class Report(BenchOptions options)
{
    private static readonly JsonSerializerOptions Json = new()
    {
        WriteIndented = true,
        PropertyNamingPolicy = JsonNamingPolicy.CamelCase,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    private readonly List<Row> rows = [];
    private readonly Dictionary<string, string> head = Machine.Describe(options);

    /// <summary>What stands in the JSON beside the rows.</summary>
    public object? Details { get; set; }

    public bool HasFailures => rows.Any(row => row.HasFailed);

    public void Add(IEnumerable<Row> more) => rows.AddRange(more);

    public void Print(TextWriter output)
    {
        foreach (var (name, value) in head) output.WriteLine($"{name}: {value}");
        output.WriteLine($"load when it ended: {Machine.Load()}");
        if (options.Smoke) output.WriteLine("smoke run: its figures say nothing");
        output.WriteLine();
        output.WriteLine("| measure | MountLedger: median (least–greatest) | peer | ratio | target | met |");
        output.WriteLine("| --- | --- | --- | --- | --- | --- |");
        foreach (var row in rows)
        {
            var peer = row.Peer is null ? "" : $"{row.PeerName}: {row.Peer}";
            var ratio = row.Ratio is { } value ? Figure.Text(value) : "";
            var met = row.Met switch { true => "yes", false => "NO", null => "" };
            output.WriteLine($"| {row.Measure} | {row.Ours?.ToString() ?? row.Note} | {peer} | {ratio} | {row.Target} | {met} |");
            if (row is { Ours: not null, Note: { } note }) output.WriteLine($"| | {note} | | | | |");
        }
    }

    public string ToJson() => JsonSerializer.Serialize(new { head, options.Smoke, loadAtEnd = Machine.Load(), rows, Details }, Json);
}

/// <summary>What the figures depend on.</summary>
internal static class Machine
{
    public static string Load() => File.ReadAllText("/proc/loadavg").Trim();

    public static Dictionary<string, string> Describe(BenchOptions options) => new()
    {
        ["date"] = DateTimeOffset.UtcNow.ToString("yyyy-MM-dd HH:mm 'UTC'", CultureInfo.InvariantCulture),
        ["processors"] = $"{Environment.ProcessorCount} × {Line("/proc/cpuinfo", "model name")}",
        ["memory"] = Line("/proc/meminfo", "MemTotal"),
        ["kernel"] = File.ReadAllText("/proc/sys/kernel/osrelease").Trim(),
        [".NET"] = Environment.Version.ToString(),
        ["PostgreSQL"] = Programs.Output(Path.Combine(options.PostgresBin, "postgres"), "--version"),
        ["mount"] = Programs.Output("mount", "--version"),
        ["load when it began"] = Load(),
        ["rounds"] = options.IsSoak ? "one" : options.Rounds.ToString(CultureInfo.InvariantCulture),
    };

    private static string Line(string file, string name) =>
        File.ReadLines(file).FirstOrDefault(line => line.StartsWith(name, StringComparison.Ordinal))?.Split(':')[1].Trim() ?? "?";
}
