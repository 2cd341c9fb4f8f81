namespace MountLedger.Simulation;

/// <summary>The clock of one process: timers end with it, and its wall clock is its machine's, which jumps.</summary>
internal sealed class SimTime(Scheduler scheduler, Life life, Func<TimeSpan> clockOffset) : TimeProvider
{
    public static readonly DateTimeOffset Epoch = new(2030, 1, 1, 0, 0, 0, TimeSpan.Zero);

    public override long TimestampFrequency => TimeSpan.TicksPerSecond;

    public override TimeZoneInfo LocalTimeZone => TimeZoneInfo.Utc;

    public override DateTimeOffset GetUtcNow() => Epoch + scheduler.Now + clockOffset();

    public override long GetTimestamp() => scheduler.Now.Ticks;

    public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period) =>
        new SimTimer(scheduler, life, callback, state, dueTime, period);
}

/// <summary>A timer that fires as a continuation of its life.</summary>
internal sealed class SimTimer : ITimer
{
    private readonly Scheduler _scheduler;
    private readonly Life _life;
    private readonly TimerCallback _callback;
    private readonly object? _state;
    private TimeSpan _period;
    private long _expected;

    public SimTimer(Scheduler scheduler, Life life, TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
    {
        (_scheduler, _life, _callback, _state) = (scheduler, life, callback, state);
        Change(dueTime, period);
    }

    /// <summary>Which of its arrivals is the one that counts: an earlier one was changed or disposed.</summary>
    public long Number { get; set; }

    public bool Change(TimeSpan dueTime, TimeSpan period)
    {
        _period = period;
        _expected = 0;
        if (dueTime == Timeout.InfiniteTimeSpan) return true;
        _scheduler.At(this, (_scheduler.Now + dueTime).Ticks);
        _expected = Number;
        return true;
    }

    public void Fire(long number)
    {
        if (number != _expected || _life.IsDead) return;
        if (_period > TimeSpan.Zero)
        {
            _scheduler.At(this, (_scheduler.Now + _period).Ticks);
            _expected = Number;
        }
        else
        {
            _expected = 0;
        }
        _life.Post(static timer => ((SimTimer)timer!).Run(), this);
    }

    public void Dispose()
    {
        _expected = 0;
        IsDisposed = true;
    }

    public ValueTask DisposeAsync()
    {
        Dispose();
        return ValueTask.CompletedTask;
    }

    private bool IsDisposed { get; set; }

    private void Run()
    {
        if (!IsDisposed) _callback(_state);
    }
}
