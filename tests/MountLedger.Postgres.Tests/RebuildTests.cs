namespace MountLedger.Postgres.Tests;

/// <summary>Projections come out of the events exactly as the appends left them.</summary>
public sealed class RebuildTests(PostgresServer server) : LedgerTest(server)
{
    private const int Appends = 1_500;

    [PostgresFact]
    public async Task A_rebuild_after_thousands_of_random_events_changes_no_row()
    {
        var seed = Environment.TickCount;
        var random = new Random(seed);
        var lease = new HostLease(Database);
        await lease.TakeAsync(Host, "a1", "m1", "b1", 0, TimeSpan.FromMinutes(5), default);
        for (var i = 0; i < Appends; i++)
        {
            if (i % 100 == 0) await AppendHostAsync(RandomHostEvent(random, i));
            var stream = new StreamKey(random.Next(4) == 0 ? "h2" : Host, $"/srv/{random.Next(40)}");
            var state = await Store.LoadAsync(stream, default);
            var origin = Caller with { Actor = $"actor-{random.Next(3)}", CorrelationId = $"c{i}" };
            var events = new List<LedgerEvent>();
            // What confirms everybody ends a batch, as it does in the domain: nobody joins in the same breath.
            for (var count = random.Next(1, 4); count > 0 && !events.Any(change => change is MountEvent.Mounted or MountEvent.MountAdopted); count--)
                events.Add(RandomEvent(random, state.Generation));
            Assert.IsType<AppendResult.Appended>(await Store.AppendAsync(Batch(state, events, origin), default));
        }
        var before = await EverythingAsync();

        var result = await new ProjectionRebuild(Database).RunAsync(null, default);

        var after = await EverythingAsync();
        Assert.True(before.SequenceEqual(after), $"seed {seed}: {before.Except(after).FirstOrDefault()} became {after.Except(before).FirstOrDefault()}");
        Assert.Equal((2, await ScalarAsync<long>("select count(*) from mountledger.mt_events")), (result.Hosts, result.Events));
        Assert.True(result.Events > 2_000);
    }

    [PostgresFact]
    public async Task A_rebuild_restores_what_was_damaged_and_removes_what_no_event_made()
    {
        await AppendAsync(Stream, FirstAttach());
        await AppendHostAsync(new HostEvent.HostDown("x"));
        var before = await EverythingAsync();
        await ExecuteAsync(
            """
            update mountledger.mountpoint set state = '{}', phase = 'mounted';
            update mountledger.host set up = true, down_by = 'mallory';
            delete from mountledger.attachment;
            insert into mountledger.mountpoint (host, mountpoint, version, phase, action, generation, options, state, head_hash, updated_at)
            values ('h1.example', '/srv/ghost', 1, 'mounted', 'none', 1, '{}', '{}', '', now())
            """);

        await new ProjectionRebuild(Database).RunAsync(Host, default);

        Assert.Equal(before, await EverythingAsync());
    }

    private static HostEvent RandomHostEvent(Random random, int i) => random.Next(4) switch
    {
        0 => new HostEvent.HostUp(null),
        1 => new HostEvent.HostDown($"reason {i}"),
        2 => new HostEvent.AgentStarted(i, $"a{i}", "m1", "b1", "6.18", "0.1.0"),
        _ => new HostEvent.ConsumersSynced(DateTimeOffset.UnixEpoch, 1, 2),
    };

    private static LedgerEvent RandomEvent(Random random, long generation)
    {
        var consumer = $"vm-{random.Next(4)}";
        DateTimeOffset? retryAt = random.Next(2) == 0 ? null : DateTimeOffset.UnixEpoch.AddTicks(random.NextInt64(1L << 60));
        return random.Next(16) switch
        {
            0 or 1 => new MountEvent.MountRequested("tmpfs", "tmpfs", [$"size={random.Next(9)}m"], generation + 1),
            2 or 3 or 4 => new MountEvent.AttachmentAdded("vol", consumer, (OnFailure)random.Next(2)),
            5 or 6 => new MountEvent.AttachmentRemoved("vol", consumer, RemovalReason.Detached),
            7 => new MountEvent.MountStarted(generation, "b1", 4026531841, (ulong)random.NextInt64(), ["/srv", "/srv/x"]),
            8 => new MountEvent.Mounted("b1", 4026531841, ulong.MaxValue - (ulong)random.Next(9), ["/srv/x"]),
            9 => new MountEvent.MountFailed("EIO", "Ünï \"q\" \\", Transient: true, random.Next(9), retryAt),
            10 => new MountEvent.UnmountRequested((UnmountMode)random.Next(3)),
            11 => new MountEvent.UnmountFailed("EBUSY", "busy", false, [new MountHolder(1, "sh", ["cwd"])], 1, retryAt),
            12 => new MountEvent.Unmounted(Released: false, ["/srv/x"]),
            13 => new MountEvent.DriftDetected((DriftKind)random.Next(5), random.Next(2) == 0 ? null : "detail"),
            14 => new MountEvent.MountAdopted("b1", 4026531841, null),
            _ => new MountEvent.Unrecognised("from_the_future", """{"x": 1}"""),
        };
    }
}
