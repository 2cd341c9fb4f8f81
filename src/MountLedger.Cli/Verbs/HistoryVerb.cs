using System.CommandLine;
using System.Globalization;
using System.Text;
using System.Text.Json;
using MountLedger.Wire;

namespace MountLedger.Cli.Verbs;

/// <summary><c>mountledger history</c>: who asked for what, when, and what came of it.</summary>
internal static class HistoryVerb
{
    private const int DetailCharactersMax = 160;

    private const int LimitMax = 100_000;

    private const int PageMax = 100;

    private const string Examples = """
          mountledger history
          mountledger history /srv/scratch --since 10m
          mountledger history --consumer job-17 --type mount_failed --since 2026-01-31T12:00:00Z --json
          mountledger history --limit 20
        """;

    public static Command Define(CommandLine line)
    {
        var mountpoint = new Argument<string?>("MOUNTPOINT")
        {
            Description = "Only this mountpoint (default: all of the host)",
            Arity = ArgumentArity.ZeroOrOne,
        };
        var consumer = new Option<string?>("--consumer") { Description = "Only what concerns this consumer", HelpName = "NAME" };
        var actor = new Option<string?>("--actor") { Description = "Only what this user or program caused", HelpName = "NAME" };
        var type = new Option<string?>("--type") { Description = "Only events of this type, such as mounted or mount_failed", HelpName = "TYPE" };
        var limit = new Option<int?>("--limit") { Description = "Only the newest so many", HelpName = "COUNT", CustomParser = Limit };
        Option<DateTimeOffset?>? since = null, until = null;

        var command = line.Verb("history", "Show the recorded events, oldest first.", Examples, ShowAsync);
        since = Times.InstantOption("--since", "Only events from then on: RFC 3339, or 10m for ten minutes ago", line.Clock);
        until = Times.InstantOption("--until", "Only events before then", line.Clock);
        command.Add(mountpoint);
        foreach (var option in (Option[])[consumer, actor, type, since, until, limit])
        {
            command.Add(option);
        }

        return command;

        async Task<int> ShowAsync(Run run, CancellationToken cancellationToken)
        {
            var query = new Query("/v1/history")
                .With("host", run.Host)
                .With("path", run.Parsed.GetValue(mountpoint))
                .With("consumer", run.Value(consumer))
                .With("actor", run.Value(actor))
                .With("type", run.Value(type))
                .With("since", Times.Stamp(run.Value(since!)))
                .With("until", Times.Stamp(run.Value(until!)));
            var writer = new EventWriter(run);
            if (run.Value(limit) is { } newest)
                await NewestAsync(run, query, newest, writer, cancellationToken);
            else
                await AllAsync(run, query, writer, cancellationToken);
            await writer.EndAsync();
            return ExitCode.Done;
        }
    }

    private static async Task AllAsync(Run run, Query query, EventWriter writer, CancellationToken cancellationToken)
    {
        await foreach (var page in Pages.ReadAsync(run.Agent, query.With("order", "asc"), cancellationToken))
        {
            using var _ = page;
            await writer.WriteAsync([.. page.RootElement.GetProperty("items").EnumerateArray()]);
        }
    }

    /// <summary>The last events come first from the agent, and are turned round here.</summary>
    private static async Task NewestAsync(
        Run run, Query query, int count, EventWriter writer, CancellationToken cancellationToken)
    {
        var newest = new List<JsonElement>();
        var paged = query.With("order", "desc").With("limit", Math.Min(count, PageMax).ToString(CultureInfo.InvariantCulture));
        await foreach (var page in Pages.ReadAsync(run.Agent, paged, cancellationToken))
        {
            using var _ = page;
            newest.AddRange(page.RootElement.GetProperty("items").EnumerateArray().Take(count - newest.Count).Select(static e => e.Clone()));
            if (newest.Count >= count)
                break;
        }

        newest.Reverse();
        await writer.WriteAsync(newest);
    }

    private static int? Limit(System.CommandLine.Parsing.ArgumentResult result)
    {
        var text = result.Tokens.Count == 1 ? result.Tokens[0].Value : "";
        if (int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var limit) && limit is >= 1 and <= LimitMax)
            return limit;
        result.AddError($"--limit: '{text}' is no count — give a number from 1 to {LimitMax}");
        return null;
    }

    /// <summary>Writes page by page, so that a long history neither waits nor fills memory.</summary>
    private sealed class EventWriter(Run run)
    {
        private bool _any;

        public async Task WriteAsync(List<JsonElement> events)
        {
            if (events.Count == 0)
                return;
            if (run.Json)
            {
                await run.Output.WriteAsync(Lines(events));
            }
            else
            {
                await run.Output.WriteTableAsync(TableOf(events), withHeaders: !_any);
            }

            _any = true;
        }

        public Task EndAsync() => _any || run.Json ? Task.CompletedTask : run.Output.WriteLineAsync("no events");

        /// <summary>One event per line. A line break is never inside a JSON string, so it can be taken out of any layout.</summary>
        private static string Lines(List<JsonElement> events)
        {
            var lines = new StringBuilder();
            foreach (var e in events)
            {
                lines.Append(e.GetRawText().ReplaceLineEndings("")).Append('\n');
            }

            return lines.ToString();
        }

        private static Table TableOf(List<JsonElement> events)
        {
            var table = new Table("AT", "ACTOR", "EVENT", "MOUNTPOINT", "VERSION", "DETAIL");
            foreach (var element in events)
            {
                var e = Pages.Item(element, AnswerJson.Default.EventView);
                table.Add(
                    Text.Time(e.At), e.Actor, e.Type, e.Mountpoint, e.Version.ToString(CultureInfo.InvariantCulture),
                    Text.Cut(Detail(e.Data), DetailCharactersMax));
            }

            return table;
        }

        /// <summary>The event's own members as name=value, without those that are empty; --json has all of it.</summary>
        private static string Detail(JsonElement data)
        {
            if (data.ValueKind != JsonValueKind.Object)
                return "";
            return string.Join(' ', data.EnumerateObject()
                .Where(static m => m.Name is not ("bootId" or "mountId") && Value(m.Value).Length > 0)
                .Select(static m => $"{m.Name}={Value(m.Value)}"));
        }

        private static string Value(JsonElement value) => value.ValueKind switch
        {
            JsonValueKind.Null => "",
            JsonValueKind.String => value.GetString()!,
            JsonValueKind.Array => string.Join(',', value.EnumerateArray().Select(Value)),
            _ => value.GetRawText(),
        };
    }
}
