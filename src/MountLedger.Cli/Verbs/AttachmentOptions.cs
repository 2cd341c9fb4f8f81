using System.CommandLine;

namespace MountLedger.Cli.Verbs;

/// <summary>What mount and unmount have in common: who attaches what, and <see cref="RequestOptions"/>.</summary>
internal sealed class AttachmentOptions
{
    private readonly Option<string> _volume = new("--volume")
    {
        Description = "The volume, by the name that its users know it by",
        HelpName = "NAME",
        Required = true,
    };

    private readonly Option<string> _consumer = new("--consumer")
    {
        Description = "Who needs the mountpoint: an instance, a container, a job, a person",
        HelpName = "NAME",
        Required = true,
    };

    private readonly RequestOptions _request;

    public AttachmentOptions(Command command)
    {
        command.Add(_volume);
        command.Add(_consumer);
        _request = new RequestOptions(command);
    }

    public string Volume(Run run) => run.Value(_volume)!;

    public string Consumer(Run run) => run.Value(_consumer)!;

    public TimeSpan Wait(Run run) => _request.Wait(run);

    public Preconditions Preconditions(Run run) => _request.Preconditions(run);
}
