using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using MountLedger.Linux;
using MountLedger.Postgres;

namespace MountLedger.EndToEnd;

/// <summary>
/// <c>mountledgerd</c> as a process, with a directory of its own for socket, state, lock and root. It can be killed, told to
/// stop and started again; disposal leaves no process, no mount and no directory, whatever the test did.
/// </summary>
public sealed class AgentProcess : IAsyncDisposable
{
    public const string HostName = "e2e";

    private static readonly TimeSpan ReadyMax = TimeSpan.FromSeconds(60);
    private static readonly TimeSpan ExitMax = TimeSpan.FromSeconds(60);

    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("mountledger-agent-");
    private readonly Dictionary<string, string> _environment = [];
    private readonly HashSet<int> _workersSeen = [];
    private Process? _process;
    private HttpClient? _http;

    private AgentProcess(string? postgres)
    {
        Postgres = postgres;
        // PostgreSQL's own account has to pass through.
        File.SetUnixFileMode(_directory.FullName, (UnixFileMode)Convert.ToInt32("711", 8));
        Root = Below("mnt");
        _environment["MOUNTLEDGER_LOCK_DIR"] = Path.Combine(_directory.FullName, "lock");
    }

    /// <summary>The connection string that the agent is given; null: it runs a PostgreSQL of its own.</summary>
    public string? Postgres { get; set; }

    public string Root { get; }

    /// <summary>Words before the program's own, when another program is to start it.</summary>
    public IReadOnlyList<string> RunBy { get; set; } = [];

    public string Socket => Path.Combine(_directory.FullName, "sock");

    public string StateDir => Path.Combine(_directory.FullName, "state");

    /// <summary>A program and its arguments that become the agent, by exec: to give it another environment than the test's.</summary>
    public string[] Wrapper { get; set; } = [];

    public int Pid => _process!.Id;

    /// <summary>It has ended, by whomever.</summary>
    public bool HasExited => _process is null or { HasExited: true };

    public HttpClient Http => _http ?? throw new InvalidOperationException("the agent has not been started");

    /// <summary>Everything that all its lives have logged.</summary>
    public string Log => File.Exists(LogFile) ? File.ReadAllText(LogFile) : "";

    /// <summary>Socket, directories, host and ledger as flags.</summary>
    public string[] Flags =>
        ["--state-dir", StateDir, "--socket", Socket, "--root", Root, "--host", HostName, .. Postgres is null ? [] : (string[])["--postgres", Postgres]];

    public string LogFile => Path.Combine(_directory.FullName, "log");

    /// <summary>An agent that takes commands.</summary>
    public static async Task<AgentProcess> StartAsync(string? postgres, Action<Dictionary<string, string>>? environment = null)
    {
        var agent = Create(postgres, environment);
        try
        {
            await agent.StartAgainAsync();
            return agent;
        }
        catch
        {
            await agent.DisposeAsync();
            throw;
        }
    }

    /// <summary>One that has not been launched yet.</summary>
    public static AgentProcess Create(string? postgres, Action<Dictionary<string, string>>? environment = null)
    {
        RootEnvironment.Require();
        var agent = new AgentProcess(postgres);
        environment?.Invoke(agent._environment);
        return agent;
    }

    public string PathOf(string name) => Path.Combine(Root, name);

    /// <summary>A directory outside the root, made when it is missing.</summary>
    public string Below(string name) => Directory.CreateDirectory(Path.Combine(_directory.FullName, name)).FullName;

    /// <summary>An image file with a filesystem that a tool of the system makes.</summary>
    public string Image(string name, long size, params string[] command)
    {
        var path = Path.Combine(Below("images"), name);
        using (var file = File.Create(path)) file.SetLength(size);
        if (command.Length > 0) Shell.Run(command[0], [.. command[1..], path]);
        return path;
    }

    /// <summary>Launches the program and waits until commands are taken.</summary>
    public async Task StartAgainAsync()
    {
        Launch();
        await UntilReadyAsync();
        NoteWorkers();
    }

    /// <summary>Launches the program and waits for nothing.</summary>
    /// <param name="arguments">What it is given; by default the flags of all that this agent has of its own.</param>
    public void Launch(params string[] arguments)
    {
        _http?.Dispose();
        _http = ClientOf(Socket);
        // The shell only opens the log, for the agent and for all that it starts, and becomes the agent.
        var start = new ProcessStartInfo("/bin/sh");
        foreach (var argument in (string[])["-c", "exec \"$@\" >>\"$0\" 2>&1 </dev/null", LogFile, .. RunBy, .. Wrapper, Path.Combine(AppContext.BaseDirectory, "mountledgerd"),
            .. arguments.Length > 0 ? arguments : Flags])
            start.ArgumentList.Add(argument);
        foreach (var (name, value) in _environment) start.Environment[name] = value;
        _process?.Dispose();
        _process = Process.Start(start)!;
    }

    /// <summary>Waits for 200 of /readyz; fails with the log when the agent ends or takes too long.</summary>
    public async Task UntilReadyAsync()
    {
        var started = Stopwatch.GetTimestamp();
        while (true)
        {
            var seen = await ReadyAsync();
            if (seen.Status == 200) return;
            Assert.False(_process!.HasExited, $"the agent ended while it started:\n{Log}");
            Assert.True(Stopwatch.GetElapsedTime(started) < ReadyMax, $"the agent is not ready, last said: {seen.Status} {seen.Text}\n{Log}");
            await Task.Delay(20);
        }
    }

    /// <summary>Status and body of /readyz; 0 when nobody answers.</summary>
    public async Task<(int Status, string Text)> ReadyAsync()
    {
        try
        {
            using var answer = await Http.GetAsync("/readyz");
            return ((int)answer.StatusCode, await answer.Content.ReadAsStringAsync());
        }
        catch (HttpRequestException e)
        {
            return (0, e.Message);
        }
    }

    /// <summary>Waits, a bounded time, until something of the world is so.</summary>
    public async Task UntilAsync(Func<Task<bool>> condition, string what, int secondsMax = 30)
    {
        var started = Stopwatch.GetTimestamp();
        while (!await condition())
        {
            Assert.True(Stopwatch.GetElapsedTime(started) < TimeSpan.FromSeconds(secondsMax), $"never: {what}\n{Log}");
            await Task.Delay(20);
        }
    }

    /// <summary>SIGKILL of the agent alone; its worker and its PostgreSQL are left to notice.</summary>
    public async Task KillAsync()
    {
        NoteWorkers();
        _process!.Kill();
        await _process.WaitForExitAsync();
    }

    /// <summary>SIGKILL of the agent and of its workers.</summary>
    public async Task KillWithWorkersAsync()
    {
        NoteWorkers();
        _process!.Kill();
        KillWorkersSeen();
        await _process.WaitForExitAsync();
    }

    /// <summary>SIGKILL of the workers alone.</summary>
    public void KillWorkers()
    {
        NoteWorkers();
        KillWorkersSeen();
    }

    /// <summary>SIGTERM; returns the exit code.</summary>
    public async Task<int> TerminateAsync()
    {
        NoteWorkers();
        RootSignal.Send(Pid, "TERM");
        return await ExitCodeAsync();
    }

    /// <summary>Waits until the program ends by itself.</summary>
    public async Task<int> ExitCodeAsync()
    {
        using var limit = new CancellationTokenSource(ExitMax);
        try
        {
            await _process!.WaitForExitAsync(limit.Token);
        }
        catch (OperationCanceledException)
        {
            Assert.Fail($"the agent does not end\n{Log}");
        }
        return _process.ExitCode;
    }

    /// <summary>The agent's worker processes, as the process table shows them: whoever is their parent.</summary>
    public IReadOnlyList<int> Workers() => PartsCalled("worker");

    /// <summary>The process that keeps the agent's capabilities; null: there is none.</summary>
    public int? Launcher() => PartsCalled("launcher") is [var pid, ..] ? pid : null;

    /// <summary>Other parts of the same program, by what they were called with: the name of the part, and this agent's root.</summary>
    private List<int> PartsCalled(string name) =>
    [
        .. from directory in Directory.GetDirectories("/proc")
           where char.IsAsciiDigit(Path.GetFileName(directory)[0])
           let pid = int.Parse(Path.GetFileName(directory), CultureInfo.InvariantCulture)
           where IsCalled(pid, name)
           select pid,
    ];

    private bool IsCalled(int pid, string name) =>
        CommandOf(pid) is { Length: > 2 } command && command[1] == name && command.Contains(Root, StringComparer.Ordinal);

    /// <summary>How many descriptors the agent and its workers have open.</summary>
    public int OpenDescriptors() => Workers().Append(Pid).Sum(pid => Directory.GetFileSystemEntries($"/proc/{pid}/fd").Length);

    /// <summary>The agent's own PostgreSQL, if it runs.</summary>
    public int? PostmasterPid()
    {
        var file = Path.Combine(StateDir, "postgres", "data", "postmaster.pid");
        return File.Exists(file) && int.TryParse(File.ReadLines(file).FirstOrDefault(), CultureInfo.InvariantCulture, out var pid)
            && CommandOf(pid).Any(argument => argument.StartsWith(StateDir, StringComparison.Ordinal)) ? pid : null;
    }

    /// <summary>SIGKILL of the own PostgreSQL with all its processes, as when the machine loses power.</summary>
    public async Task KillPostgresAsync()
    {
        if (PostmasterPid() is not { } postmaster) return;
        // A process id may be given to somebody else meanwhile, who has started later.
        var processes = ProcessesOf(postmaster).Append(postmaster).Select(pid => (Pid: pid, Started: StatusOf(pid)?.Started)).ToArray();
        foreach (var (pid, _) in processes.Where(process => IsAlive(process.Pid, process.Started))) KillQuietly(pid);
        foreach (var (pid, started) in processes) await UntilAsync(() => Task.FromResult(!IsAlive(pid, started)), $"PostgreSQL's process {pid} is gone");
    }

    /// <summary>The mounts below the root, parents before children.</summary>
    public ObservedMount[] Mounts() => [.. MountsBelow(Root)];

    public async ValueTask DisposeAsync()
    {
        if (_process is { HasExited: false })
        {
            NoteWorkers();
            _process.Kill();
            await _process.WaitForExitAsync();
        }
        KillLauncher();
        KillWorkersSeen();
        await KillPostgresAsync();
        foreach (var mount in MountsBelow(_directory.FullName).Reverse()) Shell.UnmountLazily(mount.Path);
        _process?.Dispose();
        _http?.Dispose();
        _directory.Delete(recursive: true);
    }

    public static HttpClient ClientOf(string socket) => new(new SocketsHttpHandler
    {
        ConnectCallback = async (_, token) =>
        {
            var connection = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            try
            {
                await connection.ConnectAsync(new UnixDomainSocketEndPoint(socket), token);
                return new NetworkStream(connection, ownsSocket: true);
            }
            catch
            {
                connection.Dispose();
                throw;
            }
        },
    })
    {
        BaseAddress = new Uri("http://localhost"),
        Timeout = TimeSpan.FromSeconds(60),
    };

    private static IEnumerable<ObservedMount> MountsBelow(string directory) =>
        MountInfoReader.Read(out _).Select(entry => entry.Mount).Where(mount => MountPath.IsBelow(mount.Path, directory));

    private void NoteWorkers() => _workersSeen.UnionWith(Workers());

    /// <summary>A launcher ends with its agent, unless the test has stopped it.</summary>
    private void KillLauncher()
    {
        if (Launcher() is { } launcher) KillQuietly(launcher);
    }

    private void KillWorkersSeen()
    {
        // A process id may have been given to somebody else meanwhile, in a long storm also to this agent's own launcher.
        foreach (var pid in _workersSeen.Where(pid => IsCalled(pid, "worker"))) KillQuietly(pid);
    }

    /// <summary>SIGKILL without a program that sends it; a process that has ended already gets none.</summary>
    internal static void KillQuietly(int pid)
    {
        try
        {
            using var process = Process.GetProcessById(pid);
            process.Kill();
        }
        catch (Exception e) when (e is ArgumentException or InvalidOperationException)
        {
            // It is gone already.
        }
    }

    private static IEnumerable<int> ProcessesOf(int parent) =>
        from directory in Directory.GetDirectories("/proc")
        let name = Path.GetFileName(directory)
        where char.IsAsciiDigit(name[0])
        let pid = int.Parse(name, CultureInfo.InvariantCulture)
        where StatusOf(pid) is { } status && status.Parent == parent
        select pid;

    private static bool IsAlive(int pid, long? started) => StatusOf(pid) is { State: not 'Z' } status && status.Started == started;

    /// <summary>proc(5): pid (name) state ppid …, as the 22nd when it started; the name may hold anything.</summary>
    private static (char State, int Parent, long Started)? StatusOf(int pid)
    {
        try
        {
            var text = File.ReadAllText($"/proc/{pid}/stat");
            var fields = text[(text.LastIndexOf(')') + 2)..].Split(' ');
            return (fields[0][0], int.Parse(fields[1], CultureInfo.InvariantCulture), long.Parse(fields[19], CultureInfo.InvariantCulture));
        }
        catch (IOException)
        {
            return null;
        }
    }

    private static string[] CommandOf(int pid)
    {
        try
        {
            return File.ReadAllText($"/proc/{pid}/cmdline").Split('\0');
        }
        catch (IOException)
        {
            return [];
        }
    }
}
