using System.Collections.Immutable;
using System.CommandLine;
using MountLedger.Wire;

namespace MountLedger.Cli.Verbs;

/// <summary><c>mountledger host sync</c>: removes the attachments of consumers that the orchestrator does not know any more.</summary>
internal static class HostSyncVerb
{
    private const int FileBytesMax = 28 << 20;

    private static readonly TimeSpan _wait = TimeSpan.FromMinutes(10);

    private const string Examples = """
          virsh list --name | mountledger host sync --consumers - --as-of now --dry-run
          mountledger host sync --consumers alive.txt --as-of 2026-01-31T08:00:00Z
        """;

    public static Command Define(CommandLine line, Func<Run, CancellationToken, Task<string>> ownHost)
    {
        var consumers = new Option<string>("--consumers")
        {
            Description = "The consumers that are alive, one a line; '-' reads them from stdin",
            HelpName = "FILE",
            Required = true,
        };
        var asOf = new Option<string>("--as-of")
        {
            Description = "When the list was made: attachments made since are left alone",
            HelpName = "TIME",
            Required = true,
        };
        var dryRun = new Option<bool>("--dry-run") { Description = "Say what would be removed, and remove nothing" };
        var command = line.Verb(
            "sync", "Remove the attachments of all consumers that are not in the list. Interrupted, it is gone on with by the same command.",
            Examples, SyncAsync);
        command.Add(consumers);
        command.Add(asOf);
        command.Add(dryRun);
        return command;

        async Task<int> SyncAsync(Run run, CancellationToken cancellationToken)
        {
            var alive = await ReadAsync(run.Value(consumers)!, cancellationToken);
            var host = run.Host ?? await ownHost(run, cancellationToken);
            var answer = await run.Agent.PostAsync(
                $"/v1/hosts/{Uri.EscapeDataString(host)}/sync", new SyncRequest(alive, run.Value(asOf), run.Value(dryRun)), _wait,
                Preconditions.None, cancellationToken);
            if (run.Json)
            {
                await run.Output.WriteDocumentAsync(answer.Body);
                return ExitCode.Done;
            }
            var view = answer.Read(AnswerJson.Default.SyncView);
            if (!view.Removed.IsEmpty)
            {
                var table = new Table("MOUNTPOINT", "VOLUME", "CONSUMER", "SINCE");
                foreach (var item in view.Removed) table.Add(item.Mountpoint, item.Volume, item.Consumer, Text.Time(item.Since));
                await run.Output.WriteTableAsync(table);
            }
            await run.Output.WriteLineAsync(
                $"{view.Removed.Length} attachments {(view.DryRun ? "would be" : "were")} removed; {view.ConsumersAlive} consumers are alive");
            return ExitCode.Done;
        }
    }

    /// <summary>Empty lines are left out, so that a file that ends in one means what it seems to.</summary>
    private static async Task<ImmutableArray<string>> ReadAsync(string file, CancellationToken cancellationToken)
    {
        try
        {
            await using var stream = file == "-" ? Console.OpenStandardInput() : File.OpenRead(file);
            using var bytes = new MemoryStream();
            var buffer = new byte[1 << 16];
            int count;
            while ((count = await stream.ReadAsync(buffer, cancellationToken)) > 0)
            {
                bytes.Write(buffer, 0, count);
                if (bytes.Length > FileBytesMax)
                    throw new ExitException(ExitCode.BadUsage, $"--consumers: {file} is larger than {FileBytesMax} bytes — give one consumer a line");
            }
            var text = new System.Text.UTF8Encoding(false, throwOnInvalidBytes: true).GetString(bytes.ToArray());
            return [.. text.Split('\n').Select(consumer => consumer.TrimEnd('\r')).Where(consumer => consumer.Length > 0)];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new ExitException(ExitCode.BadUsage, $"--consumers: {file} cannot be read ({e.Message}) — give a file with one consumer a line, or '-'");
        }
        catch (ArgumentException)
        {
            throw new ExitException(ExitCode.BadUsage, $"--consumers: {file} is not valid UTF-8 — give one consumer a line");
        }
    }
}
