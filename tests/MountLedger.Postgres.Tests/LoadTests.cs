namespace MountLedger.Postgres.Tests;

/// <summary>Loading from rows, and from events when the rows cannot be trusted.</summary>
public sealed class LoadTests(PostgresServer server) : LedgerTest(server)
{
    [PostgresFact]
    public async Task A_mountpoint_without_a_stream_is_at_version_zero()
    {
        var state = await Store.LoadAsync(Stream, default);

        Assert.Equal((0, Phase.Absent, Stream), (state.Version, state.Phase, state.Stream));
    }

    [PostgresTheory]
    [InlineData("update mountledger.mountpoint set state = '{\"spec\": 7}'")]
    [InlineData("update mountledger.mountpoint set state = 'null'")]
    [InlineData("update mountledger.mountpoint set state = '[]'")]
    [InlineData("update mountledger.mountpoint set state = '{\"drift\": {\"no-such-drift\": null}}'")]
    [InlineData("update mountledger.mountpoint set version = 1")]
    [InlineData("update mountledger.attachment set on_failure = 'explode'")]
    [InlineData("update mountledger.mountpoint set state = jsonb_set(state, '{spec}', '{\"source\": \"s\", \"fsType\": \"tmpfs\"}')")]
    [InlineData("update mountledger.mountpoint set updated_at = '12345-01-01'")]
    [InlineData("update mountledger.attachment set since = '12345-01-01'")]
    [InlineData("delete from mountledger.mountpoint")]
    public async Task A_damaged_row_is_folded_again_from_the_events(string damage)
    {
        await AppendAsync(Stream, FirstAttach());
        var sound = await Store.LoadAsync(Stream, default);

        await ExecuteAsync(damage);

        foreach (var state in new[] { await Store.LoadAsync(Stream, default), (await Store.LoadHostAsync(Host, default)).Single() })
        {
            Assert.Equal((sound.Version, sound.Phase, sound.Spec), (state.Version, state.Phase, state.Spec));
            Assert.Equal(sound.Attachments, state.Attachments);
        }
        Assert.IsType<AppendResult.Appended>(await AppendAsync(Stream, [new MountEvent.MountStarted(1, "b", 4026531841, null, [])]));
    }

    [PostgresFact]
    public async Task An_event_of_an_unknown_type_survives_in_history_and_fold()
    {
        await AppendAsync(Stream, FirstAttach());
        await AppendAsync(Stream, [new MountEvent.Unrecognised("snapshot_taken", """{"id": 7, "deep": {"x": [1, null]}}""")]);
        await ExecuteAsync("delete from mountledger.mountpoint");

        var unknown = Assert.IsType<MountEvent.Unrecognised>((await Store.ReadStreamAsync(Stream, 3, default)).Single().Event);
        Assert.Equal("snapshot_taken", unknown.StoredType);
        Assert.Contains("\"deep\"", unknown.Json, StringComparison.Ordinal);
        Assert.Equal((3, Phase.Mounting), ((await Store.LoadAsync(Stream, default)) is var s ? (s.Version, s.Phase) : default));
    }

    [PostgresFact]
    public async Task A_host_is_loaded_without_what_is_absent_and_at_rest()
    {
        await AppendAsync(Stream, FirstAttach());
        var gone = new StreamKey(Host, "/srv/gone");
        await AppendAsync(gone, [.. FirstAttach(), new MountEvent.AttachmentRemoved("vol", "vm-1", RemovalReason.Detached)]);
        var drifted = new StreamKey(Host, "/srv/drifted");
        await AppendAsync(drifted, [new MountEvent.DriftDetected(DriftKind.Foreign, "tmpfs")]);
        await AppendAsync(new StreamKey("h2", Path), FirstAttach());
        await AppendHostAsync(new HostEvent.HostUp(null));

        var loaded = (await Store.LoadHostAsync(Host, default)).ToDictionary(state => state.Mountpoint);

        Assert.Equal(new HashSet<string> { Path, "/srv/drifted" }, loaded.Keys.ToHashSet());
        Assert.Single(loaded[Path].Attachments);
    }

    [PostgresFact]
    public async Task The_work_list_holds_what_is_due()
    {
        var now = DateTimeOffset.UtcNow;
        await AppendAsync(Stream, FirstAttach());
        var later = new StreamKey(Host, "/srv/later");
        await AppendAsync(later, [.. FirstAttach(), new MountEvent.MountFailed("EIO", "x", true, 1, now.AddMinutes(1))]);
        await AppendAsync(new StreamKey("h2", Path), FirstAttach());

        Assert.Equal([Stream], await Store.ReadWorkListAsync(Host, now, default));
        Assert.Equal([Stream, later], await Store.ReadWorkListAsync(Host, now.AddMinutes(2), default));
    }

    [PostgresFact]
    public async Task Ten_thousand_attachments_of_one_mountpoint_are_loaded()
    {
        await AppendAsync(Stream, [FirstAttach()[0], .. Enumerable.Range(0, 10_000).Select(i => new MountEvent.AttachmentAdded("vol", $"vm-{i}", OnFailure.Forget))]);

        Assert.Equal(10_000, (await Store.LoadAsync(Stream, default)).Attachments.Count);
    }
}
