namespace MountLedger;

/// <summary>One mutual exclusion per key, in order of arrival; a key that nobody uses takes no memory.</summary>
public sealed class KeyedLock
{
    private readonly Lock _lock = new();
    private readonly Dictionary<string, Entry> _entries = new(StringComparer.Ordinal);

    public async Task<IDisposable> EnterAsync(string key)
    {
        Entry entry;
        lock (_lock)
        {
            if (!_entries.TryGetValue(key, out entry!)) _entries.Add(key, entry = new Entry(this, key));
            entry.Users++;
        }
        await entry.Semaphore.WaitAsync();
        return entry;
    }

    private sealed class Entry(KeyedLock owner, string key) : IDisposable
    {
        public int Users;
        public readonly SemaphoreSlim Semaphore = new(1, 1);

        public void Dispose()
        {
            lock (owner._lock)
            {
                if (--Users == 0) owner._entries.Remove(key);
            }
            Semaphore.Release();
        }
    }
}
