namespace MountLedger.Tests.Flow;

/// <summary>Rule 14: no two operations on a path and its ancestor or descendant at once, and nobody waits for nothing.</summary>
public sealed class PathGateTests
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    private readonly PathGate _gate = new();

    [Theory]
    [InlineData("/a/b", "/a/b")]
    [InlineData("/a/b", "/a")]
    [InlineData("/a", "/a/b")]
    [InlineData("/a", "/a/b/c/d")]
    [InlineData("/a/b/c/d", "/a")]
    public async Task Self_ancestor_and_descendant_wait(string held, string wanted)
    {
        var pass = await _gate.EnterAsync(held, default);

        Assert.Null(_gate.TryEnter(wanted));
        var waiting = _gate.EnterAsync(wanted, default);
        Assert.False(waiting.IsCompleted);

        pass.Dispose();
        using (var entered = await waiting.WaitAsync(Patience)) Assert.Equal(wanted, entered.Path);
        Assert.Equal(0, _gate.Count);
    }

    [Theory]
    [InlineData("/a/b", "/a/c")]
    [InlineData("/a", "/ab")]
    [InlineData("/a", "/a-b")]
    [InlineData("/a/b", "/a/b-c")]
    [InlineData("/a/b/c", "/a/d")]
    public void Others_go_on_at_the_same_time(string held, string wanted)
    {
        using var pass = _gate.TryEnter(held);
        using var other = _gate.TryEnter(wanted);

        Assert.NotNull(other);
    }

    [Fact]
    public void A_pass_given_back_twice_is_given_back_once()
    {
        var first = _gate.TryEnter("/a")!;
        first.Dispose();
        using var second = _gate.TryEnter("/a");
        first.Dispose();

        Assert.Null(_gate.TryEnter("/a"));
    }

    [Fact]
    public async Task Waiters_for_one_path_follow_in_order_of_arrival() => await FollowInOrderAsync([.. Enumerable.Repeat("/a", 50)]);

    [Fact]
    public async Task Waiters_for_a_path_and_its_parent_follow_in_order_of_arrival() =>
        await FollowInOrderAsync(["/a/b", "/a", "/a/b/c", "/a", "/a/b", "/a/b", "/a"]);

    [Fact]
    public async Task A_wait_that_is_given_up_leaves_nothing()
    {
        var pass = _gate.TryEnter("/a")!;
        using var cancel = new CancellationTokenSource();
        var waiters = new[] { "/a", "/a/b", "/a", "/a/b/c" }.Select(path => _gate.EnterAsync(path, cancel.Token)).ToArray();

        await cancel.CancelAsync();
        foreach (var waiter in waiters) await Assert.ThrowsAnyAsync<OperationCanceledException>(() => waiter.WaitAsync(Patience));

        Assert.Equal(1, _gate.Count); // Only what is held, although it is held still.
        pass.Dispose();
        Assert.Equal(0, _gate.Count);
    }

    [Fact]
    public async Task A_wait_that_was_given_up_before_it_began_leaves_nothing()
    {
        using var pass = _gate.TryEnter("/a");

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => _gate.EnterAsync("/a", new CancellationToken(true)));
    }

    [Fact]
    public async Task Who_waits_behind_one_that_gave_up_is_let_in()
    {
        var pass = _gate.TryEnter("/a")!;
        using var cancel = new CancellationTokenSource();
        var gaveUp = _gate.EnterAsync("/a", cancel.Token);
        var next = _gate.EnterAsync("/a", default);

        await cancel.CancelAsync();
        pass.Dispose();

        (await next.WaitAsync(Patience)).Dispose();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => gaveUp.WaitAsync(Patience));
        Assert.Equal(0, _gate.Count);
    }

    [Fact]
    public async Task Thousands_that_gave_up_take_no_memory_while_a_path_hangs()
    {
        using var hung = _gate.TryEnter("/a");
        for (var i = 0; i < 5_000; i++)
        {
            using var cancel = new CancellationTokenSource();
            var waiting = _gate.EnterAsync("/a", cancel.Token);
            await cancel.CancelAsync();
            Assert.True(waiting.IsCanceled || (await Task.WhenAny(waiting)).IsCanceled);
        }

        Assert.Equal(1, _gate.Count);
    }

    [Fact]
    public async Task A_hung_path_holds_up_its_parent_but_not_its_siblings()
    {
        var parent = _gate.TryEnter("/a")!;
        var hung = _gate.EnterAsync("/a/hung", default);
        var parentAgain = _gate.EnterAsync("/a", default);
        var sibling = _gate.EnterAsync("/a/other", default);

        parent.Dispose();

        using var stays = await hung.WaitAsync(Patience);
        (await sibling.WaitAsync(Patience)).Dispose();
        Assert.False(parentAgain.IsCompleted);
        using var late = _gate.TryEnter("/a/late");
        Assert.NotNull(late);
    }

    [Fact]
    public async Task Children_that_keep_arriving_do_not_keep_their_parent_out_for_ever()
    {
        // There is always one below: each enters before the one before it leaves.
        var last = _gate.TryEnter("/a/0")!;
        var parent = _gate.EnterAsync("/a", default);
        Task<PathGate.Pass>? heldBack = null;
        var overtakes = 0;
        for (; overtakes < 10 * PathGate.OvertakesMax && heldBack is null; overtakes++)
        {
            var entering = _gate.EnterAsync($"/a/{overtakes + 1}", default);
            if (!entering.IsCompleted) heldBack = entering;
            last.Dispose();
            if (heldBack is null) last = await entering;
        }

        Assert.Equal(PathGate.OvertakesMax + 1, overtakes);
        (await parent.WaitAsync(Patience)).Dispose();
        (await heldBack!.WaitAsync(Patience)).Dispose();
        Assert.Equal(0, _gate.Count);
    }

    [Fact]
    public async Task Children_held_back_for_a_parent_that_gives_up_go_on_at_once()
    {
        using var hung = _gate.TryEnter("/a/hung");
        using var cancel = new CancellationTokenSource();
        var parent = _gate.EnterAsync("/a", cancel.Token);
        var heldBack = await UntilHeldBackAsync("/a/x");

        await cancel.CancelAsync();

        // Not when the moment is over for which they would be held back otherwise.
        using (var late = _gate.TryEnter("/a/y")) Assert.NotNull(late);
        (await heldBack.WaitAsync(Patience)).Dispose();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => parent);
    }

    [Fact]
    public async Task Children_are_held_back_for_a_moment_only_when_what_the_parent_waits_for_hangs()
    {
        var hung = _gate.TryEnter("/a/hung")!;
        var parent = _gate.EnterAsync("/a", default);
        var heldBack = await UntilHeldBackAsync("/a/x");

        (await heldBack.WaitAsync(Patience)).Dispose();

        // The next time it takes ten times as many: what hangs for long costs the others less and less.
        for (var i = 1; i < 10 * PathGate.OvertakesMax - 1; i++)
        {
            var entering = _gate.EnterAsync("/a/x", default);
            Assert.True(entering.IsCompletedSuccessfully, $"held back again after {i}");
            (await entering).Dispose();
        }
        hung.Dispose();
        (await parent.WaitAsync(Patience)).Dispose();
    }

    private async Task<Task<PathGate.Pass>> UntilHeldBackAsync(string path)
    {
        for (var i = 0; i <= PathGate.OvertakesMax; i++)
        {
            var entering = _gate.EnterAsync(path, default);
            if (!entering.IsCompleted) return entering;
            (await entering).Dispose();
        }
        throw new Xunit.Sdk.XunitException("nobody is ever held back");
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public async Task Whatever_the_order_nobody_meets_a_relative_and_everybody_gets_in(int seed)
    {
#pragma warning disable CA5394 // Reproducible is what it has to be.
        string[] paths = ["/a", "/a/b", "/a/b/c", "/a/b/d", "/a/e", "/a/e/f/g", "/ab", "/h", "/h/i", "/h/j/k"];
        var inside = paths.ToDictionary(path => path, _ => 0);
        var sync = new Lock();
        var (entered, gaveUp) = (0, 0);

        await Task.WhenAll(Enumerable.Range(0, 64).Select(worker => Task.Run(() => WorkAsync(new Random((seed * 1000) + worker)))))
            .WaitAsync(TimeSpan.FromSeconds(60));

        Assert.Equal(64 * 200, entered + gaveUp);
        Assert.True(entered > 64 * 100, $"{entered} entered, {gaveUp} gave up");
        Assert.Equal(0, _gate.Count);

        async Task WorkAsync(Random random)
        {
            for (var i = 0; i < 200; i++)
            {
                var path = paths[random.Next(paths.Length)];
                using var cancel = new CancellationTokenSource();
                var entering = _gate.EnterAsync(path, cancel.Token);
                if (random.Next(8) == 0) await cancel.CancelAsync();
                try
                {
                    using var pass = await entering;
                    Interlocked.Increment(ref entered);
                    Enter(path);
                    if (random.Next(3) == 0) await Task.Yield();
                    lock (sync) inside[path]--;
                }
                catch (OperationCanceledException)
                {
                    Interlocked.Increment(ref gaveUp);
                }
            }
        }

        void Enter(string path)
        {
            lock (sync)
            {
                inside[path]++;
                var met = inside.Where(other => other.Value > 0 && Related(path, other.Key)).Sum(other => other.Value);
                Assert.Equal(1, met);
            }
        }
#pragma warning restore CA5394
    }

    private static bool Related(string one, string other) =>
        one == other || MountPath.IsBelow(one, other) || MountPath.IsBelow(other, one);

    private async Task FollowInOrderAsync(string[] paths)
    {
        var order = new List<int>();
        var first = _gate.TryEnter("/a")!;
        var waiters = paths.Select((path, number) => EnterAsync(_gate.EnterAsync(path, default), number)).ToArray();

        first.Dispose();
        await Task.WhenAll(waiters).WaitAsync(Patience);

        Assert.Equal(Enumerable.Range(0, paths.Length), order);
        Assert.Equal(0, _gate.Count);

        async Task EnterAsync(Task<PathGate.Pass> entering, int number)
        {
            using (await entering)
            {
                lock (order) order.Add(number);
                await Task.Yield();
            }
        }
    }
}
