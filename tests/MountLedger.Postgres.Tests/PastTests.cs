using System.Text.Json;
using MountLedger.Wire;

namespace MountLedger.Postgres.Tests;

/// <summary>The state at a time is what a fold of all events up to then says, however it is read.</summary>
public sealed class PastTests(PostgresServer server) : LedgerTest(server)
{
    private const string Boot = "b";
    private const ulong Namespace = 4026531841;

    private PastReading Past => new(Database);

    [PostgresFact]
    public async Task At_every_time_it_is_what_all_events_up_to_then_fold_to()
    {
        // By turns, so that at most times some have changed since, some have not, some are absent and some not there yet.
        string[] paths = ["/srv/a", "/srv/b", "/srv/c", "/srv/d", "/srv/e"];
        var random = new Random(11);
        for (var step = 0; step < 150; step++)
        {
            var stream = new StreamKey(Host, paths[random.Next(paths.Length)]);
            var state = await Store.LoadAsync(stream, default);
            Assert.IsType<AppendResult.Appended>(await Store.AppendAsync(Batch(state, Next(state, step)), default));
        }
        var events = new List<RecordedEvent>();
        foreach (var path in paths) events.AddRange(await Store.ReadStreamAsync(new StreamKey(Host, path), 1, default));
        Assert.Contains(events, recorded => recorded.Event is MountEvent.DriftDetected { Kind: DriftKind.Stale });
        Assert.Contains(events, recorded => recorded.Event is MountEvent.DriftResolved { Kind: DriftKind.Stale });
        Assert.True(paths.All(path => events.Count(recorded => recorded.Stream.Id == path) > 10));

        await AssertIsFoldedAsync(paths, events);
        // With no slates found, with all, and with some.
        await Past.MarkAsync(Host, null, default);
        Assert.Equal(
            events.Count(recorded => recorded.Event is MountEvent.MountRequested
                && events.Any(before => before.Stream == recorded.Stream && before.Version == recorded.Version - 1 && before.Event is MountEvent.Unmounted)),
            await ScalarAsync<long>("select count(*) from mountledger.clean_slate"));
        await AssertIsFoldedAsync(paths, events);
        await ExecuteAsync("delete from mountledger.clean_slate where version % 2 = 0");
        await AssertIsFoldedAsync(paths, events);
    }

    private async Task AssertIsFoldedAsync(string[] paths, List<RecordedEvent> events)
    {
        DateTimeOffset[] times = [events.Min(recorded => recorded.At).AddSeconds(-1), .. events.Select(recorded => recorded.At).Distinct(), DateTimeOffset.UtcNow.AddSeconds(1)];
        foreach (var at in times)
        {
            var expected = paths.Select(path => events.Where(recorded => recorded.Stream.Id == path && recorded.At <= at)
                    .Aggregate(MountState.Initial(new StreamKey(Host, path)), (state, recorded) => state.Evolve(recorded)))
                .Where(state => state.Phase != Phase.Absent).Select(Shown);
            Assert.Equal(expected, (await AllAsync(at, limit: 100)).Select(Shown));
        }
    }

    [PostgresFact]
    public async Task It_is_paged_without_loss_or_repeat_also_over_many_that_were_absent()
    {
        for (var i = 0; i < 40; i++)
        {
            var isLeft = i is > 10 and < 33;
            await AppendAsync(new StreamKey(Host, $"/srv/{i:D2}"), isLeft ? [.. FirstAttach(), new MountEvent.AttachmentRemoved("vol", "vm-1", RemovalReason.Detached)] : FirstAttach());
        }
        await AppendAsync(new StreamKey("h2", "/srv/05"), FirstAttach());
        await AppendHostAsync(new HostEvent.HostDown("x"));
        var at = DateTimeOffset.UtcNow.AddSeconds(1);
        var all = (await AllAsync(at, 100)).ConvertAll(state => state.Mountpoint);

        Assert.Equal(Enumerable.Range(0, 40).Where(i => i is not (> 10 and < 33)).Select(i => $"/srv/{i:D2}"), all);
        foreach (var limit in (int[])[1, 2, 3, 7, 18, 40]) Assert.Equal(all, (await AllAsync(at, limit)).ConvertAll(state => state.Mountpoint));
    }

    [PostgresFact]
    public async Task A_row_that_is_damaged_or_missing_is_read_from_the_events()
    {
        await AppendAsync(Stream, FirstAttach());
        await AppendAsync(new StreamKey(Host, "/srv/b"), FirstAttach());
        var expected = (await AllAsync(DateTimeOffset.UtcNow.AddSeconds(1), 10)).ConvertAll(Shown);

        await ExecuteAsync($"update mountledger.mountpoint set state = '[]' where mountpoint = '{Path}'; delete from mountledger.mountpoint where mountpoint = '/srv/b'");

        Assert.Equal(2, expected.Count);
        Assert.Equal(expected, (await AllAsync(DateTimeOffset.UtcNow.AddSeconds(1), 10)).ConvertAll(Shown));
    }

    [PostgresFact]
    public async Task Slates_are_looked_for_once_and_again_after_a_rebuild()
    {
        for (var step = 0; step < 60; step++)
        {
            var state = await Store.LoadAsync(Stream, default);
            await Store.AppendAsync(Batch(state, Next(state, step)), default);
            if (step % 13 == 0) await Past.MarkAsync(Host, null, default);
        }
        await Past.MarkAsync(Host, () => false, default);
        await Past.MarkAsync(Host, null, default);
        const string Slates = "select at || ' ' || version from mountledger.clean_slate order by version";
        var found = await RowsAsync(Slates);
        await ExecuteAsync("delete from mountledger.clean_slate");
        await Past.MarkAsync(Host, null, default);
        Assert.Empty(await RowsAsync(Slates));

        await new ProjectionRebuild(Database).RunAsync(null, default);
        await Past.MarkAsync("h2", null, default);
        Assert.Empty(await RowsAsync(Slates));
        await Past.MarkAsync(Host, null, default);

        Assert.True(found.Count > 3);
        Assert.Equal(found, await RowsAsync(Slates));
    }

    [PostgresTheory]
    [InlineData("%%%")]
    [InlineData("aGVsbG8=")]
    public async Task A_cursor_that_was_never_returned_is_refused(string cursor) =>
        await Assert.ThrowsAsync<FormatException>(() => Past.ReadAsync(Host, DateTimeOffset.UtcNow, cursor, 10, default));

    [PostgresFact]
    public async Task What_was_before_the_last_clean_slate_is_not_read()
    {
        for (var step = 0; step < 60; step++)
        {
            var state = await Store.LoadAsync(Stream, default);
            await Store.AppendAsync(Batch(state, Next(state, step)), default);
        }
        var events = await Store.ReadStreamAsync(Stream, 1, default);
        var clean = events.Last(recorded => recorded.Event is MountEvent.MountRequested && recorded.Version > 1 && events[(int)recorded.Version - 2].Event is MountEvent.Unmounted).Version;
        // The row has changed since then, so that the events are needed.
        var at = events.Last(recorded => recorded.Event is MountEvent.Mounted && recorded.Version > clean).At;
        Assert.True((await AppendAsync(Stream, [new MountEvent.RepairPaused(null)])) is AppendResult.Appended);
        var expected = (await AllAsync(at, 10)).ConvertAll(Shown);
        await Past.MarkAsync(Host, null, default);

        await ExecuteAsync(
            $"""
            update mountledger.mt_events set type = 'attachment_added', data = jsonb_build_object('volume', 'v', 'consumer', 'c' || version, 'onFailure', 'forget')
            where version < {clean - 1}
            """);

        Assert.NotEmpty(expected);
        Assert.True(clean > 10);
        Assert.Equal(expected, (await AllAsync(at, 10)).ConvertAll(Shown));
    }

    private async Task<List<MountState>> AllAsync(DateTimeOffset at, int limit)
    {
        var all = new List<MountState>();
        string? cursor = null;
        do
        {
            var page = await Past.ReadAsync(Host, at, cursor, limit, default);
            Assert.InRange(page.Items.Count, 0, limit);
            all.AddRange(page.Items);
            cursor = page.Next;
        }
        while (cursor is not null);
        return all;
    }

    private static string Shown(MountState state) => JsonSerializer.Serialize(Views.Of(state), Answers.Json.MountpointView);

    /// <summary>What may come next in the life of a mountpoint, so that over the steps everything does that shows in an answer.</summary>
    private static IReadOnlyList<LedgerEvent> Next(MountState state, int step) => state.Phase switch
    {
        Phase.Absent => [new MountEvent.MountRequested("tmpfs", "tmpfs", [$"size={step + 1}m"], state.Generation + 1), new MountEvent.AttachmentAdded("vol", $"vm-{step}", OnFailure.Retry)],
        Phase.Mounting when state.Operation is null => [new MountEvent.MountStarted(state.Generation, Boot, Namespace, (ulong)step, [])],
        Phase.Mounting when step % 5 == 0 => [new MountEvent.MountFailed("EIO", $"step {step}", Transient: true, 1, DateTimeOffset.UnixEpoch)],
        Phase.Mounting => [new MountEvent.Mounted(Boot, Namespace, (ulong)step, [])],
        Phase.Failed => [new MountEvent.MountStarted(state.Generation, Boot, Namespace, (ulong)step, [])],
        Phase.Mounted when step % 4 == 0 => [new MountEvent.AttachmentAdded("vol", $"vm-{step}", OnFailure.Forget)],
        Phase.Mounted when step % 3 == 0 && state.Drift.IsEmpty => [new MountEvent.DriftDetected(DriftKind.Stale, "ENOTCONN: its server is gone")],
        Phase.Mounted =>
        [
            .. state.Attachments.Select(attachment => new MountEvent.AttachmentRemoved(attachment.Volume, attachment.Consumer, RemovalReason.Detached)),
            new MountEvent.UnmountRequested(UnmountMode.Normal),
        ],
        _ when state.Operation is null => [new MountEvent.UnmountStarted(UnmountMode.Normal, Boot, Namespace, state.Kernel!.MountId)],
        _ => [new MountEvent.Unmounted(Released: false, []), .. state.Drift.Keys.Select(kind => new MountEvent.DriftResolved(kind, "unmounted"))],
    };
}
