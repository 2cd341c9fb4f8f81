using System.CommandLine;
using System.Globalization;

namespace MountLedger.Cli.Verbs;

/// <summary><c>mountledger state</c>: what was mounted at a time.</summary>
internal static class StateVerb
{
    private const string Examples = """
          mountledger state --at 10m
          mountledger state --at 2026-01-31T12:00:00Z
          mountledger state --at 1d --host node-2 --json
        """;

    public static Command Define(CommandLine line)
    {
        var at = Times.InstantOption("--at", "The time: RFC 3339, or 10m for ten minutes ago", line.Clock);
        at.Required = true;
        var command = line.Verb("state", "List the mountpoints as they were at a time.", Examples, ListAsync);
        command.Add(at);
        return command;

        async Task<int> ListAsync(Run run, CancellationToken cancellationToken)
        {
            var stamp = Times.Stamp(run.Value(at));
            var query = new Query("/v1/state").With("host", run.Host).With("at", stamp).With("limit", InputRules.LimitMax.ToString(CultureInfo.InvariantCulture));
            await MountpointList.WriteAsync(run, query, none: $"no mountpoints at {stamp}", cancellationToken);
            return ExitCode.Done;
        }
    }
}
