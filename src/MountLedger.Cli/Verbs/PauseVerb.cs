using System.CommandLine;
using MountLedger.Wire;

namespace MountLedger.Cli.Verbs;

/// <summary><c>mountledger pause|resume</c>: whether a mountpoint that goes missing is mounted again without anybody asking.</summary>
internal static class PauseVerb
{
    public static Command DefinePause(CommandLine line)
    {
        var reason = new Option<string?>("--reason") { Description = "Why; the history keeps it", HelpName = "TEXT" };
        return Define(
            line, "pause", "Stop the automatic repair of one mountpoint, while you work on it. Requests are served as before.",
            "  mountledger pause /srv/data --reason \"moving the disk\"", reason);
    }

    public static Command DefineResume(CommandLine line) => Define(
        line, "resume", "Repair the mountpoint automatically again; what is missing now is mounted at once.", "  mountledger resume /srv/data", reason: null);

    private static Command Define(CommandLine line, string name, string description, string examples, Option<string?>? reason)
    {
        var mountpoint = new Argument<string>("MOUNTPOINT") { Description = "The absolute path" };
        var command = line.Verb(name, description, examples, ChangeAsync);
        command.Add(mountpoint);
        if (reason is not null) command.Add(reason);
        return command;

        async Task<int> ChangeAsync(Run run, CancellationToken cancellationToken)
        {
            var answer = await run.Agent.PostAsync(
                $"/v1/{name}", new RepairRequest(run.Host, run.Value(mountpoint), reason is null ? null : run.Value(reason)), TimeSpan.Zero,
                Preconditions.None, cancellationToken);
            if (run.Json)
                await run.Output.WriteDocumentAsync(answer.Body);
            else
                await run.Output.WriteLineAsync($"repair of {run.Value(mountpoint)} is {(name == "pause" ? "paused" : "resumed")}");
            return ExitCode.Done;
        }
    }
}
