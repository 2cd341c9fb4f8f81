using System.Globalization;
using System.Text.Json;
using MountLedger.Wire;

namespace MountLedger.Cli;

/// <summary>Turns an answer that is no success into an exit code and a line for the user.</summary>
internal static class Problems
{
    private const int HoldersShownMax = 20;

    /// <param name="status">HTTP status, 400 and above.</param>
    public static int ExitCodeOf(int status) => status switch
    {
        422 => ExitCode.OperationFailed,
        409 or 412 => ExitCode.Rejected,
        401 or 403 => ExitCode.NotPermitted,
        408 or 429 => ExitCode.Unavailable,
        >= 400 and < 500 => ExitCode.BadUsage,
        _ => ExitCode.Unavailable,
    };

    public static ExitException Of(Answer answer)
    {
        var code = ExitCodeOf(answer.Status);
        if (Parse(answer.Body) is not { } problem)
        {
            return new ExitException(
                ExitCode.Unavailable,
                string.Create(CultureInfo.InvariantCulture,
                    $"the agent answered {answer.Status} without saying why — is it mountledgerd's socket? Look at its log"));
        }

        return new ExitException(code, Line(problem), Details(problem), answer.Body);
    }

    /// <summary>The lines that list who keeps an unmount from happening.</summary>
    public static IReadOnlyList<string> Holders(ErrorView? error)
    {
        if (error is null || error.Holders.IsDefaultOrEmpty)
            return [];
        var lines = error.Holders.Take(HoldersShownMax).Select(static holder =>
            string.Create(CultureInfo.InvariantCulture, $"held by pid {holder.Pid} ({holder.Command})")
            + (holder.Uses.IsDefaultOrEmpty ? "" : $": {string.Join(", ", holder.Uses)}")).ToList();
        if (error.Holders.Length > HoldersShownMax)
            lines.Add($"and {error.Holders.Length - HoldersShownMax} more: --json lists them");
        return lines;
    }

    private static string Line(Problem problem) => problem switch
    {
        { Errors: { Count: > 0 } errors } => string.Join("; ", errors),
        { Status: 404 } => $"{problem.Detail} — 'mountledger ls' lists what is recorded",
        { Status: 403 or 401 } => $"not permitted: {problem.Detail}",
        { Error: { } error } when !problem.Detail.Contains(error.Message, StringComparison.Ordinal) =>
            $"{problem.Detail}: {error.Errno}: {error.Message}",
        _ => problem.Detail,
    };

    private static List<string> Details(Problem problem)
    {
        var lines = new List<string>(Holders(problem.Error));
        if (problem.Error?.RetryAt is { } retryAt)
            lines.Add($"it is tried again at {Text.Time(retryAt)}");
        return lines;
    }

    private static Problem? Parse(byte[] body)
    {
        try
        {
            var problem = JsonSerializer.Deserialize(body, AnswerJson.Default.Problem);
            return problem is { Detail: not null, Type: not null } ? problem : null;
        }
        catch (JsonException)
        {
            return null;
        }
    }
}
