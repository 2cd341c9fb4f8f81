using System.Collections.Immutable;
using Npgsql;

namespace MountLedger.Postgres.Tests;

[CollectionDefinition(Name)]
public sealed class PostgresTests : ICollectionFixture<PostgresServer>
{
    public const string Name = "PostgreSQL";
}

/// <summary>A test with a ledger of its own, and the words that these tests are written in.</summary>
[Collection(PostgresTests.Name)]
public abstract class LedgerTest(PostgresServer server) : IAsyncLifetime
{
    protected const string Host = "h1.example";
    protected const string Path = "/srv/data/a";

    protected static readonly StreamKey Stream = new(Host, Path);
    protected static readonly AppendOrigin Caller = new("alice", "cmd-1", null, Epoch: null, Agent: null, LocalAgent: true);
    protected static readonly MountSpec Spec = new("tmpfs", "tmpfs", ["size=1m"]);

    protected PostgresServer Server => server;

    protected string ConnectionString { get; private set; } = "";

    internal LedgerDatabase Database { get; private set; } = null!;

    protected PostgresEventStore Store { get; private set; } = null!;

    public async Task InitializeAsync()
    {
        ConnectionString = await server.CreateLedgerAsync();
        Open();
    }

    public async Task DisposeAsync() => await Database.DisposeAsync();

    /// <summary>A ledger that is waited for longer than an agent would: on a loaded machine a second to connect is not much.</summary>
    internal static LedgerDatabase OpenPatiently(string connectionString) =>
        LedgerDatabase.Open(new NpgsqlConnectionStringBuilder(connectionString) { Timeout = 15, CommandTimeout = 30 }.ConnectionString);

    /// <summary>Ends all sessions of this test's ledger, its writers' too, and goes on with new ones.</summary>
    protected async Task ReopenAsync()
    {
        await Database.DisposeAsync();
        Open();
    }

    protected static ImmutableArray<LedgerEvent> FirstAttach(string volume = "vol", string consumer = "vm-1") =>
    [
        new MountEvent.MountRequested(Spec.Source, Spec.FsType, Spec.Options, 1),
        new MountEvent.AttachmentAdded(volume, consumer, OnFailure.Forget),
    ];

    /// <summary>A batch as the domain makes it: folded on <paramref name="state"/>, with the difference in attachments.</summary>
    protected static AppendBatch Batch(
        MountState state, IEnumerable<LedgerEvent> events, AppendOrigin? origin = null, bool requireUp = false, StoredRequest? request = null)
    {
        var by = origin ?? Caller;
        var changes = events.ToImmutableArray();
        var after = changes.Cast<MountEvent>().Aggregate(
            state, (next, change) => next.Evolve(change, next.Version + 1, DateTimeOffset.UnixEpoch, by.Actor));
        var added = after.Attachments.Where(
            now => !state.Attachments.TryGetValue(now.Key, out var was) || was with { Confirmed = now.Confirmed } != now);
        var removed = state.Attachments.Keys.Where(key => !after.Attachments.ContainsKey(key));
        var confirmAll = !after.Attachments.IsEmpty && after.Attachments.All(attachment => attachment.Confirmed);
        return new AppendBatch(
            state.Stream, state.Version, changes, by, after, NewHostState: null,
            new AttachmentChanges([.. added], [.. removed], confirmAll), requireUp, request);
    }

    protected async Task<AppendResult> AppendAsync(StreamKey stream, IEnumerable<LedgerEvent> events, AppendOrigin? origin = null) =>
        await Store.AppendAsync(Batch(await Store.LoadAsync(stream, default), events, origin), default);

    protected async Task<AppendResult> AppendHostAsync(HostEvent change, AppendOrigin? origin = null)
    {
        var by = origin ?? Caller;
        var state = await Store.LoadHostStateAsync(Host, default);
        var after = state.Evolve(change, state.Version + 1, DateTimeOffset.UnixEpoch, by.Actor);
        return await Store.AppendAsync(
            new AppendBatch(
                new StreamKey(Host, HostEvent.StreamId), state.Version, [change], by, null, after, AttachmentChanges.None, false, null),
            default);
    }

    /// <summary>A value of the first row, by plain SQL.</summary>
    protected async Task<T?> ScalarAsync<T>(string sql)
    {
        await using var command = Database.DataSource.CreateCommand(sql);
        return await command.ExecuteScalarAsync() is T value ? value : default;
    }

    protected async Task ExecuteAsync(string sql)
    {
        await using var command = Database.DataSource.CreateCommand(sql);
        await command.ExecuteNonQueryAsync();
    }

    protected async Task<List<string>> RowsAsync(string sql)
    {
        await using var command = Database.DataSource.CreateCommand(sql);
        await using var row = await command.ExecuteReaderAsync();
        var rows = new List<string>();
        while (await row.ReadAsync()) rows.Add(row.GetString(0));
        return rows;
    }

    /// <summary>Every row of every table that an append writes, as text.</summary>
    protected Task<List<string>> EverythingAsync() => RowsAsync(
        """
        select 'stream ' || t::text from mountledger.mt_streams t union all select 'event ' || t::text from mountledger.mt_events t
        union all select 'mountpoint ' || t::text from mountledger.mountpoint t
        union all select 'attachment ' || t::text from mountledger.attachment t
        union all select 'host ' || t::text from mountledger.host t union all select 'request ' || t::text from mountledger.request t
        union all select 'sequence ' || last_value || is_called from mountledger.mt_events_sequence order by 1
        """);

    protected static StoredRequest Request(string key, string actor = "alice", string body = "b0", string? answer = null) =>
        new(key, actor, body, Path, null, answer is null ? null : 200, answer);

    /// <summary>Retries until <paramref name="condition"/> holds; for thirty seconds.</summary>
    protected static async Task EventuallyAsync(Func<Task<bool>> condition)
    {
        for (var i = 0; i < 600 && !await condition(); i++) await Task.Delay(50);
        Assert.True(await condition());
    }

    private void Open()
    {
        Database = OpenPatiently(ConnectionString);
        Store = new PostgresEventStore(Database);
    }
}
