using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using System.Text;

namespace MountLedger.Bench;

/// <summary>The agent as it is built for release, with a PostgreSQL of its own, in this process's mount namespace.</summary>
internal sealed class AgentUnderTest
{
    private static readonly TimeSpan ReadyMax = TimeSpan.FromMinutes(2);
    private static readonly TimeSpan StopMax = TimeSpan.FromSeconds(40);

    private readonly string program;
    private readonly string directory;
    private readonly Lock gate = new();
    private Process? process;
    private bool isOver;

    private AgentUnderTest(string program, string directory) => (this.program, this.directory) = (program, directory);

    public string Root => Path.Combine(directory, "root");

    public string Socket => Path.Combine(directory, "agent.sock");

    public string StateDirectory => Path.Combine(directory, "state");

    public string PostgresSocket => Path.Combine(StateDirectory, "postgres", "run");

    /// <summary>The agent's own PostgreSQL: the server and all its processes.</summary>
    public IReadOnlyList<int> PostgresPids => ProcessFigures.WorkingIn(Path.Combine(StateDirectory, "postgres", "data"));

    public int Pid => process!.Id;

    /// <summary>The process that touches the kernel, which the agent's launcher starts; 0 when there is none.</summary>
    public int WorkerPid => ProcessFigures.Descendants(Pid).FirstOrDefault(pid => ProcessFigures.Verb(pid) == "worker");

    public static async Task<AgentUnderTest> StartAsync(MeasureContext context, string? directory = null)
    {
        var agent = new AgentUnderTest(
            Path.Combine(context.Options.Artifacts, "mountledgerd"), directory ?? context.Workplace.NewDirectory("a"));
        Directory.CreateDirectory(agent.Root);
        context.Workplace.AtEnd(agent.EndAsync);
        await agent.LaunchAsync();
        return agent;
    }

    /// <summary>
    /// A directory to mount on, which is there before the mount and after the unmount: what the agent is compared with does not make one either.
    /// </summary>
    public void MakeDirectory(string name) => Directory.CreateDirectory($"{Root}/{name}");

    /// <summary>Starts the program, and returns when it takes commands.</summary>
    /// <exception cref="OperationCanceledException">The run ends.</exception>
    public async Task LaunchAsync()
    {
        lock (gate)
        {
            if (isOver) throw new OperationCanceledException("the run ends");
            Launch();
        }
        var waited = Stopwatch.StartNew();
        while (!IsReady())
        {
            if (process!.HasExited) throw new InvalidOperationException($"the agent ended with {process.ExitCode}: {(Log() is [.., var last] ? last : "no log")}");
            if (waited.Elapsed > ReadyMax) throw new InvalidOperationException("the agent is not ready");
            await Task.Delay(2);
        }
    }

    public IReadOnlyList<string> Log()
    {
        var lines = new List<string>();
        using var file = new StreamReader(new FileStream(
            Path.Combine(directory, $"agent-{Pid}.log"), FileMode.Open, FileAccess.Read, FileShare.ReadWrite));
        while (file.ReadLine() is { } line) lines.Add(line);
        return lines;
    }

    public async Task KillAsync()
    {
        process!.Kill();
        await process.WaitForExitAsync();
    }

    /// <summary>Stops the agent in order, which stops its PostgreSQL too.</summary>
    public async ValueTask StopAsync()
    {
        if (process is not { HasExited: false }) return;
        Programs.Run("kill", "-TERM", process.Id.ToString(CultureInfo.InvariantCulture));
        // The process itself, not the end of its output: what it started may hold that open, and is ended by the workplace.
        var ending = process;
        if (!await Task.Run(() => ending.WaitForExit(StopMax))) ending.Kill(entireProcessTree: true);
    }

    /// <summary>A value of the agent's ledger, by SQL.</summary>
    public string Query(MeasureContext context, string sql) => Programs.Must(
        Path.Combine(context.Options.PostgresBin, "psql"), "-h", PostgresSocket, "-U", "postgres", "-d", "mountledger", "-AtqX", "-v", "ON_ERROR_STOP=1", "-c", sql).Trim();

    private void Launch()
    {
        var start = new ProcessStartInfo(
            program,
            ["--state-dir", StateDirectory, "--socket", Socket, "--host", "bench", "--root", Root])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        // An agent that is embedded in a test run is not told apart from this one's by its lock.
        start.Environment["MOUNTLEDGER_LOCK_DIR"] = Path.Combine(directory, "lock");
        process = Process.Start(start)!;
        var log = File.CreateText(Path.Combine(directory, $"agent-{process.Id}.log"));
        log.AutoFlush = true;
        process.OutputDataReceived += (_, line) => Write(log, line.Data);
        process.ErrorDataReceived += (_, line) => Write(log, line.Data);
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
    }

    /// <summary>The end of the run: no agent begins any more.</summary>
    private ValueTask EndAsync()
    {
        lock (gate) isOver = true;
        return StopAsync();
    }

    private bool IsReady()
    {
        try
        {
            using var caller = new Caller(this);
            return caller.Send("GET", "/readyz", null).Status == 200;
        }
        catch (SocketException)
        {
            return false;
        }
    }

    private static void Write(StreamWriter log, string? line)
    {
        if (line is null) return;
        lock (log) log.WriteLine(line);
    }
}

/// <summary>
/// A caller over the agent's socket: one connection that is kept, one request at a time, blocking. Small, because what it costs counts as the
/// agent's.
/// </summary>
internal sealed class Caller : IDisposable
{
    /// <summary>
    /// The patience of what is not measured: the first callers, all at once, need as many new connections to PostgreSQL, and on a loaded machine some of them
    /// are not there in time.
    /// </summary>
    public static readonly TimeSpan Unmeasured = TimeSpan.FromSeconds(30);

    private static readonly TimeSpan RetryDelay = TimeSpan.FromMilliseconds(50);

    private readonly AgentUnderTest agent;
    private readonly Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    private byte[] buffer = new byte[1 << 16];
    private int length;

    public Caller(AgentUnderTest agent)
    {
        this.agent = agent;
        socket.Connect(new UnixDomainSocketEndPoint(agent.Socket));
    }

    /// <summary>For so long a request is repeated that is answered with 503; by default it has failed.</summary>
    public TimeSpan Patience { get; set; }

    public void Dispose() => socket.Dispose();

    public void Mount(string name, string volume = "v", string consumer = "c") => Must(
        "/v1/mounts",
        $$"""{"mountpoint":"{{agent.Root}}/{{name}}","source":"tmpfs","fstype":"tmpfs","options":[],"volume":"{{volume}}","consumer":"{{consumer}}"}""");

    public void Unmount(string name, string volume = "v", string consumer = "c") => Must(
        "/v1/unmounts", $$"""{"mountpoint":"{{agent.Root}}/{{name}}","volume":"{{volume}}","consumer":"{{consumer}}"}""");

    /// <returns>The answer's body is in the caller's buffer until the next one is sent.</returns>
    public (int Status, ReadOnlyMemory<byte> Body) Send(string method, string path, string? json)
    {
        var body = json is null ? [] : Encoding.UTF8.GetBytes(json);
        var head = Encoding.ASCII.GetBytes(
            $"{method} {path} HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\nContent-Length: {body.Length}\r\n\r\n");
        socket.Send([.. head, .. body]);
        return Receive();
    }

    private void Must(string path, string json)
    {
        var start = Stopwatch.GetTimestamp();
        while (Send("POST", path, json) is var (status, answer) && status != 200)
        {
            if (status != 503 || Stopwatch.GetElapsedTime(start) >= Patience) throw new InvalidOperationException($"{path} {json}: {status} {Encoding.UTF8.GetString(answer.Span)}");
            Thread.Sleep(RetryDelay);
        }
    }

    private (int Status, ReadOnlyMemory<byte> Body) Receive()
    {
        length = 0;
        int headEnd;
        while ((headEnd = buffer.AsSpan(0, length).IndexOf("\r\n\r\n"u8)) < 0) More();
        var head = Encoding.ASCII.GetString(buffer, 0, headEnd);
        var status = int.Parse(head.AsSpan(9, 3), CultureInfo.InvariantCulture);
        var start = headEnd + 4;
        var lengthAt = head.IndexOf("Content-Length:", StringComparison.OrdinalIgnoreCase);
        if (lengthAt >= 0)
        {
            var end = start + int.Parse(head.AsSpan(lengthAt + 15).TrimStart() is var rest && rest.IndexOf('\r') is var line and >= 0 ? rest[..line] : rest, CultureInfo.InvariantCulture);
            while (length < end) More();
        }
        else
        {
            while (!buffer.AsSpan(0, length).EndsWith("0\r\n\r\n"u8)) More();
        }
        return (status, buffer.AsMemory(start, length - start));
    }

    private void More()
    {
        if (length == buffer.Length) Array.Resize(ref buffer, 2 * buffer.Length);
        var count = socket.Receive(buffer.AsSpan(length));
        if (count == 0) throw new InvalidOperationException("the agent closed the connection");
        length += count;
    }
}
