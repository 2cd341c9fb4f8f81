namespace MountLedger.Agent;

/// <summary>
/// The ledger, of which the agent remembers what it has seen (<see cref="HeadsMemory"/>), so that it notices one that was restored from a backup:
/// also while it runs, by an answer that an up-to-date ledger cannot give. <paramref name="olderBy"/> is then told the sign of it.
/// <paramref name="reading"/>: the host's mountpoints, which were begun to be read before this was made; what is asked first.
/// </summary>
internal sealed class RememberingStore(
    IEventStore store, HeadsMemory memory, Action<string> olderBy, Task<IReadOnlyList<MountState>> reading) : IEventStore
{
    private Task<IReadOnlyList<MountState>>? _reading = reading;

    public async ValueTask<MountState> LoadAsync(StreamKey stream, CancellationToken cancellationToken)
    {
        var state = await store.LoadAsync(stream, cancellationToken);
        memory.Read(state);
        return state;
    }

    public async Task<IReadOnlyList<MountState>> LoadHostAsync(string host, CancellationToken cancellationToken)
    {
        var states = await (Interlocked.Exchange(ref _reading, null) ?? store.LoadHostAsync(host, cancellationToken));
        foreach (var state in states) memory.Read(state);
        return states;
    }

    public async ValueTask<AppendResult> AppendAsync(AppendBatch batch, CancellationToken cancellationToken)
    {
        var result = await store.AppendAsync(batch, cancellationToken);
        switch (result)
        {
            case AppendResult.Appended appended when batch.NewState is { } state:
                memory.Recorded(state, batch.ExpectedVersion, batch.Attachments, appended.Events[^1]);
                break;
            case AppendResult.Appended appended:
                memory.Recorded(appended.Events[^1]);
                break;
            case AppendResult.Conflict conflict when conflict.ActualVersion < batch.ExpectedVersion:
                olderBy($"{batch.Stream.Id} is at version {conflict.ActualVersion}, and was at {batch.ExpectedVersion}");
                break;
            case AppendResult.StaleEpoch stale when stale.CurrentEpoch < batch.Origin.Epoch:
                olderBy($"its epoch is {stale.CurrentEpoch}, and was {batch.Origin.Epoch}");
                break;
        }
        return result;
    }

    public Task<IReadOnlyList<StreamKey>> ReadWorkListAsync(string host, DateTimeOffset now, CancellationToken cancellationToken) =>
        store.ReadWorkListAsync(host, now, cancellationToken);

    public ValueTask<HostState> LoadHostStateAsync(string host, CancellationToken cancellationToken) => store.LoadHostStateAsync(host, cancellationToken);

    public ValueTask<StoredRequest?> FindRequestAsync(string host, string key, CancellationToken cancellationToken) =>
        store.FindRequestAsync(host, key, cancellationToken);

    public ValueTask<StoredRequest> SaveAnswerAsync(string host, StoredRequest request, CancellationToken cancellationToken) =>
        store.SaveAnswerAsync(host, request, cancellationToken);

    public Task<IReadOnlyList<RecordedEvent>> ReadStreamAsync(StreamKey stream, long fromVersion, CancellationToken cancellationToken) =>
        store.ReadStreamAsync(stream, fromVersion, cancellationToken);

    public Task<int> CountRemovalsOfUnfinishedSyncAsync(string host, DateTimeOffset asOf, CancellationToken cancellationToken) =>
        store.CountRemovalsOfUnfinishedSyncAsync(host, asOf, cancellationToken);
}
