namespace MountLedger;

/// <summary>
/// Whether the ledger answers, as far as is known at this moment: whoever watches it says so, and whoever waits for it learns of it at once.
/// </summary>
public sealed class LedgerPresence
{
    private readonly Lock _lock = new();
    private TaskCompletionSource _away = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private volatile string? _why;
    private volatile string? _unwritable;
    private long _answeredTicks;

    /// <summary>Why it does not answer; null while it does, and while nobody watches.</summary>
    public string? Away => _why;

    /// <summary>Why nothing can be recorded although it answers (a full disk, read-only); null as far as is known.</summary>
    public string? Unwritable => _unwritable;

    /// <summary>When it answered last; null: never yet.</summary>
    public DateTimeOffset? AnsweredAt =>
        Interlocked.Read(ref _answeredTicks) is > 0 and var ticks ? new DateTimeOffset(ticks, TimeSpan.Zero) : null;

    /// <summary>Completes when it goes away; is completed while it is away.</summary>
    public Task WhenAway
    {
        get
        {
            lock (_lock) return _away.Task;
        }
    }

    /// <summary>It has answered. <paramref name="unwritable"/>: it takes no records, for this reason.</summary>
    public void Answers(DateTimeOffset at, string? unwritable)
    {
        Interlocked.Exchange(ref _answeredTicks, at.UtcTicks);
        _unwritable = unwritable;
        lock (_lock)
        {
            if (_why is null) return;
            _why = null;
            _away = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        }
    }

    /// <summary>It does not answer.</summary>
    public void Gone(string why)
    {
        lock (_lock)
        {
            _why = why;
            _away.TrySetResult();
        }
    }

    /// <summary>
    /// What <paramref name="work"/> comes to, or <see cref="LedgerUnavailableException"/> as soon as the ledger is known to be away: the work then goes on by
    /// itself to whatever end it comes, which a repeat finds out.
    /// </summary>
    /// <exception cref="LedgerUnavailableException">The ledger is away.</exception>
    public async Task<T> WhilePresentAsync<T>(Func<Task<T>> work)
    {
        if (_why is { } already) throw new LedgerUnavailableException(already);
        // Not on this thread: an append may hold its own for as long as it takes, and this one has to answer before.
        var task = Task.Run(work);
        if (!task.IsCompleted && await Task.WhenAny(task, WhenAway) != task)
        {
            _ = task.ContinueWith(static left => _ = left.Exception, CancellationToken.None, TaskContinuationOptions.OnlyOnFaulted, TaskScheduler.Default);
            throw new LedgerUnavailableException($"{_why ?? "the ledger went away"}; whether this was recorded is not known, and it may be asked again");
        }
        return await task;
    }
}
