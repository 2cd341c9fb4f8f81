namespace MountLedger.Postgres.Tests;

/// <summary>Who serves a host: the epoch only grows, and another machine waits for the lease to end.</summary>
public sealed class LeaseTests(PostgresServer server) : LedgerTest(server)
{
    private static readonly TimeSpan Minute = TimeSpan.FromMinutes(1);

    private HostLease Lease => new(Database);

    [PostgresTheory]
    [InlineData(0, 1)]
    [InlineData(41, 42)]
    public async Task The_first_epoch_is_one_more_than_the_local_one(long local, long epoch) =>
        Assert.Equal(epoch, Assert.IsType<LeaseResult.Taken>(await Lease.TakeAsync(Host, "a1", "m1", "b1", local, Minute, default)).Epoch);

    [PostgresFact]
    public async Task The_same_machine_takes_over_at_once_with_a_new_epoch()
    {
        await Lease.TakeAsync(Host, "a1", "m1", "b1", 0, Minute, default);

        var taken = Assert.IsType<LeaseResult.Taken>(await Lease.TakeAsync(Host, "a2", "m1", "b2", 0, Minute, default));

        Assert.Equal(2, taken.Epoch);
        Assert.False(await Lease.RenewAsync(Host, 1, "a1", Minute, default));
        Assert.True(await Lease.RenewAsync(Host, 2, "a2", Minute, default));
    }

    [PostgresFact]
    public async Task Another_machine_is_refused_until_the_lease_expires()
    {
        await Lease.TakeAsync(Host, "a1", "m1", "b1", 0, Minute, default);

        var held = Assert.IsType<LeaseResult.HeldBy>(await Lease.TakeAsync(Host, "a2", "m2", "b2", 7, Minute, default));
        Assert.Equal(("a1", "m1", "b1", 1L), (held.Agent, held.MachineId, held.BootId, held.Epoch));

        Assert.True(await Lease.RenewAsync(Host, 1, "a1", TimeSpan.FromMilliseconds(1), default));
        await Task.Delay(10);
        Assert.Equal(8, Assert.IsType<LeaseResult.Taken>(await Lease.TakeAsync(Host, "a2", "m2", "b2", 7, Minute, default)).Epoch);
        Assert.False(await Lease.RenewAsync(Host, 1, "a1", Minute, default));
    }

    [PostgresFact]
    public async Task A_renewed_lease_holds_longer_and_a_released_one_not_at_all()
    {
        await Lease.TakeAsync(Host, "a1", "m1", "b1", 0, TimeSpan.FromMilliseconds(1), default);
        await Task.Delay(10);
        Assert.True(await Lease.RenewAsync(Host, 1, "a1", Minute, default));
        Assert.IsType<LeaseResult.HeldBy>(await Lease.TakeAsync(Host, "a2", "m2", "b2", 0, Minute, default));

        Assert.True(await Lease.ReleaseAsync(Host, 1, "a1", default));

        Assert.IsType<LeaseResult.Taken>(await Lease.TakeAsync(Host, "a2", "m2", "b2", 0, Minute, default));
    }

    [PostgresFact]
    public async Task Two_machines_at_once_and_one_gets_it()
    {
        var results = await Task.WhenAll(Enumerable.Range(0, 8).Select(i => Task.Run(async () =>
            await Lease.TakeAsync(Host, $"a{i}", $"m{i}", "b", 0, Minute, default))));

        Assert.Single(results.OfType<LeaseResult.Taken>());
    }

    [PostgresFact]
    public async Task A_lease_changes_nothing_that_is_folded()
    {
        await AppendHostAsync(new HostEvent.HostDown("x"));
        var before = await Store.LoadHostStateAsync(Host, default);

        await Lease.TakeAsync(Host, "a1", "m1", "b1", 0, Minute, default);

        Assert.Equal(before, await Store.LoadHostStateAsync(Host, default));
    }
}
