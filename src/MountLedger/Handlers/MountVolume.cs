using System.Collections.Immutable;
using MountLedger.Wire;

namespace MountLedger;

/// <summary>
/// Mount a volume for a consumer: the request as an application gives it, before validation. Answered with a
/// <see cref="CommandResult"/>; nothing is thrown for bad input, a refusal, a failing kernel or an absent database.
/// </summary>
public sealed record MountVolume
{
    /// <summary>Who asks: 1 to 128 printable characters, recorded as the actor.</summary>
    public required string Actor { get; init; }

    /// <summary>The host to mount on; null: the agent's own, which is the only one it takes commands for.</summary>
    public string? Host { get; init; }

    /// <summary>Absolute, normalised, strictly below one of the agent's roots.</summary>
    public string? Mountpoint { get; init; }

    public string? Source { get; init; }
    public string? Fstype { get; init; }
    public ImmutableArray<string>? Options { get; init; }
    public string? Volume { get; init; }
    public string? Consumer { get; init; }
    public OnFailure? OnFailure { get; init; }

    /// <summary>Seconds to wait for the outcome: 30 by default, 0 not at all.</summary>
    public double? WaitSeconds { get; init; }

    public RequestConditions Conditions { get; init; } = RequestConditions.None;

    internal MountRequest Raw() => new(Host, Mountpoint, Source, Fstype, Options, Volume, Consumer, OnFailure, WaitSeconds);
}

/// <summary>
/// What makes a repeat harmless: an idempotency key with the SHA-256 (hex) of what it stands for, and the version that
/// the caller saw. <paramref name="BodyHash"/> is worked out from the request when it is null.
/// </summary>
public sealed record RequestConditions(string? IdempotencyKey, string? BodyHash, long? IfVersion)
{
    public static readonly RequestConditions None = new(null, null, null);
}

/// <summary>Handles <see cref="MountVolume"/>.</summary>
public sealed class MountVolumeHandler(NodeAccess access, InputPolicy policy)
{
    public async Task<CommandResult> Handle(MountVolume command, CancellationToken cancellationToken)
    {
        var raw = command.Raw();
        var valid = InputRules.Mount(raw, policy, out var wrong);
        if (RequestChecks.Check(wrong, command.Actor, command.Conditions) is { } errors) return new CommandResult.Invalid(errors);

        return await access.RunAsync((node, commandId, token) => node.HandleAsync(
            new MountCommand.Mount(commandId, command.Actor, valid!.Stream, valid.Spec, valid.Attachment, valid.OnFailure)
            {
                ExpectedVersion = command.Conditions.IfVersion,
                Request = RequestChecks.KeyOf(command.Conditions, raw),
                Wait = valid.Wait,
            },
            token), cancellationToken);
    }
}
