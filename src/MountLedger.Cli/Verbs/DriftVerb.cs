using System.CommandLine;
using MountLedger.Wire;

namespace MountLedger.Cli.Verbs;

/// <summary><c>mountledger drift</c>: what differs between ledger and kernel; exit 7 when anything does.</summary>
internal static class DriftVerb
{
    private const string Examples = """
          mountledger drift
          mountledger drift --json
          mountledger drift --host '*'
        """;

    public static Command Define(CommandLine line) =>
        line.Verb("drift", "List what differs between ledger and kernel although nobody asked for it. Exit 7 when anything does.", Examples, ListAsync);

    private static async Task<int> ListAsync(Run run, CancellationToken cancellationToken)
    {
        var query = new Query("/v1/drift").With("host", run.Host);
        var drift = new List<DriftView>();
        await foreach (var page in Pages.ReadAsync(run.Agent, query, cancellationToken))
        {
            using var _ = page;
            drift.AddRange(Pages.Items(page, AnswerJson.Default.ListOfDriftView));
        }
        if (run.Json)
        {
            await run.Output.WriteDocumentAsync(
                System.Text.Json.JsonSerializer.SerializeToUtf8Bytes(new ListOf<DriftView>([.. drift], Next: null), Answers.Json.ListOfDriftView));
        }
        else if (drift.Count == 0)
        {
            await run.Output.WriteLineAsync("no drift");
        }
        else
        {
            var table = new Table("HOST", "MOUNTPOINT", "DRIFT", "PHASE", "DETAIL");
            foreach (var item in drift)
                table.Add(item.Host, item.Mountpoint, Text.Name(item.Kind), Text.Name(item.Phase), (item.Paused ? "(repair paused) " : "") + item.Detail);
            await run.Output.WriteTableAsync(table);
        }
        return drift.Count == 0 ? ExitCode.Done : ExitCode.Found;
    }
}
