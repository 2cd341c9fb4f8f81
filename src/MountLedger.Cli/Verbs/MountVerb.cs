using System.Collections.Immutable;
using System.CommandLine;
using MountLedger.Wire;

namespace MountLedger.Cli.Verbs;

/// <summary><c>mountledger mount</c>: attach a volume for a consumer; the first attachment mounts.</summary>
internal static class MountVerb
{
    private const string Examples = """
          mountledger mount -t tmpfs -o size=1G,mode=0750 tmpfs /srv/scratch --volume scratch --consumer job-17
          mountledger mount -t ext4 /images/data.img /srv/data --volume data --consumer vm-3 --wait 2m
          mountledger mount -t bind /srv/data/in /srv/in --volume in --consumer job-17 --on-failure retry
        """;

    public static Command Define(CommandLine line)
    {
        var fstype = new Option<string?>("-t", "--type")
        {
            Description = "Filesystem type: tmpfs, bind, overlay, ext4, …",
            HelpName = "FSTYPE",
        };
        var options = new Option<string[]>("-o", "--options")
        {
            Description = "Mount options, separated by commas; may be given more than once",
            HelpName = "OPTIONS",
            Arity = new ArgumentArity(1, 64),
        };
        var onFailure = new Option<string?>("--on-failure")
        {
            Description = "When the mount fails: forget the attachment (default), or retry until it holds",
            HelpName = "forget|retry",
        };
        onFailure.Validators.Add(result =>
        {
            if (result.GetValueOrDefault<string?>() is not ("forget" or "retry"))
                result.AddError($"--on-failure: '{result.GetValueOrDefault<string?>()}' is not known — give forget or retry");
        });
        var source = new Argument<string>("SOURCE") { Description = "What to mount: a device, an image file, a directory to bind, …" };
        var mountpoint = new Argument<string>("MOUNTPOINT") { Description = "Where: an absolute path under one of the agent's roots" };

        AttachmentOptions? shared = null;
        var command = line.Verb("mount", "Attach a volume to a mountpoint for a consumer; the first attachment mounts it.", Examples, MountAsync);
        command.Add(source);
        command.Add(mountpoint);
        command.Add(fstype);
        command.Add(options);
        shared = new AttachmentOptions(command);
        command.Add(onFailure);
        return command;

        async Task<int> MountAsync(Run run, CancellationToken cancellationToken)
        {
            var wait = shared!.Wait(run);
            var request = new MountRequest(
                run.Host,
                run.Value(mountpoint),
                run.Value(source),
                run.Value(fstype),
                Split(run.Value(options) ?? []),
                shared.Volume(run),
                shared.Consumer(run),
                run.Value(onFailure) switch { "retry" => OnFailure.Retry, "forget" => OnFailure.Forget, _ => null },
                wait.TotalSeconds);
            var answer = await run.Agent.PostAsync("/v1/mounts", request, wait, shared.Preconditions(run), cancellationToken);
            return await Outcomes.TellAsync(run, answer, wait);
        }
    }

    /// <summary>As mount(8): commas separate. Empty ones between commas are left in for the agent to refuse, an empty list is none.</summary>
    internal static ImmutableArray<string> Split(string[] lists) =>
        [.. lists.Where(static list => list.Length > 0).SelectMany(static list => list.Split(','))];
}
