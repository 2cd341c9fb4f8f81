using System.Collections.Concurrent;
using System.Collections.Immutable;

namespace MountLedger;

/// <summary>An attachment that a synchronisation removes, or would.</summary>
public sealed record SyncedAttachment(string Mountpoint, Attachment Attachment);

/// <summary>
/// The orchestrator says which consumers are alive; attachments of all others that are older than its list are removed, each as if its consumer had
/// detached it. One that is interrupted is gone on with by giving the same list again: what was removed is not there any more.
/// </summary>
public sealed class ConsumerSync(AgentIdentity agent, IEventStore store, LiveStates live, CommandHandler commands, HostSwitch hostSwitch)
{
    private const int AppendAttemptsMax = 20;
    private const int AtOnceMax = 64;

    /// <summary>What would be removed, in the order of the paths.</summary>
    public ImmutableArray<SyncedAttachment> Plan(IReadOnlySet<string> alive, DateTimeOffset asOf) =>
    [
        .. live.Present().SelectMany(state => state.Attachments.Values
            .Where(attachment => attachment.Since < asOf && !alive.Contains(attachment.Consumer))
            .Select(attachment => new SyncedAttachment(state.Mountpoint, attachment))),
    ];

    /// <summary>Removes them and records that it was done; asking again with nothing left to remove records nothing.</summary>
    /// <exception cref="LedgerUnavailableException">The ledger went away; what was removed stays removed.</exception>
    public async Task<ImmutableArray<SyncedAttachment>> RunAsync(
        IReadOnlySet<string> alive, DateTimeOffset asOf, string actor, string commandId, CancellationToken cancellationToken)
    {
        var planned = Plan(alive, asOf);
        var removed = new ConcurrentBag<SyncedAttachment>();
        if (planned.IsEmpty) return [];
        try
        {
            // One after the other at one mountpoint, which they would only contend for; many mountpoints at once.
            foreach (var some in planned.GroupBy(line => line.Mountpoint).Chunk(AtOnceMax))
            {
                await Task.WhenAll(some.Select(async lines =>
                {
                    foreach (var line in lines)
                    {
                        cancellationToken.ThrowIfCancellationRequested();
                        var result = await commands.HandleAsync(
                            new MountCommand.Unmount(commandId, actor, new StreamKey(agent.Host, line.Mountpoint), line.Attachment.Key)
                            {
                                Wait = TimeSpan.Zero,
                                SyncedAsOf = asOf,
                            },
                            CancellationToken.None);
                        if (result is CommandResult.Pending or CommandResult.Failed or CommandResult.Done { Outcome: not Outcome.Noop }) removed.Add(line);
                    }
                }));
            }
        }
        finally
        {
            // Also of one that was broken off: its last removal may have been the last that there was to remove.
            if (!removed.IsEmpty) await RecordAsync(new HostEvent.ConsumersSynced(asOf, alive.Count, removed.Count), actor, commandId);
        }
        return [.. removed.OrderBy(line => line.Mountpoint, StringComparer.Ordinal)];
    }

    private async Task RecordAsync(HostEvent.ConsumersSynced change, string actor, string commandId)
    {
        for (var attempt = 0; attempt < AppendAttemptsMax; attempt++)
        {
            var state = await store.LoadHostStateAsync(agent.Host, CancellationToken.None);
            switch (await HostHandler.AppendAsync(store, agent.For(actor, commandId), state, change))
            {
                case AppendResult.Appended appended:
                    hostSwitch.Publish(state.Evolve(change, appended.Events[^1].Version, appended.Events[^1].At, actor));
                    return;
                case AppendResult.StaleEpoch stale:
                    throw new LedgerUnavailableException(
                        $"host {agent.Host} is served by another agent now (epoch {stale.CurrentEpoch}): this one was superseded");
            }
        }
        throw new LedgerUnavailableException($"the state of host {agent.Host} changed {AppendAttemptsMax} times while this was recorded: try again");
    }
}
