using System.Diagnostics.CodeAnalysis;

namespace MountLedger;

/// <summary>
/// The newest states that this process has seen, of its host's mountpoints, and who waits for one of them to change. Decisions from here
/// are safe because the append compares versions. Mountpoints that are absent are kept only as far as they are recent.
/// </summary>
public sealed class LiveStates
{
    /// <summary>How many absent mountpoints are remembered, to save reading them again.</summary>
    public const int AbsentKeptMax = 4096;

    private readonly Lock _lock = new();
    private readonly Dictionary<string, MountState> _states = new(StringComparer.Ordinal);
    private readonly SortedSet<string> _present = new(StringComparer.Ordinal);
    private readonly Dictionary<ulong, string> _byMountId = [];
    private readonly HashSet<string> _old = new(StringComparer.Ordinal);
    private readonly Queue<(string Mountpoint, long Version)> _absent = new();
    private readonly Dictionary<string, List<Waiter>> _waiters = new(StringComparer.Ordinal);

    public bool TryGet(string mountpoint, [NotNullWhen(true)] out MountState? state)
    {
        lock (_lock)
        {
            state = _old.Contains(mountpoint) ? null : StateOrNull(mountpoint);
            return state is not null;
        }
    }

    /// <summary>Takes in a state unless a newer one is known, and tells those who wait for it.</summary>
    public void Publish(MountState state)
    {
        List<Waiter>? settled = null;
        lock (_lock)
        {
            if (_states.TryGetValue(state.Mountpoint, out var known) && known.Version > state.Version) return;
            foreach (var before in IdsOf(known)) _byMountId.Remove(before);
            foreach (var id in IdsOf(state)) _byMountId[id] = state.Mountpoint;
            _states[state.Mountpoint] = state;
            _old.Remove(state.Mountpoint);
            if (IsPresent(state)) _present.Add(state.Mountpoint);
            else KeepAbsent(state);

            if (_waiters.TryGetValue(state.Mountpoint, out var waiters))
            {
                var settling = waiters.ToLookup(waiter => waiter.Until(state));
                settled = [.. settling[true]];
                if (settled.Count > 0) _waiters[state.Mountpoint] = waiters = [.. settling[false]];
                if (waiters.Count == 0) _waiters.Remove(state.Mountpoint);
            }
        }
        settled?.ForEach(waiter => waiter.Seen.TrySetResult(state));
    }

    /// <summary>
    /// A state turned out to be old: the next look reads it from the ledger. Until then a present mountpoint stays one, because those
    /// above and below it must not be operated on as if it were not there.
    /// </summary>
    public void Invalidate(string mountpoint)
    {
        lock (_lock)
        {
            _old.Add(mountpoint);
            if (!_present.Contains(mountpoint)) _states.Remove(mountpoint);
        }
    }

    /// <summary>The mountpoints whose state turned out to be old and has not been read since: nothing else would lead to a look at them.</summary>
    public IReadOnlyList<string> Doubtful()
    {
        lock (_lock) return [.. _old];
    }

    /// <summary>The first state from now on (the known one included) of which <paramref name="until"/> is true.</summary>
    /// <exception cref="OperationCanceledException">The wait was given up.</exception>
    public async Task<MountState> WaitAsync(string mountpoint, Func<MountState, bool> until, CancellationToken cancellationToken)
    {
        var waiter = new Waiter(until);
        lock (_lock)
        {
            if (_states.TryGetValue(mountpoint, out var known) && until(known)) return known;
            if (!_waiters.TryGetValue(mountpoint, out var waiters)) _waiters.Add(mountpoint, waiters = []);
            waiters.Add(waiter);
        }
        try
        {
            using var registration = cancellationToken.UnsafeRegister(
                static (state, token) => ((Waiter)state!).Seen.TrySetCanceled(token), waiter);
            return await waiter.Seen.Task;
        }
        finally
        {
            lock (_lock)
            {
                if (_waiters.TryGetValue(mountpoint, out var waiters) && waiters.Remove(waiter) && waiters.Count == 0)
                    _waiters.Remove(mountpoint);
            }
        }
    }

    /// <summary>
    /// The mountpoint whose mount has this unique id, also while that is being mounted: it may be gone again before its outcome is recorded. Null
    /// when it is none of ours.
    /// </summary>
    public string? MountpointOf(ulong mountId)
    {
        lock (_lock) return _byMountId.GetValueOrDefault(mountId);
    }

    /// <summary>The present state of a mountpoint, however old; null when it is absent.</summary>
    public MountState? PresentAt(string mountpoint)
    {
        lock (_lock) return _present.Contains(mountpoint) ? StateOrNull(mountpoint) : null;
    }

    /// <summary>Present mountpoints above this one, nearest first.</summary>
    public IReadOnlyList<MountState> AncestorsOf(string mountpoint)
    {
        lock (_lock)
        {
            return [.. MountPath.AncestorsOf(mountpoint).Where(_present.Contains).Select(StateOrNull).OfType<MountState>()];
        }
    }

    /// <summary>Present mountpoints below this one, in ordinal order.</summary>
    public IReadOnlyList<MountState> DescendantsOf(string mountpoint)
    {
        lock (_lock)
        {
            // '0' follows '/' in ordinal order, so this range is exactly what begins with the path and a slash.
            return [.. _present.GetViewBetween(mountpoint + "/", mountpoint + "0")
                .Where(path => MountPath.IsBelow(path, mountpoint)).Select(StateOrNull).OfType<MountState>()];
        }
    }

    /// <summary>All present mountpoints, in ordinal order: parents before children.</summary>
    public IReadOnlyList<MountState> Present()
    {
        lock (_lock) return [.. _present.Select(StateOrNull).OfType<MountState>()];
    }

    /// <summary>How many states and waiters are held; for tests that nothing is left behind.</summary>
    public (int Present, int Absent, int Waiters) Count()
    {
        lock (_lock) return (_present.Count, _states.Count - _present.Count, _waiters.Count);
    }

    private static IEnumerable<ulong> IdsOf(MountState? state)
    {
        if (state?.Kernel?.MountId is { } mounted) yield return mounted;
        if (state?.Operation is { Kind: OperationKind.Mount, MountId: { } mounting }) yield return mounting;
    }

    private MountState? StateOrNull(string path) => _states.GetValueOrDefault(path);

    private static bool IsPresent(MountState state) => state.Phase != Phase.Absent || !state.Drift.IsEmpty;

    private void KeepAbsent(MountState state)
    {
        // In the queue once for each time it became absent: bounded, and the oldest goes first. An entry whose mountpoint has changed
        // since says nothing any more: one that is mounted and unmounted all the time must not push itself out.
        _present.Remove(state.Mountpoint);
        _absent.Enqueue((state.Mountpoint, state.Version));
        while (_absent.Count > AbsentKeptMax)
        {
            var (oldest, version) = _absent.Dequeue();
            if (!_present.Contains(oldest) && StateOrNull(oldest)?.Version == version) _states.Remove(oldest);
        }
    }

    private sealed class Waiter(Func<MountState, bool> until)
    {
        public Func<MountState, bool> Until { get; } = until;
        public TaskCompletionSource<MountState> Seen { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);
    }
}
