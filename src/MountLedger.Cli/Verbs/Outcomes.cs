using System.Globalization;
using MountLedger.Wire;

namespace MountLedger.Cli.Verbs;

/// <summary>How mount and unmount tell what came of them.</summary>
internal static class Outcomes
{
    /// <summary>Prints the answer; returns <see cref="ExitCode.Pending"/> when the outcome is still open.</summary>
    /// <param name="run">The run that tells.</param>
    /// <param name="answer">What the agent said.</param>
    /// <param name="wait">How long it was asked to wait.</param>
    /// <param name="noop">Why there may have been nothing to do.</param>
    public static async Task<int> TellAsync(Run run, Answer answer, TimeSpan wait, string noop = "no such attachment")
    {
        if (run.Json)
        {
            await run.Output.WriteDocumentAsync(answer.Body);
            return answer.Status == 202 ? ExitCode.Pending : ExitCode.Done;
        }

        var outcome = answer.Read(AnswerJson.Default.OutcomeView);
        await run.Output.WriteLineAsync(Line(outcome, noop));
        if (answer.Status != 202)
            return ExitCode.Done;
        throw new ExitException(
            ExitCode.Pending,
            string.Create(CultureInfo.InvariantCulture,
                $"no outcome within {wait.TotalSeconds:0.###} s — the request stays recorded: see 'mountledger status {outcome.Mountpoint}'"),
            Problems.Holders(outcome.Error));
    }

    private static string Line(OutcomeView outcome, string noop)
    {
        var version = string.Create(CultureInfo.InvariantCulture, $"version {outcome.Version}");
        var holders = Text.Count(outcome.Attachments.IsDefault ? 0 : outcome.Attachments.Length, "attachment");
        return outcome.Outcome switch
        {
            "mounted" => $"mounted {outcome.Mountpoint} ({outcome.Fstype}, {version})",
            "attached" => $"attached {outcome.Mountpoint} ({outcome.Fstype}, {version}, {holders})",
            "unmounted" => $"unmounted {outcome.Mountpoint} ({version})",
            "detached" => $"detached {outcome.Mountpoint} ({version}, {holders} left)",
            "remounted" => $"remounted {outcome.Mountpoint} ({string.Join(',', outcome.Options.IsDefault ? [] : outcome.Options)}, {version})",
            "noop" => $"nothing to do at {outcome.Mountpoint} ({noop}; {Text.Name(outcome.Phase)}, {version})",
            "pending" => $"pending {outcome.Mountpoint} ({Text.Name(outcome.Phase)}, {version})",
            _ => $"{outcome.Outcome} {outcome.Mountpoint} ({Text.Name(outcome.Phase)}, {version})",
        };
    }
}
