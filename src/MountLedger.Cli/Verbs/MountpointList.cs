using System.Globalization;
using System.Text.Json;

namespace MountLedger.Cli.Verbs;

/// <summary>Mountpoints, one line each: what <c>ls</c> and <c>state</c> print.</summary>
internal static class MountpointList
{
    private const int ConsumersShownMax = 3;

    /// <summary>Asks for all pages. <paramref name="none"/> is said when there is nothing to list.</summary>
    public static async Task WriteAsync(Run run, Query query, string none, CancellationToken cancellationToken)
    {
        if (run.Json)
        {
            await run.Output.WriteDocumentAsync(await Pages.OneDocumentAsync(run.Agent, query, cancellationToken));
            return;
        }

        var mountpoints = new List<Listed>();
        await foreach (var page in Pages.ReadAsync(run.Agent, query, cancellationToken))
        {
            using var _ = page;
            mountpoints.AddRange(page.RootElement.GetProperty("items").EnumerateArray().Select(Listed.Of));
        }

        if (mountpoints.Count == 0)
            await run.Output.WriteLineAsync(none);
        else
            await run.Output.WriteTableAsync(TableOf(mountpoints));
    }

    /// <summary>The host has a column only where there is more than one.</summary>
    private static Table TableOf(List<Listed> mountpoints)
    {
        var manyHosts = mountpoints.Any(m => m.Host != mountpoints[0].Host);
        string[] headers = ["MOUNTPOINT", "PHASE", "TYPE", "SOURCE", "CONSUMERS", "VERSION"];
        var table = new Table(manyHosts ? ["HOST", .. headers] : headers);
        foreach (var m in mountpoints)
        {
            string[] cells = [m.Mountpoint, m.Phase, m.Fstype, m.Source, Consumers(m.Consumers), m.Version];
            table.Add(manyHosts ? [m.Host, .. cells] : cells);
        }

        return table;
    }

    private static string Consumers(string[] consumers)
    {
        var names = consumers.Distinct().ToArray();
        var shown = string.Join(",", names.Take(ConsumersShownMax));
        return names.Length <= ConsumersShownMax ? shown : $"{shown},+{names.Length - ConsumersShownMax}";
    }

    /// <summary>
    /// What the table shows of a <see cref="Wire.MountpointView"/>. Read member by member: binding the whole view compiles some hundred methods at each
    /// start of the program, which is a third of the processor time of this verb (docs/performance.md).
    /// </summary>
    private sealed record Listed(string Host, string Mountpoint, string Phase, string Fstype, string Source, string[] Consumers, string Version)
    {
        public static Listed Of(JsonElement item)
        {
            try
            {
                return new Listed(
                    Needed(item, "host"), Needed(item, "mountpoint"), Needed(item, "phase"), Optional(item, "fstype"), Optional(item, "source"),
                    item.TryGetProperty("attachments", out var attachments)
                        ? [.. attachments.EnumerateArray().Select(static attachment => Needed(attachment, "consumer"))]
                        : [],
                    item.GetProperty("version").GetInt64().ToString(CultureInfo.InvariantCulture));
            }
            catch (Exception e) when (e is InvalidOperationException or KeyNotFoundException or FormatException)
            {
                throw Answer.Unreadable(e.Message);
            }
        }

        private static string Needed(JsonElement item, string name) => item.GetProperty(name).GetString() ?? throw Answer.Unreadable($"{name} is null");

        private static string Optional(JsonElement item, string name) => item.TryGetProperty(name, out var value) ? value.GetString() ?? "" : "";
    }
}
