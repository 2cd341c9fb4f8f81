namespace MountLedger.Postgres.Tests;

/// <summary>Lists, history and hosts.</summary>
public sealed class QueryTests(PostgresServer server) : LedgerTest(server)
{
    private LedgerQueries Queries => new(Database);

    [PostgresFact]
    public async Task Mountpoints_are_listed_by_host_phase_and_consumer()
    {
        await AppendAsync(Stream, FirstAttach());
        await AppendAsync(new StreamKey(Host, "/srv/b"), [.. FirstAttach(consumer: "vm-2"), new MountEvent.MountStarted(1, "b", 4026531841, null, []), new MountEvent.Mounted("b", 4026531841, 3, [])]);
        await AppendAsync(new StreamKey("h2", "/srv/c"), FirstAttach());
        await AppendAsync(new StreamKey(Host, "/srv/gone"), [.. FirstAttach(), new MountEvent.AttachmentRemoved("vol", "vm-1", RemovalReason.Detached)]);

        async Task<string> List(MountpointFilter filter) =>
            string.Join(' ', (await Queries.ListMountpointsAsync(filter, default)).Items.Select(state => state.Mountpoint));

        Assert.Equal($"/srv/b {Path} /srv/c", await List(new()));
        Assert.Equal($"/srv/b {Path}", await List(new(Host: Host)));
        Assert.Equal("/srv/b", await List(new(Phase: Phase.Mounted)));
        Assert.Equal("/srv/gone", await List(new(Phase: Phase.Absent)));
        Assert.Equal("/srv/b", await List(new(Consumer: "vm-2")));
    }

    [PostgresFact]
    public async Task A_list_is_paged_without_loss_or_repeat()
    {
        for (var i = 0; i < 7; i++) await AppendAsync(new StreamKey(i % 2 == 0 ? "h1" : "h2", $"/srv/{i}"), FirstAttach());

        var seen = new List<string>();
        string? cursor = null;
        do
        {
            var page = await Queries.ListMountpointsAsync(new(Cursor: cursor, Limit: 2), default);
            seen.AddRange(page.Items.Select(state => state.Mountpoint));
            cursor = page.Next;
        }
        while (cursor is not null);

        Assert.Equal(["/srv/0", "/srv/2", "/srv/4", "/srv/6", "/srv/1", "/srv/3", "/srv/5"], seen);
    }

    [PostgresTheory]
    [InlineData("%%%")]
    [InlineData("aGVsbG8=")]
    public async Task A_cursor_that_was_never_returned_is_refused(string cursor) => await Assert.ThrowsAsync<FormatException>(
        () => Queries.ListMountpointsAsync(new(Cursor: cursor), default));

    [PostgresFact]
    public async Task History_is_filtered_by_everything_and_read_both_ways()
    {
        await AppendAsync(Stream, FirstAttach());
        await AppendAsync(new StreamKey(Host, "/srv/b"), FirstAttach("vol-2", "vm-2"), Caller with { Actor = "bob" });
        await AppendAsync(new StreamKey("h2", "/srv/c"), FirstAttach());
        var middle = (await Store.ReadStreamAsync(new StreamKey(Host, "/srv/b"), 1, default))[0].At;

        async Task<string> Read(HistoryFilter filter) =>
            string.Join(' ', (await Queries.ReadHistoryAsync(filter, default)).Items.Select(recorded => recorded.Seq));

        Assert.Equal("1 2 3 4 5 6", await Read(new()));
        Assert.Equal("6 5 4 3 2 1", await Read(new(NewestFirst: true)));
        Assert.Equal("1 2 3 4", await Read(new(Host: Host)));
        Assert.Equal("5 6", await Read(new(Mountpoint: "/srv/c")));
        Assert.Equal("4", await Read(new(Consumer: "vm-2")));
        Assert.Equal("4", await Read(new(Volume: "vol-2")));
        Assert.Equal("3 4", await Read(new(Actor: "bob")));
        Assert.Equal("2 4 6", await Read(new(Type: "attachment_added")));
        Assert.Equal("3 4 5 6", await Read(new(Since: middle)));
        Assert.Equal("1 2", await Read(new(Until: middle)));
        Assert.Equal("5 6", await Read(new(AfterSeq: 4)));
        Assert.Equal("3 2 1", await Read(new(AfterSeq: 4, NewestFirst: true)));
        Assert.Equal("6", await Read(new(Host: "h2", Type: "attachment_added", Consumer: "vm-1", Since: middle)));
        Assert.Equal("2", (await Queries.ReadHistoryAsync(new(Limit: 2), default)).Next);
        Assert.Null((await Queries.ReadHistoryAsync(new(Limit: 6), default)).Next);
    }

    [PostgresFact]
    public async Task Hosts_are_listed_with_lease_and_counts()
    {
        await AppendHostAsync(new HostEvent.HostDown("x"));
        await new HostLease(Database).TakeAsync(Host, "a1", "m1", "b1", 0, TimeSpan.FromMinutes(1), default);
        await AppendAsync(Stream, [.. FirstAttach(), new MountEvent.AttachmentAdded("vol", "vm-2", OnFailure.Forget)]);
        await AppendAsync(new StreamKey("a-host", Path), FirstAttach());

        var hosts = await Queries.ListHostsAsync(default);

        Assert.Equal(["a-host", Host], hosts.Select(host => host.State.Host));
        Assert.Equal((true, null, 1, 1), (hosts[0].State.IsUp, hosts[0].Lease, hosts[0].Mountpoints, hosts[0].Attachments));
        Assert.Equal((false, "a1", 1, 2), (hosts[1].State.IsUp, hosts[1].Lease!.Agent, hosts[1].Mountpoints, hosts[1].Attachments));
        Assert.False(hosts[1].Lease!.Expired);
    }
}
