namespace MountLedger.Simulation;

/// <summary>
/// One process's connection to the ledger: every call takes time both ways, may be lost on its way, may be committed and its answer lost,
/// and may be committed long after its caller has given up.
/// </summary>
internal sealed class SimStore(World world, Life life) : IEventStore
{
    private static readonly TimeSpan CommandTimeout = TimeSpan.FromSeconds(5);

    private readonly List<Action> _inDoubt = [];

    private SimLedger Ledger => world.Ledger;

    public async ValueTask<MountState> LoadAsync(StreamKey stream, CancellationToken cancellationToken) =>
        await CallAsync($"load {stream.Id}", false, () => Ledger.StateOf(stream.Id), cancellationToken);

    public async Task<IReadOnlyList<MountState>> LoadHostAsync(string host, CancellationToken cancellationToken) =>
        await CallAsync("load host", false, Ledger.LoadHost, cancellationToken);

    public async Task<IReadOnlyList<StreamKey>> ReadWorkListAsync(string host, DateTimeOffset now, CancellationToken cancellationToken) =>
        await CallAsync("work list", false, () => Ledger.WorkList(now), cancellationToken);

    public async ValueTask<HostState> LoadHostStateAsync(string host, CancellationToken cancellationToken) =>
        await CallAsync("load host state", false, () => Ledger.HostState, cancellationToken);

    public async ValueTask<AppendResult> AppendAsync(AppendBatch batch, CancellationToken cancellationToken) =>
        await CallAsync(
            $"append {batch.Stream.Id} at {batch.ExpectedVersion}", true, () => Ledger.Append(batch), cancellationToken, () => world.Doubts.Begin(batch.Stream.Id, batch.Origin.Actor));

    public async ValueTask<StoredRequest?> FindRequestAsync(string host, string key, CancellationToken cancellationToken) =>
        await CallAsync("find request", false, () => Ledger.FindRequest(key), cancellationToken);

    public async ValueTask<StoredRequest> SaveAnswerAsync(string host, StoredRequest request, CancellationToken cancellationToken) =>
        await CallAsync("save answer", true, () => Ledger.SaveAnswer(request), cancellationToken);

    public async Task<IReadOnlyList<RecordedEvent>> ReadStreamAsync(
        StreamKey stream, long fromVersion, CancellationToken cancellationToken) =>
        await CallAsync("read stream", false, () => Ledger.EventsOf(stream).Skip((int)fromVersion - 1).ToList(), cancellationToken);

    public Task<int> CountRemovalsOfUnfinishedSyncAsync(string host, DateTimeOffset asOf, CancellationToken cancellationToken) =>
        CallAsync("count removals", false, () => Ledger.CountRemovalsOfUnfinishedSync(asOf), cancellationToken);

    public Task<(bool Taken, SimLedger.Lease Holder)> TakeLeaseAsync(string agent, string machine, long localEpoch, TimeSpan ttl) =>
        CallAsync("take lease", true, () => Ledger.TakeLease(agent, machine, localEpoch, ttl), CancellationToken.None);

    public Task<bool> RenewLeaseAsync(string agent, long epoch, TimeSpan ttl) =>
        CallAsync("renew lease", true, () => Ledger.RenewLease(agent, epoch, ttl), CancellationToken.None);

    /// <param name="what">For messages.</param>
    /// <param name="writes">A ledger that is read-only refuses it.</param>
    /// <param name="onServer">What the ledger does.</param>
    /// <param name="cancellationToken">Ends the wait, not what the ledger does.</param>
    /// <param name="late">It may take effect long after the caller was told that nobody knows; called when it will, returns what to do then.</param>
    private Task<T> CallAsync<T>(string what, bool writes, Func<T> onServer, CancellationToken cancellationToken, Func<Action>? late = null)
    {
        var call = new TaskCompletionSource<T>();
        if (cancellationToken.CanBeCanceled) cancellationToken.Register(() => call.TrySetCanceled(cancellationToken));

        var faults = world.Faults;
        var there = world.Dice.Latency(faults.SlowLedgerPercent);
        var back = world.Dice.Latency(faults.SlowLedgerPercent);
        var lost = world.Dice.Percent(faults.LostCallPercent);
        var answerLost = world.Dice.Percent(faults.LostAnswerPercent);
        var isLate = late is not null && world.Dice.Percent(faults.LateCommitPercent);
        if (there + back > CommandTimeout) (there, back) = (CommandTimeout / 2, CommandTimeout / 2);

        void Later(TimeSpan delay, Action action) => world.Scheduler.After(world.Outside, delay, action);
        void Fail(string why) => call.TrySetException(new LedgerUnavailableException($"{what}: {why}"));

        Later(there, () =>
        {
            // Whoever comes next ends the server process that an append without an answer was sent to; it has taken effect by then, or never will.
            if (!Ledger.IsAway && !lost)
            {
                foreach (var end in _inDoubt) end();
                _inDoubt.Clear();
            }
            if (Ledger.IsAway || lost) Later(back, () => Fail("the ledger cannot be reached"));
            else if (writes && Ledger.IsReadOnly) Later(back, () => Fail("the ledger is read-only"));
            else if (isLate)
            {
                var landed = late!();
                var isOver = false;
                Later(back, () =>
                {
                    Fail("no answer in time");
                    _inDoubt.Add(() => isOver = true);
                });
                Later(world.Dice.Percent(50) ? world.Dice.Millis(1, 20) : world.Dice.Millis(20, 8_000), () =>
                {
                    world.Trace($"{life.Name}: '{what}' {(isOver ? "was ended" : "arrives late")}");
                    if (!isOver && !Ledger.IsAway && !Ledger.IsReadOnly) onServer();
                    landed();
                });
            }
            else
            {
                var answer = onServer();
                if (answerLost) world.Trace($"{life.Name}: the answer to '{what}' is lost");
                Later(back, () =>
                {
                    if (answerLost || Ledger.IsAway) Fail("the connection broke");
                    else call.TrySetResult(answer);
                });
            }
        });
        return call.Task;
    }
}
