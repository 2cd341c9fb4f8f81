using System.Net.Sockets;
using System.Text;
using MountLedger.Postgres;
using Npgsql;

namespace MountLedger.EndToEnd;

/// <summary>The network between agent and PostgreSQL, as a program between two unix sockets, to which a test can do what happens to networks.</summary>
public sealed class PostgresProxy : IAsyncDisposable
{
    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("mountledger-net-");
    private readonly Socket _listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    private readonly CancellationTokenSource _stop = new();
    private readonly List<Socket> _sockets = [];
    private readonly string _target;
    private readonly Task _accepting;
    private volatile Cut? _cut;
    private volatile TaskCompletionSource? _silence;
    private volatile int _delayMs;

    /// <param name="connectionString">The server's, by its socket directory.</param>
    public PostgresProxy(string connectionString)
    {
        var settings = new NpgsqlConnectionStringBuilder(connectionString);
        _target = $"{settings.Host}/.s.PGSQL.{settings.Port}";
        settings.Host = _directory.FullName;
        ConnectionString = settings.ConnectionString;
        _listener.Bind(new UnixDomainSocketEndPoint($"{_directory.FullName}/.s.PGSQL.{settings.Port}"));
        _listener.Listen();
        _accepting = AcceptAsync();
    }

    public string ConnectionString { get; }

    /// <summary>
    /// The next request that contains this text loses its connection before the answer. <paramref name="deliver"/>: it has reached the server by then; else it
    /// waits in the network until <see cref="Cut.Release"/>, as in a buffer.
    /// </summary>
    public Cut CutAt(string text, bool deliver) => _cut = new Cut(Encoding.UTF8.GetBytes(text), deliver);

    /// <summary>Each piece of data takes this long, in each direction.</summary>
    public void Delay(int milliseconds) => _delayMs = milliseconds;

    /// <summary>Nothing gets through, and nobody is told; until <see cref="Speak"/>.</summary>
    public void FallSilent() => _silence = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);

    public void Speak()
    {
        var silence = _silence;
        _silence = null;
        silence?.TrySetResult();
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        _listener.Dispose();
        Speak();
        lock (_sockets) _sockets.ForEach(socket => socket.Dispose());
        await _accepting;
        _directory.Delete(recursive: true);
    }

    private async Task AcceptAsync()
    {
        while (!_stop.IsCancellationRequested)
        {
            Socket client;
            try
            {
                client = await _listener.AcceptAsync(_stop.Token);
            }
            catch (Exception e) when (e is OperationCanceledException or SocketException or ObjectDisposedException)
            {
                return;
            }
            _ = ServeAsync(client);
        }
    }

    private async Task ServeAsync(Socket client)
    {
        var server = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        lock (_sockets) _sockets.AddRange([client, server]);
        var cut = false;
        try
        {
            await server.ConnectAsync(new UnixDomainSocketEndPoint(_target), _stop.Token);
            var answers = PumpAsync(server, client, _ => Task.FromResult(false));
            cut = await PumpAsync(client, server, async data =>
            {
                if (_cut is not { } wanted || data.Span.IndexOf(wanted.Text) < 0) return false;
                _cut = null;
                client.Dispose();
                if (wanted.Deliver) await server.SendAsync(data);
                wanted.Happened(data.ToArray(), server);
                return true;
            });
        }
        catch (Exception e) when (e is SocketException or OperationCanceledException or ObjectDisposedException)
        {
            // One of the two is gone, and so is the other.
        }
        client.Dispose();
        if (!cut) server.Dispose();
    }

    private async Task<bool> PumpAsync(Socket from, Socket to, Func<ReadOnlyMemory<byte>, Task<bool>> isCut)
    {
        var buffer = new byte[1 << 16];
        try
        {
            int count;
            while ((count = await from.ReceiveAsync(buffer, _stop.Token)) > 0)
            {
                if (_delayMs > 0) await Task.Delay(_delayMs, _stop.Token);
                while (_silence is { } silence) await silence.Task;
                if (await isCut(buffer.AsMemory(0, count))) return true;
                for (var sent = 0; sent < count;) sent += await to.SendAsync(buffer.AsMemory(sent, count - sent), _stop.Token);
            }
            to.Shutdown(SocketShutdown.Send);
        }
        catch (Exception e) when (e is SocketException or OperationCanceledException or ObjectDisposedException)
        {
            from.Dispose();
            to.Dispose();
        }
        return false;
    }

    /// <summary>A cut connection.</summary>
    public sealed class Cut(byte[] text, bool deliver)
    {
        private readonly TaskCompletionSource<(byte[] Held, Socket Server)> _done = new(TaskCreationOptions.RunContinuationsAsynchronously);

        internal byte[] Text { get; } = text;

        internal bool Deliver { get; } = deliver;

        public Task Done => _done.Task;

        /// <summary>What was held back reaches the server, if that still listens.</summary>
        public async Task ReleaseAsync()
        {
            var (held, server) = await _done.Task;
            try
            {
                await server.SendAsync(held);
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                // Its process is gone.
            }
        }

        internal void Happened(byte[] held, Socket server) => _done.TrySetResult((held, server));
    }
}
