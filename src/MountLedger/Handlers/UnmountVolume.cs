using MountLedger.Wire;

namespace MountLedger;

/// <summary>Release a consumer's attachment; the last one unmounts. As <see cref="MountVolume"/>, nothing is thrown.</summary>
public sealed record UnmountVolume
{
    /// <summary>Who asks: 1 to 128 printable characters, recorded as the actor.</summary>
    public required string Actor { get; init; }

    public string? Host { get; init; }
    public string? Mountpoint { get; init; }
    public string? Volume { get; init; }
    public string? Consumer { get; init; }

    /// <summary>Lazy and force are for the last holder only (rule 7).</summary>
    public UnmountMode? Mode { get; init; }

    /// <summary>Seconds to wait for the outcome: 30 by default, 0 not at all.</summary>
    public double? WaitSeconds { get; init; }

    public RequestConditions Conditions { get; init; } = RequestConditions.None;

    internal UnmountRequest Raw() => new(Host, Mountpoint, Volume, Consumer, Mode, WaitSeconds);
}

/// <summary>Handles <see cref="UnmountVolume"/>.</summary>
public sealed class UnmountVolumeHandler(NodeAccess access, InputPolicy policy)
{
    public async Task<CommandResult> Handle(UnmountVolume command, CancellationToken cancellationToken)
    {
        var raw = command.Raw();
        var valid = InputRules.Unmount(raw, policy, out var wrong);
        if (RequestChecks.Check(wrong, command.Actor, command.Conditions) is { } errors) return new CommandResult.Invalid(errors);

        return await access.RunAsync((node, commandId, token) => node.HandleAsync(
            new MountCommand.Unmount(commandId, command.Actor, valid!.Stream, valid.Attachment, valid.Mode)
            {
                ExpectedVersion = command.Conditions.IfVersion,
                Request = RequestChecks.KeyOf(command.Conditions, raw),
                Wait = valid.Wait,
                ByAdmin = policy.Admins.Contains(command.Actor),
            },
            token), cancellationToken);
    }
}
