using System.CommandLine;
using System.Globalization;
using System.Text.Json;

namespace MountLedger.Cli.Verbs;

/// <summary><c>mountledger ls</c>: the mountpoints that the ledger knows.</summary>
internal static class LsVerb
{
    private const int ConsumersShownMax = 3;

    private const string Examples = """
          mountledger ls
          mountledger ls --phase failed --json
          mountledger ls --consumer job-17 --host node-2
        """;

    private static readonly string[] _phases = [.. Enum.GetValues<Phase>().Select(Text.Name)];

    public static Command Define(CommandLine line)
    {
        var phase = new Option<string?>("--phase")
        {
            Description = $"Only those in this phase: {string.Join(", ", _phases)}",
            HelpName = "PHASE",
        };
        phase.Validators.Add(result =>
        {
            if (!_phases.Contains(result.GetValueOrDefault<string?>()))
                result.AddError($"--phase: '{result.GetValueOrDefault<string?>()}' is no phase — give one of {string.Join(", ", _phases)}");
        });
        var consumer = new Option<string?>("--consumer") { Description = "Only those that this consumer is attached to", HelpName = "NAME" };

        var command = line.Verb("ls", "List mountpoints, with what is mounted and who needs it.", Examples, ListAsync);
        command.Add(phase);
        command.Add(consumer);
        return command;

        async Task<int> ListAsync(Run run, CancellationToken cancellationToken)
        {
            var query = new Query("/v1/mountpoints")
                .With("host", run.Host).With("phase", run.Value(phase)).With("consumer", run.Value(consumer));
            if (run.Json)
            {
                await run.Output.WriteDocumentAsync(await Pages.OneDocumentAsync(run.Agent, query, cancellationToken));
                return ExitCode.Done;
            }

            var mountpoints = new List<Listed>();
            await foreach (var page in Pages.ReadAsync(run.Agent, query, cancellationToken))
            {
                using var _ = page;
                mountpoints.AddRange(page.RootElement.GetProperty("items").EnumerateArray().Select(Listed.Of));
            }

            if (mountpoints.Count == 0)
                await run.Output.WriteLineAsync("no mountpoints");
            else
                await run.Output.WriteTableAsync(TableOf(mountpoints));
            return ExitCode.Done;
        }
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
