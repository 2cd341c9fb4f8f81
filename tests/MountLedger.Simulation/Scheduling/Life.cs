namespace MountLedger.Simulation;

/// <summary>
/// The life of one process: what awaits in it goes on in it, when the scheduler says so. Once it is dead, nothing of it ever runs
/// again, as after SIGKILL; while it is paused, nothing of it runs, as after SIGSTOP.
/// </summary>
internal sealed class Life(Scheduler scheduler, string name) : SynchronizationContext
{
    private readonly List<Item> _held = [];
    private readonly List<Action> _onDeath = [];

    public string Name => name;

    public bool IsDead { get; private set; }

    public bool IsPaused { get; private set; }

    public override void Post(SendOrPostCallback d, object? state)
    {
        if (IsDead || scheduler.IsOver) return; // Also the finalizer of what a dead process owned ends up here.
        if (!scheduler.IsOwnThread)
        {
            scheduler.Escaped();
            return;
        }
        var item = new Item(this, d, state);
        if (IsPaused) _held.Add(item);
        else scheduler.Ready(item);
    }

    public override void Send(SendOrPostCallback d, object? state) =>
        throw new InvalidOperationException("nothing waits for another thread here");

    public override SynchronizationContext CreateCopy() => this;

    public void Do(Action action) => Post(static state => ((Action)state!)(), action);

    public void Kill()
    {
        if (IsDead) return;
        IsDead = true;
        _held.Clear();
        scheduler.Drop(this);
        foreach (var action in _onDeath) action();
    }

    /// <summary>Runs <paramref name="action"/> when this life ends, or at once if it has.</summary>
    public void OnDeath(Action action)
    {
        if (IsDead) action();
        else _onDeath.Add(action);
    }

    public void Pause()
    {
        if (IsDead || IsPaused) return;
        IsPaused = true;
        _held.AddRange(scheduler.Drop(this));
    }

    public void Resume()
    {
        if (!IsPaused) return;
        IsPaused = false;
        foreach (var item in _held) scheduler.Ready(item);
        _held.Clear();
    }
}

/// <summary>One continuation that is ready to run.</summary>
internal readonly record struct Item(Life Life, SendOrPostCallback Callback, object? State);
