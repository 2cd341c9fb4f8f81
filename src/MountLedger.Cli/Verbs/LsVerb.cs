using System.CommandLine;

namespace MountLedger.Cli.Verbs;

/// <summary><c>mountledger ls</c>: the mountpoints that the ledger knows.</summary>
internal static class LsVerb
{
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
            await MountpointList.WriteAsync(run, query, none: "no mountpoints", cancellationToken);
            return ExitCode.Done;
        }
    }
}
