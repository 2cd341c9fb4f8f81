using System.CommandLine;
using MountLedger.Wire;

namespace MountLedger.Cli.Verbs;

/// <summary>
/// <c>mountledger reconcile</c>: repairs what differs, one mountpoint after the other, so that progress can be seen; exit 1 when a repair failed.
/// </summary>
internal static class ReconcileVerb
{
    private const int BarWidth = 30;

    private static readonly TimeSpan _waitEach = TimeSpan.FromSeconds(40);

    private const string Examples = """
          mountledger reconcile --dry-run
          mountledger reconcile
          mountledger reconcile /srv/scratch --json
          mountledger reconcile --ledger-behind keep-mounts --reason "restored last night's backup"
        """;

    public static Command Define(CommandLine line)
    {
        var mountpoint = new Argument<string?>("MOUNTPOINT") { Description = "Only this one (default: all)", Arity = ArgumentArity.ZeroOrOne };
        var dryRun = new Option<bool>("--dry-run") { Description = "Say what would be done, and do nothing" };
        var behind = new Option<string?>("--ledger-behind")
        {
            Description = "Where the ledger is older than what the agent has recorded (a restored backup), say which side is right: "
                + "keep-mounts (what the agent remembers and the kernel has) or trust-ledger",
            HelpName = "SIDE",
        };
        behind.AcceptOnlyFromAmong("keep-mounts", "trust-ledger");
        var reason = new Option<string?>("--reason") { Description = "With --ledger-behind: why; recorded", HelpName = "TEXT" };
        var command = line.Verb(
            "reconcile", "Repair what differs between ledger and kernel, also what is only reported otherwise. What is in use is never taken away.",
            Examples, RunAsync);
        command.Add(mountpoint);
        command.Add(dryRun);
        command.Add(behind);
        command.Add(reason);
        return command;

        async Task<int> RunAsync(Run run, CancellationToken cancellationToken)
        {
            BehindChoice? choice = run.Value(behind) switch
            {
                null => null,
                "keep-mounts" => BehindChoice.KeepMounts,
                _ => BehindChoice.TrustLedger,
            };
            Task<IReadOnlyList<RepairView>> AskAsync(string? path, bool dry) =>
                ReconcileVerb.AskAsync(run, new ReconcileRequest(run.Host, path, dry, choice, run.Value(reason)), cancellationToken);
            var plan = await AskAsync(run.Parsed.GetValue(mountpoint), dry: true);
            if (run.Value(dryRun)) return await ShowAsync(run, plan);

            var done = new List<RepairView>();
            string[] paths = [.. plan.Select(item => item.Mountpoint).Distinct()];
            for (var i = 0; i < paths.Length; i++)
            {
                await ProgressAsync(run, i, paths.Length, paths[i]);
                done.AddRange(await AskAsync(paths[i], dry: false));
            }
            await ProgressAsync(run, paths.Length, paths.Length, "");
            await ShowAsync(run, done);
            return done.Exists(item => item.Outcome == "failed") ? ExitCode.OperationFailed : ExitCode.Done;
        }
    }

    private static async Task<IReadOnlyList<RepairView>> AskAsync(Run run, ReconcileRequest request, CancellationToken cancellationToken)
    {
        var answer = await run.Agent.PostAsync(
            "/v1/reconcile", request, _waitEach, Preconditions.None, cancellationToken);
        return answer.Read(AnswerJson.Default.ListOfRepairView).Items;
    }

    /// <summary>A bar that is drawn over itself, on a terminal only.</summary>
    private static Task ProgressAsync(Run run, int done, int all, string next)
    {
        if (!run.Output.IsTerminal || run.Json || all == 0) return Task.CompletedTask;
        var filled = BarWidth * done / all;
        return run.Output.WriteAsync(
            $"\r\u001b[K[{new string('#', filled)}{new string('.', BarWidth - filled)}] {done}/{all} {Text.OneLine(next)}{(done == all ? "\n" : "")}");
    }

    private static async Task<int> ShowAsync(Run run, IReadOnlyList<RepairView> items)
    {
        if (run.Json)
        {
            await run.Output.WriteDocumentAsync(
                System.Text.Json.JsonSerializer.SerializeToUtf8Bytes(new ListOf<RepairView>([.. items], Next: null), Answers.Json.ListOfRepairView));
        }
        else if (items.Count == 0)
        {
            await run.Output.WriteLineAsync("no drift: nothing to do");
        }
        else
        {
            var table = new Table("MOUNTPOINT", "DRIFT", "OUTCOME", "REPAIR", "DETAIL");
            foreach (var item in items) table.Add(item.Mountpoint, Text.Name(item.Kind), item.Outcome, item.Repair, item.Detail ?? "");
            await run.Output.WriteTableAsync(table);
        }
        return ExitCode.Done;
    }
}
