namespace MountLedger;

/// <summary>
/// At most one operation on a mountpoint, and none on an ancestor or a descendant of it at the same time (rule 14).
/// Waiters are served in order of arrival; a waiter that gives up leaves nothing behind.
/// </summary>
public sealed class PathGate
{
    private readonly Lock _lock = new();
    private readonly Dictionary<string, Node> _nodes = new(StringComparer.Ordinal);

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
            waiter = new Waiter(path);
            Park(waiter, blocker);
        }
        await using var registration = cancellationToken.UnsafeRegister(
            static (state, token) => ((Waiter)state!).Entered.TrySetCanceled(token), waiter);
        return await waiter.Entered.Task;
    }

    private void Release(string path)
    {
        lock (_lock)
        {
            _nodes[path].Held = false;
            foreach (var ancestor in MountPath.AncestorsOf(path)) _nodes[ancestor].HeldBelow--;
            Advance(path);
            foreach (var ancestor in MountPath.AncestorsOf(path)) Advance(ancestor);
        }
    }

    /// <summary>Lets in who waited at <paramref name="key"/>; moves on those that something else blocks now.</summary>
    private void Advance(string key)
    {
        if (!_nodes.TryGetValue(key, out var node)) return;
        while (node.Waiters.TryPeek(out var waiter))
        {
            if (waiter.Entered.Task.IsCompleted)
            {
                node.Waiters.Dequeue();
                continue;
            }
            var blocker = BlockerOf(waiter.Path);
            if (blocker == key) break;
            node.Waiters.Dequeue();
            if (blocker is not null)
            {
                Park(waiter, blocker);
                continue;
            }
            var pass = Take(waiter.Path);
            // A waiter that was cancelled in this instant does not take its pass: give it back at once.
            if (!waiter.Entered.TrySetResult(pass)) pass.GiveBack();
        }
        if (node.IsIdle) _nodes.Remove(key);
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

    private void Park(Waiter waiter, string blocker) => NodeOf(blocker).Waiters.Enqueue(waiter);

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

        internal void GiveBack() => Dispose();
    }

    private sealed class Node
    {
        public bool Held;
        public int HeldBelow;
        public readonly Queue<Waiter> Waiters = new();

        public bool IsIdle => !Held && HeldBelow == 0 && Waiters.Count == 0;
    }

    private sealed class Waiter(string path)
    {
        public string Path { get; } = path;
        public TaskCompletionSource<Pass> Entered { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);
    }
}
