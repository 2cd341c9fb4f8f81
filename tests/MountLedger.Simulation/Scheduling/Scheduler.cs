namespace MountLedger.Simulation;

/// <summary>
/// The one thread of a simulation. Of all continuations that are ready it runs one that the dice pick; when none is ready, time goes on to
/// the next timer. So every interleaving that the core's awaits allow can happen, and the same seed gives the same one.
/// </summary>
internal sealed class Scheduler(Dice dice)
{
    private readonly List<Item> _ready = [];
    private readonly PriorityQueue<SimTimer, (long Due, long Number)> _timers = new();
    private readonly int _thread = Environment.CurrentManagedThreadId;
    private long _timerNumber;
    private long _now;
    private volatile string? _escape;

    /// <summary>Time since the beginning; it never goes back (the clocks of the machines may).</summary>
    public TimeSpan Now => new(_now);

    public long Steps { get; private set; }

    /// <summary>A fingerprint of everything that was picked: two runs with the same one were the same.</summary>
    public ulong Digest { get; private set; } = 14695981039346656037;

    /// <summary>An exception that nobody caught, or a continuation on another thread.</summary>
    public string? Broken { get; private set; }

    /// <summary>The run has ended; what is left of it is garbage.</summary>
    public bool IsOver { get; set; }

    public bool IsOwnThread => Environment.CurrentManagedThreadId == _thread;

    public void Escaped() => _escape ??= $"a continuation ran on another thread:\n{Environment.StackTrace}";

    public void Ready(Item item) => _ready.Add(item);

    /// <summary>Takes what is ready of a life out of the queue.</summary>
    public List<Item> Drop(Life life)
    {
        var dropped = _ready.FindAll(item => item.Life == life);
        if (dropped.Count > 0) _ready.RemoveAll(item => item.Life == life);
        return dropped;
    }

    public void At(SimTimer timer, long due)
    {
        timer.Number = ++_timerNumber;
        _timers.Enqueue(timer, (due, timer.Number));
    }

    /// <summary>Runs <paramref name="action"/> in <paramref name="life"/> after a time.</summary>
    public void After(Life life, TimeSpan delay, Action action) =>
        _ = new SimTimer(this, life, static state => ((Action)state!)(), action, delay, Timeout.InfiniteTimeSpan);

    /// <returns>False: nothing will ever happen again.</returns>
    public bool Step()
    {
        if (_ready.Count > 0) _now += dice.Below(200); // up to 20 µs
        else if (_timers.TryPeek(out _, out var next)) _now = Math.Max(_now, next.Due);
        while (_timers.TryPeek(out var timer, out var due) && due.Due <= _now)
        {
            _timers.Dequeue();
            timer.Fire(due.Number);
        }
        if (_ready.Count == 0) return _timers.Count > 0;

        var at = dice.Below(_ready.Count);
        var item = _ready[at];
        _ready[at] = _ready[^1];
        _ready.RemoveAt(_ready.Count - 1);
        Steps++;
        Digest = (Digest ^ (ulong)(at * 131 + _ready.Count) ^ (ulong)_now) * 1099511628211;
        Run(item);
        if (_escape is { } escape) Broken ??= escape;
        return true;
    }

    private void Run(Item item)
    {
        var before = SynchronizationContext.Current;
        SynchronizationContext.SetSynchronizationContext(item.Life);
        try
        {
            item.Callback(item.State);
        }
#pragma warning disable CA1031 // In a process it would be the end of it; here it is the end of the run.
        catch (Exception e)
#pragma warning restore CA1031
        {
            Broken ??= $"an exception that nobody caught in {item.Life.Name}: {e}";
        }
        finally
        {
            SynchronizationContext.SetSynchronizationContext(before);
        }
    }
}
