using System.CommandLine;
using MountLedger.Wire;

namespace MountLedger.Cli.Verbs;

/// <summary><c>mountledger remount</c>: change options of a live mount.</summary>
internal static class RemountVerb
{
    private const string Examples = """
          mountledger remount /srv/scratch -o size=2G
          mountledger remount /srv/data -o ro,noexec --wait 2m
          mountledger remount /srv/data -o rw --if-match 7
        """;

    public static Command Define(CommandLine line)
    {
        var options = new Option<string[]>("-o", "--options")
        {
            Description = "What shall change, separated by commas; options that are not named stay (rw undoes ro)",
            HelpName = "OPTIONS",
            Arity = new ArgumentArity(1, 64),
            Required = true,
        };
        var mountpoint = new Argument<string>("MOUNTPOINT") { Description = "The absolute path, as it was mounted" };

        RequestOptions? shared = null;
        var command = line.Verb(
            "remount", "Change options of a live mount: for its only holder, or a user that the agent's setting 'admins' names.", Examples, RemountAsync);
        command.Add(mountpoint);
        command.Add(options);
        shared = new RequestOptions(command);
        return command;

        async Task<int> RemountAsync(Run run, CancellationToken cancellationToken)
        {
            var wait = shared!.Wait(run);
            var request = new RemountRequest(
                run.Host, run.Value(mountpoint), MountVerb.Split(run.Value(options) ?? []), wait.TotalSeconds);
            var answer = await run.Agent.PostAsync("/v1/remounts", request, wait, shared.Preconditions(run), cancellationToken);
            return await Outcomes.TellAsync(run, answer, wait, noop: "it has these options");
        }
    }
}
