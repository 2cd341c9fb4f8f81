using System.Collections.Immutable;

namespace MountLedger.Simulation;

/// <summary>
/// The ledger's server: what <c>ledger_append</c> and its sisters do, each at one instant. It outlives every agent, and what it has
/// committed stays. Whatever it commits is checked by <see cref="World"/> in the same instant.
/// </summary>
internal sealed class SimLedger(World world)
{
    private readonly Dictionary<StreamKey, List<RecordedEvent>> _streams = [];
    private readonly SortedDictionary<string, Row> _rows = new(StringComparer.Ordinal);
    private readonly Dictionary<string, StoredRequest> _requests = new(StringComparer.Ordinal);
    private readonly List<Action<string>> _listeners = [];
    private HostState _hostState = HostState.Initial(World.Host);
    private long _seq;

    /// <summary>The lease: whose host it is, under which epoch, until when (by this server's clock).</summary>
    public Lease Holder { get; private set; } = new(0, null, null, TimeSpan.Zero);

    /// <summary>Nothing gets through to it.</summary>
    public bool IsAway { get; set; }

    /// <summary>It takes connections and reads, but refuses to write (a full disk, a standby).</summary>
    public bool IsReadOnly { get; set; }

    public HostState HostState => _hostState;

    /// <summary>When the host was taken down or up last.</summary>
    public TimeSpan HostChangedAt { get; private set; }

    public IEnumerable<MountState> States => _rows.Keys.Select(StateOf);

    public DateTimeOffset Clock => SimTime.Epoch + world.Scheduler.Now;

    public sealed record Lease(long Epoch, string? Agent, string? Machine, TimeSpan ExpiresAt);

    private sealed record Row(
        long Version, long Generation, string Json, DateTimeOffset UpdatedAt, ActionKind Action, DateTimeOffset? DueAt,
        AttachmentSet Attachments);

    public MountState StateOf(string mountpoint)
    {
        var stream = new StreamKey(World.Host, mountpoint);
        return _rows.TryGetValue(mountpoint, out var row)
            ? MountStateCodec.Decode(stream, row.Version, row.Generation, row.Json, row.UpdatedAt, row.Attachments)
            : MountState.Initial(stream);
    }

    public int CountRemovalsOfUnfinishedSync(DateTimeOffset asOf)
    {
        var synced = _streams.Values.SelectMany(events => events).LastOrDefault(recorded => recorded.Event is HostEvent.ConsumersSynced)?.Seq ?? 0;
        return _streams.Values.SelectMany(events => events).Count(
            recorded => recorded.Event is MountEvent.AttachmentRemoved { Reason: RemovalReason.Synced } && recorded.At >= asOf && recorded.Seq > synced);
    }

    public IReadOnlyList<RecordedEvent> EventsOf(StreamKey stream) => _streams.TryGetValue(stream, out var events) ? events : [];

    public List<MountState> LoadHost() =>
        [.. States.Where(state => state.Phase != Phase.Absent || !state.Drift.IsEmpty || MountFlow.NextAction(state).Kind != ActionKind.None)];

    public List<StreamKey> WorkList(DateTimeOffset now) =>
    [
        .. _rows.Where(row => row.Value.Action != ActionKind.None && (row.Value.DueAt is null || row.Value.DueAt <= now))
            .Select(row => new StreamKey(World.Host, row.Key)),
    ];

    public StoredRequest? FindRequest(string key) => _requests.GetValueOrDefault(key);

    public StoredRequest SaveAnswer(StoredRequest request)
    {
        if (!_requests.TryGetValue(request.Key, out var known)) return _requests[request.Key] = request with { Version = null };
        if (known.Answer is not null || known.Actor != request.Actor || known.BodyHash != request.BodyHash || known.Version != request.Version)
            return known;
        return _requests[request.Key] = known with { Status = request.Status, Answer = request.Answer };
    }

    /// <summary>The same machine takes over at once (it has the host's lock); another one when the time has run out.</summary>
    public (bool Taken, Lease Holder) TakeLease(string agent, string machine, long localEpoch, TimeSpan ttl)
    {
        var free = Holder.Machine is null || Holder.Machine == machine || Holder.ExpiresAt <= world.Scheduler.Now;
        if (free)
        {
            Holder = new Lease(Math.Max(Holder.Epoch, localEpoch) + 1, agent, machine, world.Scheduler.Now + ttl);
            world.Forget(machine);
            world.Trace($"ledger: lease to {agent}, epoch {Holder.Epoch}");
        }
        return (free, Holder);
    }

    public bool RenewLease(string agent, long epoch, TimeSpan ttl)
    {
        if (Holder.Epoch != epoch || Holder.Agent != agent) return false;
        Holder = Holder with { ExpiresAt = world.Scheduler.Now + ttl };
        return true;
    }

    public void Listen(Life life, Action<string> notified)
    {
        _listeners.Add(notified);
        life.OnDeath(() => _listeners.Remove(notified));
    }

    public AppendResult Append(AppendBatch batch)
    {
        var events = EventsOf(batch.Stream);
        if (batch.Request is { } request && _requests.TryGetValue(request.Key, out var existing))
            return new AppendResult.DuplicateRequest(existing);
        if (batch.Origin.Epoch is { } epoch && epoch != Holder.Epoch) return new AppendResult.StaleEpoch(Holder.Epoch);
        if (batch.RequireHostUp && !_hostState.IsUp) return new AppendResult.HostDown(_hostState.DownReason);
        if (batch.ExpectedVersion != events.Count) return new AppendResult.Conflict(events.Count);

        var at = Clock;
        var recorded = batch.Events.Select((change, index) => new RecordedEvent(
            ++_seq, Guid.Empty, batch.Stream, batch.ExpectedVersion + index + 1, "", change, at, batch.Origin.Actor,
            batch.Origin.CorrelationId, batch.Origin.CausationId, batch.Origin.Epoch, batch.Origin.Agent, "", "")).ToImmutableArray();
        if (!_streams.TryGetValue(batch.Stream, out var stream)) _streams.Add(batch.Stream, stream = []);
        stream.AddRange(recorded);
        if (batch.Request is { } row) _requests.Add(row.Key, row);

        if (batch.Stream.Id == HostEvent.StreamId)
        {
            if (_hostState.IsUp != batch.NewHostState!.IsUp) HostChangedAt = world.Scheduler.Now;
            _hostState = batch.NewHostState;
            world.Trace($"ledger: host v{_hostState.Version} {string.Join(", ", batch.Events.Select(change => change.GetType().Name))}");
        }
        else
        {
            Replace(batch, at);
            world.Appended(batch, recorded);
        }
        if (!batch.Origin.LocalAgent)
        {
            foreach (var listener in _listeners.ToArray()) listener(batch.Stream.Id);
        }
        return new AppendResult.Appended(recorded);
    }

    /// <summary>In the order of the real function: who left, who came, who is confirmed.</summary>
    private void Replace(AppendBatch batch, DateTimeOffset at)
    {
        var state = batch.NewState!;
        var attachments = _rows.TryGetValue(state.Mountpoint, out var before) ? before.Attachments : AttachmentSet.Empty;
        attachments = attachments.Without(batch.Attachments.Removed);
        foreach (var added in batch.Attachments.Added) attachments = attachments.With(added with { Since = at });
        if (batch.Attachments.ConfirmAll) attachments = attachments.Confirmed();
        var next = MountFlow.NextAction(state);
        _rows[state.Mountpoint] = new Row(
            state.Version, state.Generation, MountStateCodec.Encode(state), at, next.Kind, next.DueAt, attachments);
    }
}
