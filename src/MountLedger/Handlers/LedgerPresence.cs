namespace MountLedger;

/// <summary>
/// Whether the ledger answers, as far as is known at this moment: whoever watches it says so, and whoever waits for it learns of it at once.
/// </summary>
public sealed class LedgerPresence
{
    private readonly Lock _lock = new();
    private readonly Gate _reading = new();
    private readonly Gate _writing = new();
    private long _answeredTicks;

    /// <summary>Why it does not answer; null while it does, and while nobody watches.</summary>
    public string? Away => _reading.Why;

    /// <summary>Why nothing can be recorded: it is away, or answers and takes no records (a full disk, read-only). Null as far as is known.</summary>
    public string? Unwritable => _writing.Why;

    /// <summary>When it answered last; null: never yet.</summary>
    public DateTimeOffset? AnsweredAt =>
        Interlocked.Read(ref _answeredTicks) is > 0 and var ticks ? new DateTimeOffset(ticks, TimeSpan.Zero) : null;

    /// <summary>It has answered. <paramref name="unwritable"/>: it takes no records, for this reason.</summary>
    public void Answers(DateTimeOffset at, string? unwritable)
    {
        Interlocked.Exchange(ref _answeredTicks, at.UtcTicks);
        lock (_lock)
        {
            _reading.Set(null);
            _writing.Set(unwritable);
        }
    }

    /// <summary>It does not answer.</summary>
    public void Gone(string why)
    {
        lock (_lock)
        {
            _reading.Set(why);
            _writing.Set(why);
        }
    }

    /// <summary>What a question comes to, or <see cref="LedgerUnavailableException"/> as soon as the ledger is known to be away.</summary>
    /// <exception cref="LedgerUnavailableException">The ledger is away.</exception>
    public Task<T> AskAsync<T>(Func<Task<T>> question) => WhileAsync(_reading, question, "");

    /// <summary>
    /// What a command comes to, or <see cref="LedgerUnavailableException"/> as soon as nothing can be recorded any more: the command then goes on by itself to
    /// whatever end it comes, which a repeat finds out.
    /// </summary>
    /// <exception cref="LedgerUnavailableException">The ledger is away, or takes no records.</exception>
    public Task<T> RecordAsync<T>(Func<Task<T>> command) =>
        WhileAsync(_writing, command, "; whether this was recorded is not known, and it may be asked again");

    private async Task<T> WhileAsync<T>(Gate gate, Func<Task<T>> work, string unknown)
    {
        if (gate.Why is { } already) throw new LedgerUnavailableException(already);
        // Not on this thread: an append may hold its own for as long as it takes, and this one has to answer before.
        var task = Task.Run(work);
        Task closed;
        lock (_lock) closed = gate.Closed.Task;
        if (await Task.WhenAny(task, closed) != task)
        {
            _ = task.ContinueWith(static left => _ = left.Exception, CancellationToken.None, TaskContinuationOptions.OnlyOnFaulted, TaskScheduler.Default);
            throw new LedgerUnavailableException($"{gate.Why ?? "the ledger went away for a moment"}{unknown}");
        }
        return await task;
    }

    /// <summary>Open, or closed for a reason.</summary>
    private sealed class Gate
    {
        private volatile string? _why;

        public string? Why => _why;

        /// <summary>Completes when it closes; another one when it is open again.</summary>
        public TaskCompletionSource Closed { get; private set; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public void Set(string? why)
        {
            if (_why is not null && why is null) Closed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            _why = why;
            if (why is not null) Closed.TrySetResult();
        }
    }
}
