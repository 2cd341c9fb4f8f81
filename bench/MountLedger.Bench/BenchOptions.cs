using System.Globalization;

namespace MountLedger.Bench;

/// <summary>
/// What the command line says. <paramref name="Smoke"/>: a run in which everything happens and no figure means anything. <paramref name="IsSoak"/>: not the
/// measures, but the soak, for <paramref name="Minutes"/>.
/// </summary>
internal sealed record BenchOptions(string? Name, bool Smoke, string? JsonFile, string Artifacts, string PostgresBin, bool IsSoak, double Minutes)
{
    private const double MinutesMax = 24 * 60;
    public const int RoundsFull = 5;

    public int Rounds => Smoke ? 1 : RoundsFull;

    /// <summary>The full size of something, or the size that a smoke run makes do with.</summary>
    public int Size(int full, int smoke) => Smoke ? smoke : full;

    public static BenchOptions? Parse(string[] args, out string? problem)
    {
        var options = new BenchOptions(null, false, null, "artifacts", "/usr/lib/postgresql/15/bin", IsSoak: false, Minutes: 10);
        problem = null;
        for (var i = 0; i < args.Length; i++)
        {
            var value = i + 1 < args.Length ? args[i + 1] : null;
            switch (args[i])
            {
                case "--smoke": options = options with { Smoke = true }; break;
                case "--json" when value is not null: options = options with { JsonFile = args[++i] }; break;
                case "--artifacts" when value is not null: options = options with { Artifacts = Path.GetFullPath(args[++i]) }; break;
                case "--postgres" when value is not null: options = options with { PostgresBin = args[++i] }; break;
                case "soak" when options is { Name: null, IsSoak: false }: options = options with { IsSoak = true }; break;
                case "--minutes" when options.IsSoak && double.TryParse(value, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var minutes) && minutes is >= 1 and <= MinutesMax:
                    options = options with { Minutes = minutes };
                    i++;
                    break;
                case var name when !options.IsSoak && options.Name is null && Measures.All.Any(measure => measure.Name == name): options = options with { Name = name }; break;
                case var other:
                    problem = options.IsSoak
                        ? $"'{other}': the soak knows --minutes N (1 to {MinutesMax:0}), --smoke and --json FILE"
                        : $"'{other}' is neither --smoke nor --json FILE nor soak nor one of {string.Join(", ", Measures.All.Select(measure => measure.Name))}";
                    return null;
            }
        }
        return options;
    }
}

/// <summary>What a measure is given.</summary>
internal sealed record MeasureContext(BenchOptions Options, Workplace Workplace);

/// <summary>Something that can be measured alone: its name on the command line, what it is, and how.</summary>
internal sealed record Measure(string Name, string What, Func<MeasureContext, Task<IReadOnlyList<Row>>> RunAsync);

/// <summary>All measures, in the order of the table.</summary>
internal static class Measures
{
    public static readonly IReadOnlyList<Measure> All =
    [
        new("one-caller", "mount and unmount of a tmpfs over the socket, by one caller", MountMeasures.OneCallerAsync),
        new("callers-32", "the same by 32 callers, distinct mountpoints", MountMeasures.ManyCallersAsync),
        new("commits", "durable commits of a mount and of an unmount", MountMeasures.CommitsAsync),
        new("appends", "appends by 32 writers, one event each, to distinct streams", AppendMeasures.RunAsync),
        new("growth-mounts", "latency with more and more mountpoints present", GrowthMeasures.MountsAsync),
        new("growth-events", "latency with more and more events in the ledger", GrowthMeasures.EventsAsync),
        new("growth-attachments", "latency with more and more attachments on one mountpoint", GrowthMeasures.AttachmentsAsync),
        new("ten-thousand", "start, vanished mount, idle cost and point in time with 10 000 mountpoints", CrowdMeasures.RunAsync),
        new("client", "the client as a whole process", ClientMeasures.RunAsync),
    ];
}
