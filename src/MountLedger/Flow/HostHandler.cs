namespace MountLedger;

/// <summary>Takes the host down for new mounts and up again (rule 12), by an operator's choice.</summary>
public sealed class HostHandler(AgentIdentity agent, IEventStore store, HostSwitch hostSwitch)
{
    private const int AppendAttemptsMax = 20;

    /// <summary>Records the change; asking for what is so already records nothing.</summary>
    /// <returns>The state after it, and whether it was changed.</returns>
    /// <exception cref="LedgerUnavailableException">The ledger is away, or another agent has taken over.</exception>
    public async Task<(HostState State, bool Changed)> HandleAsync(HostCommand command)
    {
        for (var attempt = 0; attempt < AppendAttemptsMax; attempt++)
        {
            var state = await store.LoadHostStateAsync(agent.Host, CancellationToken.None);
            hostSwitch.Publish(state);
            if (state.IsUp == command.Up && (command.Up || state.DownReason == command.Reason)) return (state, false);

            HostEvent change = command.Up ? new HostEvent.HostUp(command.Reason) : new HostEvent.HostDown(command.Reason);
            var result = await AppendAsync(store, agent.For(command.Actor, command.Id), state, change);
            switch (result)
            {
                case AppendResult.Appended appended:
                    var next = state.Evolve(change, appended.Events[^1].Version, appended.Events[^1].At, command.Actor);
                    hostSwitch.Publish(next);
                    return (next, true);
                case AppendResult.StaleEpoch stale:
                    throw new LedgerUnavailableException(
                        $"host {agent.Host} is served by another agent now (epoch {stale.CurrentEpoch}): this one was superseded");
            }
        }
        throw new LedgerUnavailableException($"the state of host {agent.Host} changed {AppendAttemptsMax} times while this was decided: try again");
    }

    /// <summary>Appends one event to the host's own stream.</summary>
    public static ValueTask<AppendResult> AppendAsync(IEventStore store, AppendOrigin origin, HostState state, HostEvent change)
    {
        // The row holds no time that the database sets, so any will do for folding it.
        var folded = state.Evolve(change, state.Version + 1, state.UpdatedAt, origin.Actor);
        return store.AppendAsync(
            new AppendBatch(
                new StreamKey(state.Host, HostEvent.StreamId), state.Version, [change], origin, NewState: null, folded,
                AttachmentChanges.None, RequireHostUp: false, Request: null),
            CancellationToken.None);
    }
}
