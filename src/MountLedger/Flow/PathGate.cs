namespace MountLedger;

/// <summary>
/// At most one operation on a mountpoint, and none on an ancestor or a descendant of it at the same time (rule 14).
/// Waiters are served in order of arrival, except that nobody waits for somebody who waits: while a path is held, its
/// siblings go on although their parent is waited for. A waiter that gives up leaves nothing behind.
/// </summary>
public sealed class PathGate
{
    private readonly Lock _lock = new();
    private readonly Dictionary<string, Node> _nodes = new(StringComparer.Ordinal);
    private long _arrivals;

    /// <summary>How many paths are held or waited for; 0 when nothing is going on.</summary>
    public int Count
    {
        get { lock (_lock) return _nodes.Count; }
    }

    /// <summary>Enters at once, or returns null when the path or a relative of it is taken.</summary>
    public Pass? TryEnter(string path)
    {
        lock (_lock)
        {
            if (BlockerOf(path) is not null) return null;
            return Take(path);
        }
    }

    /// <exception cref="OperationCanceledException">The wait was given up.</exception>
    public async Task<Pass> EnterAsync(string path, CancellationToken cancellationToken)
    {
        Waiter waiter;
        lock (_lock)
        {
            if (BlockerOf(path) is not { } blocker) return Take(path);
            waiter = new Waiter(path, _arrivals++);
            Park(waiter, blocker);
        }
        await using var registration = cancellationToken.UnsafeRegister(
            static (state, token) =>
            {
                var (gate, waiter) = ((PathGate, Waiter))state!;
                gate.GiveUp(waiter, token);
            },
            (this, waiter));
        return await waiter.Entered.Task;
    }

    private void GiveUp(Waiter waiter, CancellationToken token)
    {
        lock (_lock)
        {
            if (waiter.Place is not { } place) return; // It has been let in: the pass is its.
            place.List!.Remove(place);
            waiter.Place = null;
        }
        waiter.Entered.TrySetCanceled(token);
    }

    private void Release(string path)
    {
        lock (_lock)
        {
            string[] freed = [path, .. MountPath.AncestorsOf(path)];
            _nodes[path].Held = false;
            foreach (var ancestor in freed.AsSpan(1)) _nodes[ancestor].HeldBelow--;
            LetIn([.. freed.Select(key => _nodes[key])]);
            foreach (var key in freed)
            {
                if (_nodes[key].IsIdle) _nodes.Remove(key);
            }
        }
    }

    /// <summary>
    /// Lets in, in order of arrival, who waited at one of these paths and is free to go now; moves on those that something else blocks.
    /// A waiter that stays does not hold up those behind it: they may be free although it is not.
    /// </summary>
    private void LetIn(Node[] freed)
    {
        var next = Array.ConvertAll(freed, node => node.Waiters.First);
        while (true)
        {
            var at = -1;
            for (var i = 0; i < next.Length; i++)
            {
                // Whoever waits at a path that is held waits on.
                if (freed[i].Held) next[i] = null;
                if (next[i] is { } candidate && (at < 0 || candidate.Value.Arrival < next[at]!.Value.Arrival)) at = i;
            }
            if (at < 0) return;

            var place = next[at]!;
            next[at] = place.Next;
            var waiter = place.Value;
            var blocker = BlockerOf(waiter.Path);
            if (blocker is not null && _nodes[blocker] == freed[at]) continue;
            freed[at].Waiters.Remove(place);
            waiter.Place = null;
            if (blocker is not null) Park(waiter, blocker);
            else waiter.Entered.SetResult(Take(waiter.Path));
        }
    }

    private string? BlockerOf(string path)
    {
        if (_nodes.TryGetValue(path, out var node) && (node.Held || node.HeldBelow > 0)) return path;
        foreach (var ancestor in MountPath.AncestorsOf(path))
        {
            if (_nodes.TryGetValue(ancestor, out var above) && above.Held) return ancestor;
        }
        return null;
    }

    private Pass Take(string path)
    {
        NodeOf(path).Held = true;
        foreach (var ancestor in MountPath.AncestorsOf(path)) NodeOf(ancestor).HeldBelow++;
        return new Pass(this, path);
    }

    private void Park(Waiter waiter, string blocker)
    {
        var waiters = NodeOf(blocker).Waiters;
        var before = waiters.Last;
        while (before?.Value.Arrival > waiter.Arrival) before = before.Previous;
        waiter.Place = before is null ? waiters.AddFirst(waiter) : waiters.AddAfter(before, waiter);
    }

    private Node NodeOf(string path)
    {
        if (!_nodes.TryGetValue(path, out var node)) _nodes.Add(path, node = new Node());
        return node;
    }

    /// <summary>The right to operate on a path, until disposed.</summary>
    public sealed class Pass : IDisposable
    {
        private PathGate? _gate;

        internal Pass(PathGate gate, string path) => (_gate, Path) = (gate, path);

        public string Path { get; }

        public void Dispose() => Interlocked.Exchange(ref _gate, null)?.Release(Path);
    }

    private sealed class Node
    {
        public bool Held;
        public int HeldBelow;
        public readonly LinkedList<Waiter> Waiters = new();

        public bool IsIdle => !Held && HeldBelow == 0 && Waiters.Count == 0;
    }

    private sealed class Waiter(string path, long arrival)
    {
        public string Path { get; } = path;
        public long Arrival { get; } = arrival;

        /// <summary>Where it waits; null once it has been let in or has given up.</summary>
        public LinkedListNode<Waiter>? Place { get; set; }

        public TaskCompletionSource<Pass> Entered { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);
    }
}
