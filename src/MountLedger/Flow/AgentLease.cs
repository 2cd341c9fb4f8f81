namespace MountLedger;

/// <summary>
/// How long this agent may act on the kernel: its lease is sure to be its own for <paramref name="ttl"/> after it <em>asked</em> for it, by a
/// clock that nobody sets. A process that was stopped in the meantime finds the time gone, also when nobody has told it so.
/// </summary>
/// <param name="time">Its timestamps must go on while the process is stopped.</param>
/// <param name="ttl">What the ledger gives the lease for.</param>
/// <param name="renew">Prolongs the lease in the ledger; false when it is lost.</param>
public sealed class AgentLease(TimeProvider time, TimeSpan ttl, Func<Task<bool>> renew)
{
    private readonly Lock _lock = new();
    private long? _askedAt;

    /// <summary>No other agent can have been given the host meanwhile.</summary>
    public bool IsValid
    {
        get
        {
            lock (_lock) return _askedAt is { } asked && time.GetElapsedTime(asked) < ttl;
        }
    }

    /// <summary>The ledger has given the lease; <paramref name="askedAt"/>: the timestamp from before it was asked for.</summary>
    public void Taken(long askedAt)
    {
        lock (_lock)
        {
            if (_askedAt is null || askedAt > _askedAt) _askedAt = askedAt;
        }
    }

    /// <returns>False: it is lost, and another agent serves the host.</returns>
    /// <exception cref="LedgerUnavailableException">Nobody can say; what is left of it is left.</exception>
    public async Task<bool> RenewAsync()
    {
        var asked = time.GetTimestamp();
        if (!await renew()) return false;
        Taken(asked);
        return true;
    }
}
