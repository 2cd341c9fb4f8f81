using System.Text;

namespace MountLedger.Storm;

/// <summary>A storm in words.</summary>
internal static class StormReport
{
    public static string Of(StormResult result)
    {
        var text = new StringBuilder();
        text.AppendLine("kills by point:");
        foreach (var (point, count) in result.ByPoint) text.AppendLine($"  {count,4}  {point}");
        text.AppendLine($"kills by victim: {Joined(result.ByVictim)}");
        if (result.Missed.Count > 0) text.AppendLine($"points that nobody came to in time: {Joined(result.Missed)}");
        if (result.Notes.Count > 0) text.AppendLine($"also: {Joined(result.Notes)}");
        text.AppendLine(
            $"{result.Kills} kills ({result.AtPoints} held at a point, {result.ByPoint.Keys.Count(point => point[0] != '(')} of {KillPlan.Points.Count} points), "
            + $"{result.Pairs} pairs of mount and unmount ({result.PairsBetweenKills:0.0} between kills), {result.Repeats} requests repeated, "
            + $"{result.Starts} starts of the agent, {result.Events} events checked, {result.Took.TotalSeconds:0} s, seed {result.Seed}");
        text.AppendLine($"violations = {result.Violations.Count}");
        foreach (var violation in result.Violations.Take(20)) text.AppendLine($"  VIOLATED: {violation}");
        if (result.Logs is { } logs) text.AppendLine($"  seed {result.Seed}; what the agent said: {logs}");
        return text.ToString();
    }

    private static string Joined(IReadOnlyDictionary<string, int> counts) =>
        string.Join(", ", counts.OrderBy(pair => pair.Key, StringComparer.Ordinal).Select(pair => $"{pair.Key} {pair.Value}"));
}
