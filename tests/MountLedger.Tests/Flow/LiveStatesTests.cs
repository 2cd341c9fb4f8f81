namespace MountLedger.Tests.Flow;

/// <summary>The newest states, and who waits for them.</summary>
public sealed class LiveStatesTests
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    private readonly LiveStates _live = new();

    [Fact]
    public void An_older_state_never_replaces_a_newer_one()
    {
        _live.Publish(Present("/a", 3));
        _live.Publish(Present("/a", 2));
        _live.Publish(Absent("/a", 1));

        Assert.Equal(3, VersionOf("/a"));
        Assert.Equal((1, 0, 0), _live.Count());
    }

    [Fact]
    public void A_mount_is_known_by_its_id_from_the_record_of_its_start_until_it_is_gone()
    {
        var making = Present("/a", 3) with { Operation = new Operation(OperationKind.Mount, 3, 1, null, "boot", 1, MountId: 77, UnmountMode.Normal, []) };
        _live.Publish(making);
        Assert.Equal("/a", _live.MountpointOf(77));

        _live.Publish(Absent("/a", 4));
        Assert.Null(_live.MountpointOf(77));
    }

    [Fact]
    public void An_older_state_settles_nobody()
    {
        _live.Publish(Present("/a", 3));
        var waiting = _live.WaitAsync("/a", state => state.Version == 2, default);

        _live.Publish(Present("/a", 2));

        Assert.False(waiting.IsCompleted);
    }

    [Fact]
    public async Task What_is_known_already_is_not_waited_for()
    {
        _live.Publish(Present("/a", 3));

        Assert.Equal(3, (await _live.WaitAsync("/a", state => state.Version >= 3, default)).Version);
        Assert.Equal(0, _live.Count().Waiters);
    }

    [Fact]
    public async Task A_waiter_is_told_of_the_first_state_that_fits()
    {
        var waiting = _live.WaitAsync("/a", state => state.Version > 1, default);
        var other = _live.WaitAsync("/a", state => state.Version > 2, default);

        _live.Publish(Present("/a", 1));
        Assert.False(waiting.IsCompleted);
        _live.Publish(Absent("/a", 2));
        Assert.Equal(2, (await waiting.WaitAsync(Patience)).Version);
        Assert.False(other.IsCompleted);
        _live.Publish(Absent("/a", 3));
        Assert.Equal(3, (await other.WaitAsync(Patience)).Version);

        Assert.Equal(0, _live.Count().Waiters);
    }

    [Fact]
    public async Task A_waiter_that_gives_up_leaves_nothing()
    {
        using var cancel = new CancellationTokenSource();
        var waiting = _live.WaitAsync("/a", _ => false, cancel.Token);
        Assert.Equal(1, _live.Count().Waiters);

        await cancel.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => waiting.WaitAsync(Patience));
        Assert.Equal(0, _live.Count().Waiters);
    }

    [Fact]
    public async Task Ten_thousand_waiters_are_told_at_once()
    {
        // Not on xunit's own thread: each of them would then go on on a new thread, ten thousand in all.
        var waiters = await Task.Run(() =>
            Enumerable.Range(0, 10_000).Select(_ => _live.WaitAsync("/a", state => state.Version == 2, default)).ToArray());

        _live.Publish(Present("/a", 1));
        _live.Publish(Present("/a", 2));

        await Task.WhenAll(waiters).WaitAsync(Patience);
        Assert.Equal(0, _live.Count().Waiters);
    }

    [Fact]
    public void Absent_mountpoints_are_forgotten_oldest_first()
    {
        for (var i = 0; i < LiveStates.AbsentKeptMax + 100; i++) _live.Publish(Absent($"/{i}", 1));

        Assert.Equal((0, LiveStates.AbsentKeptMax, 0), _live.Count());
        Assert.False(_live.TryGet("/99", out _));
        Assert.True(_live.TryGet("/100", out _));
    }

    [Fact]
    public void Present_mountpoints_are_never_forgotten()
    {
        _live.Publish(Absent("/a", 1));
        _live.Publish(Present("/a", 2));
        for (var i = 0; i < LiveStates.AbsentKeptMax + 100; i++) _live.Publish(Absent($"/{i}", 1));

        Assert.Equal(2, VersionOf("/a"));
    }

    [Fact]
    public void A_mountpoint_that_comes_and_goes_does_not_push_itself_out()
    {
        for (var version = 1; version < 3 * LiveStates.AbsentKeptMax; version += 2)
        {
            _live.Publish(Present("/a", version));
            _live.Publish(Absent("/a", version + 1));
            Assert.Equal(version + 1, VersionOf("/a"));
        }
    }

    [Fact]
    public void An_absent_mountpoint_with_drift_is_present()
    {
        _live.Publish(Absent("/a", 1).Evolve(new MountEvent.DriftDetected(DriftKind.Foreign, null), 2, default, "root"));

        Assert.Equal(["/a"], _live.Present().Select(state => state.Mountpoint));
    }

    [Fact]
    public void A_state_that_turned_out_to_be_old_is_read_again()
    {
        _live.Publish(Present("/a", 3));
        _live.Publish(Absent("/b", 3));
        _live.Invalidate("/a");
        _live.Invalidate("/b");
        _live.Invalidate("/never-heard-of");

        Assert.False(_live.TryGet("/a", out _));
        Assert.False(_live.TryGet("/b", out _));

        _live.Publish(Present("/a", 2)); // Read before it became old.
        Assert.False(_live.TryGet("/a", out _));
        _live.Publish(Present("/a", 3));
        Assert.Equal(3, VersionOf("/a"));
    }

    [Fact]
    public void A_state_that_turned_out_to_be_old_still_counts_for_its_relatives()
    {
        _live.Publish(Present("/a", 3));
        _live.Publish(Present("/a/b", 3));
        _live.Invalidate("/a");
        _live.Invalidate("/a/b");

        Assert.Equal(["/a/b"], _live.DescendantsOf("/a").Select(state => state.Mountpoint));
        Assert.Equal(["/a"], _live.AncestorsOf("/a/b").Select(state => state.Mountpoint));
        Assert.Equal((2, 0, 0), _live.Count());

        _live.Publish(Absent("/a/b", 4));
        Assert.Empty(_live.DescendantsOf("/a"));
        Assert.Equal(4, VersionOf("/a/b"));
    }

    [Fact]
    public void Relatives_are_told_from_names_that_begin_alike()
    {
        foreach (var path in new[] { "/a", "/a-b", "/a/b", "/ab", "/a/b/c", "/a/b-c", "/a0", "/a.b/c", "/a/0", "/A/b" })
            _live.Publish(Present(path, 1));
        _live.Publish(Absent("/a/gone", 1));

        Assert.Equal(["/a/0", "/a/b", "/a/b-c", "/a/b/c"], Paths(_live.DescendantsOf("/a")));
        Assert.Equal(["/a/b/c"], Paths(_live.DescendantsOf("/a/b")));
        Assert.Equal(["/a.b/c"], Paths(_live.DescendantsOf("/a.b")));
        Assert.Empty(_live.DescendantsOf("/a/b/c"));
        Assert.Equal(["/a/b", "/a"], Paths(_live.AncestorsOf("/a/b/c")));
        Assert.Equal(["/a/b", "/a"], Paths(_live.AncestorsOf("/a/b/never-heard-of")));
        Assert.Empty(_live.AncestorsOf("/ab"));
    }

    [Fact]
    public void Parents_come_before_their_children()
    {
        foreach (var path in new[] { "/a/b/c", "/a-b", "/a/b", "/a" }) _live.Publish(Present(path, 1));

        Assert.Equal(["/a", "/a-b", "/a/b", "/a/b/c"], Paths(_live.Present()));
    }

    private static IEnumerable<string> Paths(IReadOnlyList<MountState> states) => states.Select(state => state.Mountpoint);

    private static MountState Absent(string path, long version) => MountState.Initial(new StreamKey("host-1", path)) with { Version = version };

    private static MountState Present(string path, long version) =>
        Absent(path, version) with { Kernel = new KernelMount("boot-1", 1, 7, new MountSpec("tmpfs", "tmpfs", []), Adopted: false) };

    private long? VersionOf(string path) => _live.TryGet(path, out var state) ? state.Version : null;
}
