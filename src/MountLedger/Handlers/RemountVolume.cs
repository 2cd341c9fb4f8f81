using System.Collections.Immutable;
using MountLedger.Wire;

namespace MountLedger;

/// <summary>
/// Change options of a live mount; those that are not named stay. For the sole holder, or an actor that the policy names as
/// administrator. As <see cref="MountVolume"/>, nothing is thrown.
/// </summary>
public sealed record RemountVolume
{
    /// <summary>Who asks: 1 to 128 printable characters, recorded as the actor.</summary>
    public required string Actor { get; init; }

    public string? Host { get; init; }
    public string? Mountpoint { get; init; }

    /// <summary>At least one; each takes the place of the one that contradicts it.</summary>
    public ImmutableArray<string>? Options { get; init; }

    /// <summary>Seconds to wait for the outcome: 30 by default, 0 not at all.</summary>
    public double? WaitSeconds { get; init; }

    public RequestConditions Conditions { get; init; } = RequestConditions.None;

    internal RemountRequest Raw() => new(Host, Mountpoint, Options, WaitSeconds);
}

/// <summary>Handles <see cref="RemountVolume"/>.</summary>
public sealed class RemountVolumeHandler(NodeAccess access, InputPolicy policy)
{
    public async Task<CommandResult> Handle(RemountVolume command, CancellationToken cancellationToken)
    {
        var raw = command.Raw();
        var valid = InputRules.Remount(raw, policy, out var wrong);
        if (RequestChecks.Check(wrong, command.Actor, command.Conditions) is { } errors) return new CommandResult.Invalid(errors);

        return await access.RunAsync((node, commandId, token) => node.HandleAsync(
            new MountCommand.Remount(
                commandId, command.Actor, valid!.Stream, valid.Options, policy.Admins.Contains(command.Actor), policy)
            {
                ExpectedVersion = command.Conditions.IfVersion,
                Request = RequestChecks.KeyOf(command.Conditions, raw),
                Wait = valid.Wait,
            },
            token), cancellationToken);
    }
}
