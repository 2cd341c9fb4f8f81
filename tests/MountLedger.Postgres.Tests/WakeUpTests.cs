namespace MountLedger.Postgres.Tests;

/// <summary>Notifications: from other writers, not from the host's own agent, and never relied on across a reconnect.</summary>
public sealed class WakeUpTests(PostgresServer server) : LedgerTest(server)
{
    private static readonly AppendOrigin Remote = Caller with { LocalAgent = false };

    [PostgresFact]
    public async Task Another_writer_wakes_and_the_own_agent_does_not()
    {
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(20));
        await using var wakeUps = new WakeUps(Database).ListenAsync(Host, limit.Token).GetAsyncEnumerator(limit.Token);
        Assert.True(await wakeUps.MoveNextAsync() && wakeUps.Current.AnythingMayHaveChanged);

        await AppendAsync(new StreamKey(Host, "/srv/own"), FirstAttach(), Caller);
        await AppendAsync(new StreamKey("h2", "/srv/elsewhere"), FirstAttach(), Remote);
        await AppendAsync(Stream, FirstAttach(), Remote);

        Assert.True(await wakeUps.MoveNextAsync());
        Assert.Equal(Path, wakeUps.Current.StreamId);
    }

    [PostgresFact]
    public async Task A_broken_connection_is_opened_again_and_says_so()
    {
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(20));
        await using var wakeUps = new WakeUps(Database).ListenAsync(Host, limit.Token).GetAsyncEnumerator(limit.Token);
        await wakeUps.MoveNextAsync();

        var next = wakeUps.MoveNextAsync();
        await ExecuteAsync(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and query ilike 'listen%'");

        Assert.True(await next && wakeUps.Current.AnythingMayHaveChanged);
        await AppendAsync(Stream, FirstAttach(), Remote);
        Assert.True(await wakeUps.MoveNextAsync() && wakeUps.Current.StreamId == Path);
    }

    [PostgresFact]
    public async Task The_channel_is_the_same_in_program_and_database() => Assert.Equal(
        WakeUps.ChannelOf(Host), await ScalarAsync<string>($"select mountledger.ledger_channel('{Host}')"));

    [PostgresFact]
    public async Task Listening_ends_when_it_is_cancelled()
    {
        using var limit = new CancellationTokenSource();
        await using var wakeUps = new WakeUps(Database).ListenAsync(Host, limit.Token).GetAsyncEnumerator(limit.Token);
        await wakeUps.MoveNextAsync();
        var next = wakeUps.MoveNextAsync();

        await limit.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(async () => await next);
    }
}
