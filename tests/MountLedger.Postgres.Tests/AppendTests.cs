using System.Diagnostics;

namespace MountLedger.Postgres.Tests;

/// <summary>What an append writes, and that all its other outcomes leave nothing behind.</summary>
public sealed class AppendTests(PostgresServer server) : LedgerTest(server)
{
    [PostgresFact]
    public async Task What_was_appended_is_loaded_again()
    {
        var result = Assert.IsType<AppendResult.Appended>(await AppendAsync(Stream, FirstAttach()));

        var state = await Store.LoadAsync(Stream, default);
        var expected = result.Events.Aggregate(MountState.Initial(Stream), (folded, recorded) => folded.Evolve(recorded));
        Assert.Equal(2, state.Version);
        Assert.Equal(Phase.Mounting, state.Phase);
        Assert.Equal(Spec, state.Spec);
        Assert.Equal(expected.Attachments, state.Attachments);
        Assert.Equal(result.Events[0].At, state.UpdatedAt);
        Assert.Equal(result.Events[1].At, state.Attachments.Single().Since);
    }

    [PostgresFact]
    public async Task The_stream_reads_back_as_it_was_recorded()
    {
        var origin = new AppendOrigin("alice", "cmd-9", "cause-1", null, "agent-1", LocalAgent: true);
        var appended = Assert.IsType<AppendResult.Appended>(await AppendAsync(Stream, FirstAttach(), origin)).Events;

        var read = await Store.ReadStreamAsync(Stream, 1, default);

        Assert.Equal(appended.Select(e => (e.Seq, e.Id, e.Version, e.StoredType, e.At, e.Hash)), read.Select(e => (e.Seq, e.Id, e.Version, e.StoredType, e.At, e.Hash)));
        Assert.All(read, e => Assert.Equal(("alice", "cmd-9", "cause-1", "agent-1"), (e.Actor, e.CorrelationId, e.CausationId, e.Agent)));
        Assert.Equal(new MountEvent.AttachmentAdded("vol", "vm-1", OnFailure.Forget), read[1].Event);
    }

    [PostgresFact]
    public async Task An_append_is_one_statement()
    {
        await AppendAsync(Stream, FirstAttach());
        var batch = Batch(await Store.LoadAsync(Stream, default), [new MountEvent.AttachmentAdded("vol", "vm-2", OnFailure.Retry)],
            new AppendOrigin("alice", "c", null, null, null, LocalAgent: false), requireUp: true, Request("k1"));
        // The listener hears the commands of all tests that run now; the append is written on its caller's thread.
        var appending = new AsyncLocal<bool>();
        var commands = 0;
        using var listener = new ActivityListener
        {
            ShouldListenTo = source => source.Name == "Npgsql",
            Sample = (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllData,
            ActivityStopped = _ =>
            {
                if (appending.Value) Interlocked.Increment(ref commands);
            },
        };
        ActivitySource.AddActivityListener(listener);

        appending.Value = true;
        Assert.IsType<AppendResult.Appended>(await Store.AppendAsync(batch, default));
        appending.Value = false;

        Assert.Equal(1, commands);
    }

    [PostgresFact]
    public async Task A_conflict_leaves_nothing()
    {
        await AppendAsync(Stream, FirstAttach());
        var before = await EverythingAsync();
        var stale = Batch(MountState.Initial(Stream), FirstAttach(), request: Request("k1"));
        var ahead = Batch(MountState.Initial(Stream) with { Version = 7 }, FirstAttach(), request: Request("k2"));

        Assert.Equal(new AppendResult.Conflict(2), await Store.AppendAsync(stale, default));
        Assert.Equal(new AppendResult.Conflict(2), await Store.AppendAsync(ahead, default));

        Assert.Equal(before, await EverythingAsync());
    }

    [PostgresFact]
    public async Task A_version_of_a_stream_that_does_not_exist_is_a_conflict_with_zero()
    {
        var batch = Batch(MountState.Initial(Stream) with { Version = 3 }, FirstAttach());

        Assert.Equal(new AppendResult.Conflict(0), await Store.AppendAsync(batch, default));
    }

    [PostgresTheory]
    [InlineData(4)]
    [InlineData(6)]
    public async Task Another_epoch_is_stale_and_leaves_nothing(long epoch)
    {
        Assert.IsType<LeaseResult.Taken>(await new HostLease(Database).TakeAsync(Host, "a1", "m1", "b1", 4, TimeSpan.FromMinutes(1), default));
        var before = await EverythingAsync();
        var origin = Caller with { Epoch = epoch, Agent = "a1" };

        var result = await Store.AppendAsync(Batch(MountState.Initial(Stream), FirstAttach(), origin, request: Request("k1")), default);

        Assert.Equal(new AppendResult.StaleEpoch(5), result);
        Assert.Equal(before, await EverythingAsync());
    }

    [PostgresFact]
    public async Task The_current_epoch_is_recorded_with_the_event()
    {
        await new HostLease(Database).TakeAsync(Host, "a1", "m1", "b1", 4, TimeSpan.FromMinutes(1), default);

        await AppendAsync(Stream, FirstAttach(), Caller with { Epoch = 5, Agent = "a1" });

        Assert.All(await Store.ReadStreamAsync(Stream, 1, default), e => Assert.Equal((5, "a1"), (e.Epoch, e.Agent)));
    }

    [PostgresFact]
    public async Task A_host_that_is_down_refuses_what_needs_it_up_and_takes_the_rest()
    {
        await AppendHostAsync(new HostEvent.HostDown("disk swap"));
        var before = await EverythingAsync();
        var attach = Batch(MountState.Initial(Stream), FirstAttach(), requireUp: true, request: Request("k1"));

        Assert.Equal(new AppendResult.HostDown("disk swap"), await Store.AppendAsync(attach, default));
        Assert.Equal(before, await EverythingAsync());
        Assert.IsType<AppendResult.Appended>(await Store.AppendAsync(attach with { RequireHostUp = false }, default));
    }

    [PostgresFact]
    public async Task Down_and_up_of_a_host_are_kept_with_the_databases_time()
    {
        var down = Assert.IsType<AppendResult.Appended>(await AppendHostAsync(new HostEvent.HostDown("disk swap"))).Events[0];
        var started = Assert.IsType<AppendResult.Appended>(
            await AppendHostAsync(new HostEvent.AgentStarted(1, "a1", "m1", "b1", "6.18", "0.1.0"))).Events[0];

        var state = await Store.LoadHostStateAsync(Host, default);
        Assert.False(state.IsUp);
        Assert.Equal(("disk swap", "alice", down.At), (state.DownReason, state.DownBy, state.DownSince));
        Assert.Equal(started.Event, state.Agent);
        Assert.Equal(started.At, state.AgentStartedAt);
        Assert.Equal((2, started.At), (state.Version, state.UpdatedAt));

        await AppendHostAsync(new HostEvent.HostUp(null));
        state = await Store.LoadHostStateAsync(Host, default);
        Assert.Equal((true, null, null), (state.IsUp, state.DownReason, state.DownSince));
        Assert.Equal(started.At, state.AgentStartedAt);
    }

    [PostgresFact]
    public async Task Time_never_goes_back_even_behind_an_event_of_the_future()
    {
        await AppendAsync(Stream, FirstAttach());
        await ExecuteAsync("update mountledger.mt_events set timestamp = '2101-02-03 04:05:06.789123Z' where version = 2");

        var next = Assert.IsType<AppendResult.Appended>(
            await AppendAsync(Stream, [new MountEvent.AttachmentAdded("vol", "vm-2", OnFailure.Forget)])).Events[0];

        Assert.Equal(DateTimeOffset.Parse("2101-02-03T04:05:06.789123Z", null), next.At);
        Assert.Equal(next.At, await ScalarAsync<DateTime>("select timestamp from mountledger.mt_streams"));
    }

    [PostgresFact]
    public async Task Attachments_follow_their_events()
    {
        await AppendAsync(Stream, FirstAttach());
        await AppendAsync(Stream, [new MountEvent.AttachmentAdded("vol", "vm-2", OnFailure.Retry)]);
        await AppendAsync(Stream, [new MountEvent.MountStarted(1, "b", 4026531841, 7, []), new MountEvent.Mounted("b", 4026531841, 7, [])]);
        Assert.All((await Store.LoadAsync(Stream, default)).Attachments, attachment => Assert.True(attachment.Confirmed));

        await AppendAsync(Stream, [new MountEvent.AttachmentRemoved("vol", "vm-1", RemovalReason.Detached)]);

        var left = (await Store.LoadAsync(Stream, default)).Attachments.Single();
        Assert.Equal(("vm-2", OnFailure.Retry, false), (left.Consumer, left.OnFailure, left.First));
    }

    [PostgresTheory]
    [InlineData("/srv/Ünïcödé/数据/🦊")]
    [InlineData("/srv/with space/'quote'/\"double\"/back\\slash/%s/$1/{}")]
    [InlineData("/srv/\\u0000/not-a-nul")]
    public async Task Odd_paths_and_names_come_back_as_they_went_in(string path)
    {
        var stream = new StreamKey(Host, path);

        await AppendAsync(stream, FirstAttach("völ'\\", "çonsumer\"🦊"), Caller with { Actor = "Ünï \\ 'x'" });

        var state = await Store.LoadAsync(stream, default);
        var attachment = state.Attachments.Single();
        Assert.Equal((path, "völ'\\", "çonsumer\"🦊", "Ünï \\ 'x'"), (state.Mountpoint, attachment.Volume, attachment.Consumer, attachment.Actor));
        Assert.Equal(path, (await Store.ReadStreamAsync(stream, 2, default)).Single().Stream.Id);
    }

    [PostgresFact]
    public async Task The_longest_path_and_names_fit_into_every_index()
    {
        var stream = new StreamKey(new string('h', 63), "/" + string.Concat(Enumerable.Range(0, 511).Select(i => char.ConvertFromUtf32(0x10000 + i * 97))));

        await AppendAsync(stream, FirstAttach(
            string.Concat(Enumerable.Range(0, 128).Select(i => char.ConvertFromUtf32(0x20000 + i * 31))),
            string.Concat(Enumerable.Range(0, 128).Select(i => char.ConvertFromUtf32(0x24000 + i * 37)))));

        Assert.Single((await Store.LoadAsync(stream, default)).Attachments);
    }

    [PostgresFact]
    public async Task A_zero_character_in_what_a_helper_printed_does_not_lose_the_outcome()
    {
        await AppendAsync(Stream, FirstAttach());

        await AppendAsync(Stream, [new MountEvent.MountFailed("EIO", "a\0b\\u0000c", Transient: true, 1, null)]);

        var failed = Assert.IsType<MountEvent.MountFailed>((await Store.ReadStreamAsync(Stream, 3, default)).Single().Event);
        Assert.Equal("a\ufffdb\\u0000c", failed.Message);
        Assert.Equal("a\ufffdb\\u0000c", (await Store.LoadAsync(Stream, default)).Error!.Message);
    }

    [PostgresFact]
    public async Task A_batch_without_its_projection_row_is_a_bug_and_says_so()
    {
        var batch = Batch(MountState.Initial(Stream), FirstAttach());

        await Assert.ThrowsAsync<ArgumentException>(async () => await Store.AppendAsync(batch with { NewState = null }, default));
        await Assert.ThrowsAsync<ArgumentException>(async () => await Store.AppendAsync(batch with { Events = [] }, default));
    }
}
