namespace MountLedger.Tests.Flow;

/// <summary>One at a time for each key, in order of arrival.</summary>
public sealed class KeyedLockTests
{
    private readonly KeyedLock _locks = new();

    [Fact]
    public async Task The_same_key_waits_until_it_is_left()
    {
        var first = await _locks.EnterAsync("/a");
        var second = _locks.EnterAsync("/a");

        Assert.False(second.IsCompleted);
        first.Dispose();
        (await second.WaitAsync(TimeSpan.FromSeconds(10))).Dispose();
    }

    [Fact]
    public async Task Other_keys_do_not_wait()
    {
        using var first = await _locks.EnterAsync("/a");

        Assert.True(_locks.EnterAsync("/a/b").IsCompletedSuccessfully);
        Assert.True(_locks.EnterAsync("/A").IsCompletedSuccessfully);
    }

    [Fact]
    public async Task Waiters_follow_in_order_of_arrival()
    {
        var order = new List<int>();
        var first = await _locks.EnterAsync("/a");
        var waiters = Enumerable.Range(0, 50).Select(number => EnterAsync(_locks.EnterAsync("/a"), number)).ToArray();

        first.Dispose();
        await Task.WhenAll(waiters).WaitAsync(TimeSpan.FromSeconds(10));

        Assert.Equal(Enumerable.Range(0, 50), order);

        async Task EnterAsync(Task<IDisposable> entering, int number)
        {
            using (await entering) order.Add(number);
        }
    }

    [Fact]
    public async Task Nobody_is_ever_in_together()
    {
        var inside = new int[5];
        await Task.WhenAll(Enumerable.Range(0, 500).Select(number => Task.Run(async () =>
        {
            var key = number % inside.Length;
            using (await _locks.EnterAsync($"/{key}"))
            {
                Assert.Equal(1, Interlocked.Increment(ref inside[key]));
                await Task.Yield();
                Interlocked.Decrement(ref inside[key]);
            }
        }))).WaitAsync(TimeSpan.FromSeconds(30));
    }
}
