using System.Collections.Concurrent;
using System.Collections.Immutable;

namespace MountLedger;

/// <summary>An attachment that a synchronisation removes, or would.</summary>
public sealed record SyncedAttachment(string Mountpoint, Attachment Attachment);

/// <summary>
/// The orchestrator says which consumers are alive; attachments of all others that are older than its list are removed, each as if its consumer had
/// detached it. After the last of them it is recorded that this was done. One that was interrupted anywhere, also behind its last removal, is finished by giving
/// the same list again: removals since its time that no such record follows are part of it.
/// </summary>
public sealed class ConsumerSync(AgentIdentity agent, IEventStore store, LiveStates live, CommandHandler commands, HostSwitch hostSwitch)
{
    private const int AppendAttemptsMax = 20;
    private const int AtOnceMax = 64;

    /// <summary>One at a time: removals without a record are then of one that was interrupted, not of one that is under way.</summary>
    private readonly KeyedLock _turn = new();

    /// <summary>What would be removed, in the order of the paths.</summary>
    public ImmutableArray<SyncedAttachment> Plan(IReadOnlySet<string> alive, DateTimeOffset asOf) =>
    [
        .. live.Present().SelectMany(state => state.Attachments
            .Where(attachment => attachment.Since < asOf && !alive.Contains(attachment.Consumer))
            .Select(attachment => new SyncedAttachment(state.Mountpoint, attachment))),
    ];

    /// <summary>
    /// Removes them, and records that it was done. With nothing to remove, and nothing unfinished, nothing is recorded.
    /// </summary>
    /// <returns>What this call removed.</returns>
    /// <exception cref="LedgerUnavailableException">The ledger went away; what was removed stays removed, and the same call again does the rest.</exception>
    /// <exception cref="OperationCanceledException">It was called off between two removals; the same holds.</exception>
    public async Task<ImmutableArray<SyncedAttachment>> RunAsync(
        IReadOnlySet<string> alive, DateTimeOffset asOf, string actor, string commandId, CancellationToken cancellationToken)
    {
        using var turn = await _turn.EnterAsync(HostEvent.StreamId);
        cancellationToken.ThrowIfCancellationRequested();
        var planned = Plan(alive, asOf);
        var removedBefore = await store.CountRemovalsOfUnfinishedSyncAsync(agent.Host, asOf, CancellationToken.None);
        var removed = new ConcurrentBag<SyncedAttachment>();
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
        if (removedBefore + removed.Count is > 0 and var count) await RecordAsync(new HostEvent.ConsumersSynced(asOf, alive.Count, count), actor, commandId);
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
