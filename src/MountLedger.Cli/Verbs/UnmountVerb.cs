using System.CommandLine;
using MountLedger.Wire;

namespace MountLedger.Cli.Verbs;

/// <summary><c>mountledger unmount</c>, also <c>umount</c>: detach; the last attachment unmounts.</summary>
internal static class UnmountVerb
{
    private const string Examples = """
          mountledger unmount /srv/scratch --volume scratch --consumer job-17
          mountledger umount /srv/data --volume data --consumer vm-3 --wait 2m
          mountledger unmount /srv/data --volume data --consumer vm-3 --lazy
        """;

    public static Command Define(CommandLine line)
    {
        var lazy = new Option<bool>("--lazy") { Description = "Take it out of sight now, release it when nobody uses it any more (last holder only)" };
        var force = new Option<bool>("--force") { Description = "Abort requests in flight; data may be lost (last holder only)" };
        var mountpoint = new Argument<string>("MOUNTPOINT") { Description = "The absolute path, as it was mounted" };

        AttachmentOptions? shared = null;
        var command = line.Verb(
            "unmount", "Detach a consumer's volume from a mountpoint; the last detach unmounts it.", Examples, UnmountAsync);
        command.Aliases.Add("umount");
        command.Add(mountpoint);
        shared = new AttachmentOptions(command);
        command.Add(lazy);
        command.Add(force);
        command.Validators.Add(result =>
        {
            if (result.GetResult(lazy) is not null && result.GetResult(force) is not null)
                result.AddError("--lazy and --force exclude each other — give one of them");
        });
        return command;

        async Task<int> UnmountAsync(Run run, CancellationToken cancellationToken)
        {
            var wait = shared!.Wait(run);
            var request = new UnmountRequest(
                run.Host,
                run.Value(mountpoint),
                shared.Volume(run),
                shared.Consumer(run),
                run.Value(lazy) ? UnmountMode.Lazy : run.Value(force) ? UnmountMode.Force : null,
                wait.TotalSeconds);
            var answer = await run.Agent.PostAsync("/v1/unmounts", request, wait, shared.Preconditions(run), cancellationToken);
            return await Outcomes.TellAsync(run, answer, wait);
        }
    }
}
