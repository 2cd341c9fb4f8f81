using System.Net;
using System.Net.Sockets;

namespace MountLedger.Postgres.Tests;

/// <summary>A call that is called off ends soon, and whoever calls it off is not told of it by an exception of somebody else.</summary>
public sealed class CancellationTests : IDisposable
{
    private static readonly StreamKey Stream = new("host", "/srv/a");

    // A listener whose queue is full: who connects gets no answer. The kernel takes one more than it was asked to.
    private readonly Socket deaf = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
    private readonly List<Socket> queued = [];

    public CancellationTests()
    {
        deaf.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        deaf.Listen(0);
        Queue();
    }

    public void Dispose()
    {
        foreach (var socket in queued) socket.Dispose();
        deaf.Dispose();
    }

    [Theory]
    [InlineData("read")]
    [InlineData("listen")]
    [InlineData("migrate")]
    [InlineData("rebuild")]
    [InlineData("lease")]
    public async Task Called_off_while_it_connects(string what)
    {
        await using var database = OpenDeaf();
        using var source = new CancellationTokenSource();
        Task call = what switch
        {
            "read" => new PostgresEventStore(database).LoadAsync(Stream, source.Token).AsTask(),
            "listen" => ListenAsync(database, source.Token),
            "migrate" => new Migrator(database).MigrateAsync(source.Token),
            "rebuild" => new ProjectionRebuild(database).RunAsync(null, source.Token),
            _ => new HostLease(database).TakeAsync("host", "agent", "machine", "boot", 0, TimeSpan.FromSeconds(10), source.Token).AsTask(),
        };
        await Task.Delay(200);
        Assert.False(call.IsCompleted, $"{call.Exception}");

        Assert.Null(Record.Exception(source.Cancel));
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => call.WaitAsync(TimeSpan.FromSeconds(10)));
    }

    [Fact]
    public async Task Pulse_that_is_called_off_while_it_connects()
    {
        await using var database = OpenDeaf();
        using var source = new CancellationTokenSource();
        var pulse = new LedgerPulse(database, new LedgerPresence(), TimeProvider.System).RunAsync(source.Token);
        await Task.Delay(200);

        Assert.Null(Record.Exception(source.Cancel));
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => pulse.WaitAsync(TimeSpan.FromSeconds(10)));
    }

    [Fact]
    public void Who_cancels_gets_nothing_of_what_the_cancelled_do()
    {
        using var source = new CancellationTokenSource();
        using var shield = new CancellationShield(source.Token);
        var seen = 0;
        shield.Token.Register(() => seen++);
        shield.Token.Register(() => throw new InvalidOperationException("what a library does now and then"));
        shield.Token.Register(() => seen++);

        source.Cancel();

        Assert.Equal(2, seen);
        Assert.True(shield.Token.IsCancellationRequested);
    }

    [Fact]
    public void Shield_of_what_is_cancelled_already_is_cancelled_and_of_what_never_is_costs_nothing()
    {
        using var late = new CancellationShield(new CancellationToken(canceled: true));
        Assert.True(late.Token.IsCancellationRequested);

        using var never = new CancellationShield(CancellationToken.None);
        Assert.False(never.Token.CanBeCanceled);
    }

    private static async Task ListenAsync(LedgerDatabase database, CancellationToken cancellationToken)
    {
        await foreach (var wakeUp in new WakeUps(database).ListenAsync("host", cancellationToken)) Assert.Fail($"{wakeUp}");
    }

    private LedgerDatabase OpenDeaf() => LedgerDatabase.Open($"Host=127.0.0.1;Port={((IPEndPoint)deaf.LocalEndPoint!).Port};Username=nobody;Database=nothing;Timeout=60");

    private void Queue()
    {
        while (true)
        {
            var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            queued.Add(socket);
            if (!socket.ConnectAsync(deaf.LocalEndPoint!).Wait(100)) return;
        }
    }
}
