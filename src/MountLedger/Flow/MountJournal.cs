using System.Collections.Immutable;
using Microsoft.Extensions.Logging;

namespace MountLedger;

/// <summary>
/// The way of an event into the ledger: folds it, appends it with its projection rows, folds it again with what the
/// database set, and tells whoever waits for that mountpoint.
/// </summary>
public sealed class MountJournal(
    IEventStore store, LiveStates live, AgentIdentity agent, TimeProvider time, ILogger logger, AgentLease? lease = null)
{
    private readonly KeyedLock _streams = new();
    private int _fenced;

    private const int RetryDelayMinMs = 50;
    private const int RetryDelayMaxMs = 2_000;

    /// <summary>Set once the ledger has refused this agent's epoch: it must not touch the kernel any more.</summary>
    public bool IsFenced => Volatile.Read(ref _fenced) != 0;

    /// <summary>Called once, when it is fenced.</summary>
    public Action? OnFenced { get; set; }

    /// <summary>The lease was lost: another agent serves the host.</summary>
    public void Fence()
    {
        if (Interlocked.Exchange(ref _fenced, 1) == 0) OnFenced?.Invoke();
    }

    /// <summary>
    /// Whether the kernel may be touched now: to be asked right before each operation, with nothing awaited in between. Without a
    /// lease (a test, a host that only one agent can reach) the epoch alone decides.
    /// </summary>
    public bool MayAct => !IsFenced && lease is null or { IsValid: true };

    /// <summary>Asks for the lease again if its time may have run out: the process was stopped, or the ledger was away.</summary>
    public async Task ConfirmLeaseAsync()
    {
        if (IsFenced || lease is null or { IsValid: true }) return;
        try
        {
            if (await lease.RenewAsync()) return;
            logger.LeaseGone(agent.Host, agent.Epoch);
            Fence();
        }
        catch (LedgerUnavailableException)
        {
            // Then it is not confirmed.
        }
    }

    /// <summary>The newest known state; read from the ledger when none is known, or when <paramref name="fresh"/>.</summary>
    public async ValueTask<MountState> StateAsync(string mountpoint, bool fresh, CancellationToken cancellationToken)
    {
        if (!fresh && live.TryGet(mountpoint, out var known)) return known;
        var loaded = await store.LoadAsync(new StreamKey(agent.Host, mountpoint), cancellationToken);
        live.Publish(loaded);
        return live.TryGet(mountpoint, out var newest) ? newest : loaded;
    }

    /// <summary>
    /// Waits for this process's other appends to the same stream: many callers of one mountpoint then follow each other
    /// instead of conflicting again and again. Other processes are held off by the version alone.
    /// </summary>
    public Task<IDisposable> EnterAsync(string mountpoint) => _streams.EnterAsync(mountpoint);

    /// <summary>Appends once. The new state has been published when the result is <see cref="AppendResult.Appended"/>.</summary>
    public async ValueTask<AppendResult> AppendAsync(
        MountState state, ImmutableArray<MountEvent> events, AppendOrigin origin, bool requireHostUp, StoredRequest? request,
        CancellationToken cancellationToken)
    {
        var folded = Fold(state, events, origin.Actor);
        var batch = new AppendBatch(
            state.Stream, state.Version, [.. events.Cast<LedgerEvent>()], origin, folded, NewHostState: null,
            ChangesOf(state, events, folded), requireHostUp, request);

        AppendResult result;
        var began = time.GetTimestamp();
        try
        {
            KillPoint.Reached($"before-append-{events[^1].GetType().Name}");
            result = await store.AppendAsync(batch, cancellationToken);
            KillPoint.Reached($"after-append-{events[^1].GetType().Name}");
            OperationMeter.Appended(result, time.GetElapsedTime(began));
        }
        catch (Exception e) when (e is LedgerUnavailableException or OperationCanceledException)
        {
            if (e is LedgerUnavailableException) OperationMeter.Appended(null, time.GetElapsedTime(began));
            live.Invalidate(state.Mountpoint); // It may have been committed: what we know may be old.
            throw;
        }

        switch (result)
        {
            case AppendResult.Appended appended:
                live.Publish(appended.Events.Aggregate(state, static (next, recorded) => next.Evolve(recorded)));
                break;
            case AppendResult.Conflict:
                live.Invalidate(state.Mountpoint);
                break;
            case AppendResult.StaleEpoch stale:
                if (!IsFenced) logger.Fenced(agent.Host, stale.CurrentEpoch, agent.Epoch);
                Fence();
                break;
        }
        return result;
    }

    /// <summary>
    /// Records what became of an operation, until it is in: a conflict decides again on the newer state, an unavailable
    /// ledger is waited for. <paramref name="decide"/> returns no events once the outcome is in the ledger already.
    /// </summary>
    /// <returns>The state after it; null when this agent has been fenced, and its outcome is for its successor to find.</returns>
    public async Task<MountState?> RecordOutcomeAsync(
        MountState state, Func<MountState, ImmutableArray<MountEvent>> decide, AppendOrigin origin, CancellationToken cancellationToken)
    {
        var delayMs = RetryDelayMinMs;
        for (var reload = false; ; reload = true)
        {
            if (IsFenced) return null;
            try
            {
                using var turn = await EnterAsync(state.Mountpoint);
                state = await StateAsync(state.Mountpoint, fresh: reload, cancellationToken);
                var events = decide(state);
                if (events.IsEmpty) return state;
                switch (await AppendAsync(state, events, origin, requireHostUp: false, request: null, cancellationToken))
                {
                    case AppendResult.Appended: return await StateAsync(state.Mountpoint, fresh: false, cancellationToken);
                    case AppendResult.StaleEpoch: return null;
                }
                delayMs = RetryDelayMinMs;
            }
            catch (LedgerUnavailableException e)
            {
                logger.OutcomeKept(state.Mountpoint, e.Message);
                await Task.Delay(TimeSpan.FromMilliseconds(delayMs), time, cancellationToken);
                delayMs = Math.Min(RetryDelayMaxMs, delayMs * 2);
            }
        }
    }

    /// <summary>The state after events that the database has not timed yet; for the projection row, which holds no such time.</summary>
    public MountState Fold(MountState state, ImmutableArray<MountEvent> events, string actor) =>
        events.Aggregate(state, (next, change) => next.Evolve(change, next.Version + 1, time.GetUtcNow(), actor));

    /// <summary>From the events, not by comparing: a mountpoint may have ten thousand attachments.</summary>
    private static AttachmentChanges ChangesOf(MountState before, ImmutableArray<MountEvent> events, MountState after)
    {
        var added = ImmutableArray.CreateBuilder<Attachment>();
        var removed = ImmutableArray.CreateBuilder<AttachmentKey>();
        var confirmed = false;
        foreach (var change in events)
        {
            switch (change)
            {
                case MountEvent.AttachmentAdded e:
                    var joined = new AttachmentKey(e.Volume, e.Consumer);
                    if (!before.Attachments.ContainsKey(joined) && after.Attachments.TryGetValue(joined, out var attachment))
                        added.Add(attachment);
                    break;
                case MountEvent.AttachmentRemoved e:
                    var left = new AttachmentKey(e.Volume, e.Consumer);
                    if (before.Attachments.ContainsKey(left) && !after.Attachments.ContainsKey(left)) removed.Add(left);
                    break;
                case MountEvent.Mounted or MountEvent.MountAdopted or MountEvent.MountKept:
                    confirmed = after.Holds;
                    break;
            }
        }
        return added.Count == 0 && removed.Count == 0 && !confirmed
            ? AttachmentChanges.None
            : new AttachmentChanges(added.ToImmutable(), removed.ToImmutable(), confirmed);
    }
}
