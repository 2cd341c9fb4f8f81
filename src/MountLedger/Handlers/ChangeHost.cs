namespace MountLedger;

/// <summary>Take the host down for new mounts, or up again (rule 12).</summary>
public sealed record ChangeHost(string Actor, string? Host, bool Up, string? Reason);

/// <summary>What became of <see cref="ChangeHost"/>.</summary>
public abstract record HostResult
{
    private HostResult() { }

    public sealed record Done(HostState State) : HostResult;

    public sealed record Invalid(IReadOnlyList<InputError> Errors) : HostResult;

    public sealed record Unavailable(string Reason) : HostResult;
}

/// <summary>Handles <see cref="ChangeHost"/>.</summary>
public sealed class ChangeHostHandler(NodeAccess access, InputPolicy policy)
{
    public async Task<HostResult> Handle(ChangeHost command, CancellationToken cancellationToken)
    {
        var errors = new InputErrors();
        InputRules.Actor("actor", command.Actor, errors);
        InputRules.ServedHost("host", command.Host, policy, errors);
        if (command.Reason is not null) InputRules.Reason("reason", command.Reason, errors);
        if (errors.Count > 0) return new HostResult.Invalid(errors);

        cancellationToken.ThrowIfCancellationRequested();
        return await access.RunAsync<HostResult>(
            async node => new HostResult.Done(await node.HandleAsync(
                new HostCommand(access.NewCommandId(), command.Actor, policy.Host, command.Up, command.Reason))),
            static why => new HostResult.Unavailable(why));
    }
}
