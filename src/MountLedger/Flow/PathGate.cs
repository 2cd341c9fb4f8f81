namespace MountLedger;

/// <summary>
/// At most one operation on a mountpoint, and none on an ancestor or a descendant of it at the same time (rule 14).
/// Waiters are served in order of arrival, except that nobody waits for somebody who waits: while a path is held, its
/// siblings go on although their parent is waited for. They may not do so for ever: a parent that was overtaken
/// <see cref="OvertakesMax"/> times closes its path to newcomers until it is let in; but only for <see cref="ClosedMax"/>, because what it
/// waits for may hang, and each time that ends without success it takes ten times as many until the next. A waiter that gives up leaves
/// nothing behind.
/// </summary>
public sealed class PathGate(TimeProvider? time = null)
{
    /// <summary>How many entries below a path that is waited for come first at most.</summary>
    public const int OvertakesMax = 32;

    /// <summary>How long newcomers below a path are held back for who waits for it.</summary>
    public static readonly TimeSpan ClosedMax = TimeSpan.FromSeconds(1);

    private const int OvertakesGrowth = 10;
    private const int OvertakesCeiling = 1_000_000;
    private readonly TimeProvider _time = time ?? TimeProvider.System;
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
            // Who was held back for it is held back no longer.
            if (waiter.IsAtItsPath && --_nodes[waiter.Path].Wanting == 0 && _nodes[waiter.Path] is { Closed: true } node) Open(node);
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
            if (waiter.IsAtItsPath) freed[at].Wanting--;
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
            if (_nodes.TryGetValue(ancestor, out var above) && (above.Held || above.Closed)) return ancestor;
        }
        return null;
    }

    private Pass Take(string path)
    {
        var own = NodeOf(path);
        own.Held = true;
        own.Reopen();
        (own.Overtaken, own.OvertakesMax) = (0, OvertakesMax);
        foreach (var ancestor in MountPath.AncestorsOf(path))
        {
            var above = NodeOf(ancestor);
            above.HeldBelow++;
            if (above.Wanting > 0 && ++above.Overtaken >= above.OvertakesMax) Close(above);
        }
        return new Pass(this, path);
    }

    private void Close(Node node)
    {
        if (node.Closed) return;
        node.Closed = true;
        node.Alarm = _time.CreateTimer(_ => OpenInVain(node), null, ClosedMax, Timeout.InfiniteTimeSpan);
    }

    /// <summary>What it waits for does not go: newcomers need not wait for that too.</summary>
    private void OpenInVain(Node node)
    {
        lock (_lock)
        {
            if (!node.Closed) return;
            node.OvertakesMax = Math.Min(OvertakesCeiling, node.OvertakesMax * OvertakesGrowth);
            Open(node);
        }
    }

    private void Open(Node node)
    {
        node.Overtaken = 0;
        node.Reopen();
        LetIn([node]);
    }

    private void Park(Waiter waiter, string blocker)
    {
        var node = NodeOf(blocker);
        waiter.IsAtItsPath = blocker == waiter.Path;
        if (waiter.IsAtItsPath) node.Wanting++;
        var waiters = node.Waiters;
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

        /// <summary>How many of those who wait here want this very path.</summary>
        public int Wanting;

        /// <summary>How many have entered below since this path is waited for, and how many may.</summary>
        public int Overtaken;
        public int OvertakesMax = PathGate.OvertakesMax;

        /// <summary>Newcomers below wait for who waits for this path.</summary>
        public bool Closed;
        public ITimer? Alarm;

        public void Reopen()
        {
            Closed = false;
            Alarm?.Dispose();
            Alarm = null;
        }

        public bool IsIdle => !Held && HeldBelow == 0 && Waiters.Count == 0;
    }

    private sealed class Waiter(string path, long arrival)
    {
        public string Path { get; } = path;
        public long Arrival { get; } = arrival;

        /// <summary>Where it waits; null once it has been let in or has given up.</summary>
        public LinkedListNode<Waiter>? Place { get; set; }

        /// <summary>It waits at the path that it wants, not at one above.</summary>
        public bool IsAtItsPath { get; set; }

        public TaskCompletionSource<Pass> Entered { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);
    }
}
