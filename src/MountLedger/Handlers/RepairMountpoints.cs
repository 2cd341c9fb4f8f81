using System.Collections.Immutable;

namespace MountLedger;

/// <summary>Pause the automatic repair of a mountpoint while an operator works on it, or resume it.</summary>
public sealed record PauseRepair(string Actor, string? Host, string? Mountpoint, bool Paused, string? Reason)
{
    /// <summary>The version of the mountpoint that the caller saw; null: any.</summary>
    public long? IfVersion { get; init; }
}

/// <summary>
/// Repair what differs between ledger and kernel, also what is never repaired unasked; of one mountpoint, or of all. With
/// <paramref name="LedgerBehind"/> instead: decide, where the ledger is behind, which side is right, for a <paramref name="Reason"/> that is recorded.
/// </summary>
public sealed record Reconcile(
    string Actor, string? Host, string? Mountpoint, bool DryRun, BehindChoice? LedgerBehind = null, string? Reason = null);

/// <summary>Remove the attachments of all consumers that are not in the list and are older than it.</summary>
public sealed record SyncConsumers(string Actor, string? Host, ImmutableArray<string>? Consumers, string? AsOf, bool DryRun);

/// <summary>What became of one of the operator's commands.</summary>
public abstract record RepairAnswer
{
    private RepairAnswer() { }

    public sealed record Changed(MountState State) : RepairAnswer;

    public sealed record Reconciled(ImmutableArray<RepairResult> Lines) : RepairAnswer;

    public sealed record Synced(DateTimeOffset AsOf, int ConsumersAlive, ImmutableArray<SyncedAttachment> Removed) : RepairAnswer;

    public sealed record Rejected(Rejection Rejection, MountState State) : RepairAnswer;

    public sealed record NotFound(string Mountpoint) : RepairAnswer;

    public sealed record Invalid(IReadOnlyList<InputError> Errors) : RepairAnswer;

    public sealed record Unavailable(string Reason) : RepairAnswer;
}

/// <summary>Handles <see cref="PauseRepair"/>, <see cref="Reconcile"/> and <see cref="SyncConsumers"/>.</summary>
public sealed class RepairHandler(NodeAccess access, InputPolicy policy, TimeProvider time)
{
    /// <summary>How many consumers one list can have; a request's body is bounded as well.</summary>
    public const int ConsumersMax = 50_000;

    private const int ErrorsShownMax = 20;

    /// <summary>How long the repair of one mountpoint is waited for.</summary>
    private static readonly TimeSpan WaitEach = TimeSpan.FromSeconds(30);

    public async Task<RepairAnswer> Handle(PauseRepair command, CancellationToken cancellationToken)
    {
        var errors = Common(command.Actor, command.Host);
        var path = InputRules.MountpointPath("mountpoint", command.Mountpoint, policy, errors);
        if (command.Reason is not null) InputRules.Reason("reason", command.Reason, errors);
        if (errors.Count > 0) return new RepairAnswer.Invalid(errors);
        return await RunAsync(async node =>
            await node.Repairs.SetPausedAsync(path!, command.Paused, command.Reason, command.IfVersion, command.Actor, access.NewCommandId()) switch
            {
                (null, _) => new RepairAnswer.NotFound(path!),
                ({ } state, { } rejection) => new RepairAnswer.Rejected(rejection, state),
                ({ } state, null) => new RepairAnswer.Changed(state),
            }, cancellationToken);
    }

    public async Task<RepairAnswer> Handle(Reconcile command, CancellationToken cancellationToken)
    {
        var errors = Common(command.Actor, command.Host);
        var path = command.Mountpoint is null ? null : InputRules.MountpointPath("mountpoint", command.Mountpoint, policy, errors);
        if (command.Reason is not null && InputRules.Reason("reason", command.Reason, errors) is not null && command.LedgerBehind is null)
            errors.Add("reason", "only-with-ledger-behind", command.Reason, "leave it out: only the decision about a ledger that is behind has a reason");
        if (errors.Count > 0) return new RepairAnswer.Invalid(errors);
        if (command.LedgerBehind is { } choice)
        {
            return await RunAsync(async node => new RepairAnswer.Reconciled(command.DryRun
                ? node.Behind.Plan(path, choice)
                : await node.Behind.RunAsync(path, choice, command.Reason, command.Actor, access.NewCommandId(), cancellationToken)), cancellationToken);
        }
        return await RunAsync(async node => new RepairAnswer.Reconciled(command.DryRun
            ? node.Repairs.Plan(path)
            : await node.Repairs.RunAsync(path, command.Actor, access.NewCommandId(), WaitEach, time, cancellationToken)), cancellationToken);
    }

    public async Task<RepairAnswer> Handle(SyncConsumers command, CancellationToken cancellationToken)
    {
        var errors = Common(command.Actor, command.Host);
        var now = time.GetUtcNow();
        var asOf = InputRules.Time("asOf", command.AsOf, now, errors);
        if (asOf > now) errors.Add("asOf", "not-in-future", command.AsOf, "give the time at which the list was made: attachments made since are not in it");
        var alive = new HashSet<string>(StringComparer.Ordinal);
        if (command.Consumers is not { IsDefault: false } consumers)
        {
            errors.Add("consumers", "required", null, "give the list of consumers that are alive; an empty list means none is");
        }
        else if (consumers.Length > ConsumersMax)
        {
            errors.Add("consumers", "consumers-max", $"{consumers.Length}", $"give at most {ConsumersMax} consumers");
        }
        else
        {
            for (var i = 0; i < consumers.Length && errors.Count < ErrorsShownMax; i++)
                if (InputRules.Name($"consumers[{i}]", consumers[i], errors) is { } name) alive.Add(name);
        }
        if (errors.Count > 0) return new RepairAnswer.Invalid(errors);
        return await RunAsync(async node => new RepairAnswer.Synced(asOf!.Value, alive.Count, command.DryRun
            ? node.Consumers.Plan(alive, asOf.Value)
            : await node.Consumers.RunAsync(alive, asOf.Value, command.Actor, access.NewCommandId(), cancellationToken)), cancellationToken);
    }

    private InputErrors Common(string actor, string? host)
    {
        var errors = new InputErrors();
        InputRules.Actor("actor", actor, errors);
        InputRules.ServedHost("host", host, policy, errors);
        return errors;
    }

    private async Task<RepairAnswer> RunAsync(Func<HostNode, Task<RepairAnswer>> command, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        return await access.RunAsync(command, static why => new RepairAnswer.Unavailable(why));
    }
}
