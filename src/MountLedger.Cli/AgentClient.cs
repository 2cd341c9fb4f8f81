using System.Globalization;
using System.Net.Http.Headers;
using System.Net.Sockets;
using System.Text.Json;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;
using MountLedger.Wire;

namespace MountLedger.Cli;

/// <summary>
/// HTTP over the agent's unix socket. Every wait is bounded: an agent that is dead or hangs ends the run with
/// <see cref="ExitCode.Unavailable"/> and what to do.
/// </summary>
internal sealed class AgentClient(string socketPath, TimeSpan answerMargin) : IDisposable
{
    public const string DefaultSocket = "/run/mountledger/mountledger.sock";

    public const string SocketVariable = "MOUNTLEDGER_SOCKET";

    private const int AnswerBytesMax = 64 << 20;

    /// <summary>Members that the user did not give are left out, so that the agent's defaults apply.</summary>
    private static readonly RequestJson _requests = new(new JsonSerializerOptions(RequestJson.Default.Options)
    {
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    });

    private readonly HttpClient _http = new(new SocketsHttpHandler
    {
        UseProxy = false,
        UseCookies = false,
        AllowAutoRedirect = false,
        ConnectCallback = (_, cancellationToken) => ConnectAsync(socketPath, cancellationToken),
    })
    {
        BaseAddress = new Uri("http://localhost/"),
        MaxResponseContentBufferSize = AnswerBytesMax,
        Timeout = Timeout.InfiniteTimeSpan, // each request has its own, below
    };

    /// <summary>Any answer below 400; the others end the run (<see cref="Problems"/>).</summary>
    public Task<Answer> GetAsync(string pathAndQuery, CancellationToken cancellationToken) =>
        SendAsync(new HttpRequestMessage(HttpMethod.Get, pathAndQuery), TimeSpan.Zero, cancellationToken);

    /// <summary><paramref name="wait"/>: how long the agent was asked to wait before it answers.</summary>
    public async Task<Answer> PostAsync<T>(
        string path, T body, TimeSpan wait, Preconditions preconditions, CancellationToken cancellationToken)
    {
        var request = new HttpRequestMessage(HttpMethod.Post, path);
        var type = (JsonTypeInfo<T>)_requests.GetTypeInfo(typeof(T))!;
        request.Content = new ByteArrayContent(JsonSerializer.SerializeToUtf8Bytes(body, type));
        request.Content.Headers.ContentType = new MediaTypeHeaderValue("application/json");
        if (preconditions.IdempotencyKey is { } key)
            request.Headers.TryAddWithoutValidation("Idempotency-Key", key);
        if (preconditions.Version is { } version)
            request.Headers.TryAddWithoutValidation("If-Match", string.Create(CultureInfo.InvariantCulture, $"\"{version}\""));
        return await SendAsync(request, wait, cancellationToken);
    }

    public void Dispose() => _http.Dispose();

    private async Task<Answer> SendAsync(HttpRequestMessage request, TimeSpan wait, CancellationToken cancellationToken)
    {
        using var _ = request;
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        deadline.CancelAfter(wait + answerMargin);
        try
        {
            using var response = await _http.SendAsync(request, deadline.Token);
            var answer = new Answer((int)response.StatusCode, await response.Content.ReadAsByteArrayAsync(deadline.Token));
            return answer.Status < 400 ? answer : throw Problems.Of(answer);
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            throw new ExitException(
                ExitCode.Unavailable,
                $"the agent at {socketPath} did not answer within {(wait + answerMargin).TotalSeconds:0.#} s — it may hang: look at its log{Recorded(request)}");
        }
        catch (HttpRequestException e)
        {
            throw Unreachable(e, request);
        }
        catch (IOException e)
        {
            throw new ExitException(
                ExitCode.Unavailable, $"the connection to the agent was lost ({e.Message}) — look at its log{Recorded(request)}");
        }
    }

    private static async ValueTask<Stream> ConnectAsync(string path, CancellationToken cancellationToken)
    {
        UnixDomainSocketEndPoint address;
        try
        {
            address = new UnixDomainSocketEndPoint(path);
        }
        catch (ArgumentException)
        {
            throw new ExitException(
                ExitCode.BadUsage, $"--socket: '{path}' cannot be a unix socket — give a path of 1 to 107 bytes");
        }

        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(address, cancellationToken);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    private ExitException Unreachable(HttpRequestException e, HttpRequestMessage request)
    {
        for (Exception? cause = e; cause is not null; cause = cause.InnerException)
        {
            if (cause is ExitException known)
                return known;
            if (cause is not SocketException socket)
                continue;
            return socket.SocketErrorCode switch
            {
                SocketError.AccessDenied => new ExitException(
                    ExitCode.NotPermitted, $"not permitted to use the socket {socketPath} — ask for access to it, or use --socket"),
                SocketError.ConnectionRefused => new ExitException(
                    ExitCode.Unavailable, $"no agent listens at {socketPath} — start mountledgerd, or name its socket with --socket"),
                SocketError.AddressNotAvailable => new ExitException(
                    ExitCode.Unavailable, $"there is no socket at {socketPath} — start mountledgerd, or name its socket with --socket"),
                _ => new ExitException(
                    ExitCode.Unavailable,
                    $"the connection to the agent at {socketPath} failed ({socket.Message}) — look at its log{Recorded(request)}"),
            };
        }

        return new ExitException(
            ExitCode.Unavailable,
            $"no usable answer from {socketPath} ({e.Message}) — is it mountledgerd's socket? Look at its log{Recorded(request)}");
    }

    private static string Recorded(HttpRequestMessage request) => request.Method == HttpMethod.Get
        ? ""
        : "; the request may be recorded: 'mountledger history' tells";
}

/// <summary>What a POST may depend on: the version of the mountpoint, and a key that makes it harmless to repeat.</summary>
internal sealed record Preconditions(string? IdempotencyKey, long? Version)
{
    public static readonly Preconditions None = new(null, null);
}

/// <summary>An answer of the agent. <paramref name="Body"/> is JSON as it came.</summary>
internal sealed record Answer(int Status, byte[] Body)
{
    /// <summary>Reads the body; ends the run when it is not what this client understands.</summary>
    public T Read<T>(JsonTypeInfo<T> type)
        where T : class
    {
        try
        {
            return JsonSerializer.Deserialize(Body, type) ?? throw Unreadable("null");
        }
        catch (JsonException e)
        {
            throw Unreadable(e.Message);
        }
    }

    public static ExitException Unreadable(string why) => new(
        ExitCode.Unavailable,
        $"the agent's answer cannot be read ({why}) — is it mountledgerd's socket, and of this client's version? --json shows it raw");
}
