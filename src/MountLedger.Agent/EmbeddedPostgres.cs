using System.Diagnostics;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using MountLedger.Postgres;

namespace MountLedger.Agent;

/// <summary>A server that answers: how it is reached, and where its log files are.</summary>
public sealed record RunningPostgres(string ConnectionString, string LogDirectory);

/// <summary>
/// The agent's own PostgreSQL, used when no connection string is given: a cluster under the state directory, on a unix socket only. It outlives the agent
/// (a crash of the one must not be a crash of the other) and is found again; a clean stop of the agent stops it. Below the state directory:
/// <c>postgres/data</c> (the cluster), <c>postgres/run</c> (the socket), <c>postgres/log</c> (at most about 20 MB).
/// </summary>
public sealed class EmbeddedPostgres : IAsyncDisposable
{
    private const int SocketPathMaxBytes = 107; // unix(7): sun_path holds 108, one of them the final zero
    private const string SocketName = "/.s.PGSQL.5432";
    private const string LogFileSizeMax = "4MB";

    private static readonly TimeSpan InitMax = TimeSpan.FromMinutes(2);
    private static readonly TimeSpan ReadyMax = TimeSpan.FromMinutes(2);
    private static readonly TimeSpan LeftoversMax = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan LastProcessMax = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan PollInterval = TimeSpan.FromMilliseconds(50);

    private readonly string baseDirectory;
    private readonly string dataDirectory;
    private readonly string socketDirectory;
    private readonly string logDirectory;
    private readonly EmbeddedPostgresAccount account;
    private readonly EmbeddedPostgresLogs logs;
    private EmbeddedPostgresBinaries? binaries;

    private EmbeddedPostgres(string stateDirectory, EmbeddedPostgresAccount account)
    {
        baseDirectory = Path.Combine(stateDirectory, "postgres");
        dataDirectory = Path.Combine(baseDirectory, "data");
        logDirectory = Path.Combine(baseDirectory, "log");
        socketDirectory = SocketDirectoryFor(stateDirectory);
        this.account = account;
        logs = new EmbeddedPostgresLogs(logDirectory);
    }

    /// <summary>Of the role and database <c>mountledger</c>; authentication is the permission to enter the socket's directory.</summary>
    public string ConnectionString => ClusterSetup.ConnectionString(socketDirectory);

    /// <summary>The directory of the socket: under the state directory, or a short one when that path is too long for a socket.</summary>
    public string SocketDirectory => socketDirectory;

    /// <summary>Where its log files are.</summary>
    public string LogDirectory => logDirectory;

    /// <summary>The server was running already (an earlier agent died and left it).</summary>
    public bool WasRunning { get; private set; }

    /// <summary>
    /// Returns when the server answers and has the ledger's role and database. Creates the cluster at the first time.
    /// </summary>
    /// <param name="stateDirectory">Absolute; created when it is missing. When the agent is root, others get the permission to pass through it.</param>
    /// <param name="cancellationToken">Gives up waiting; a server that was started stays, and is found by the next start.</param>
    /// <exception cref="EmbeddedPostgresException">PostgreSQL is not installed, does not start, or cannot reach the directory.</exception>
    public static async Task<EmbeddedPostgres> StartAsync(string stateDirectory, CancellationToken cancellationToken)
    {
        Directory.CreateDirectory(stateDirectory);
        var server = await OfAsync(stateDirectory, cancellationToken);
        try
        {
            await server.BringUpAsync(cancellationToken);
            return server;
        }
        catch
        {
            await server.DisposeAsync();
            throw;
        }
    }

    /// <summary>
    /// The server of this state directory, if it is running and answers: for whoever only wants to use it, and at once. Null: it has to be started, or to be
    /// looked for more closely (<see cref="StartAsync"/>).
    /// </summary>
    public static async Task<RunningPostgres?> FindAnsweringAsync(string stateDirectory, CancellationToken cancellationToken)
    {
        var (found, directory) = (Path.Combine(stateDirectory, "postgres"), SocketDirectoryFor(stateDirectory));
        // A directory that others can write to is looked at by who starts the server.
        if (!directory.StartsWith(found + "/", StringComparison.Ordinal) || !File.Exists(directory + SocketName)) return null;
        if ((await ClusterSetup.AskAsync(directory, cancellationToken)).DataDirectory != Path.Combine(found, "data")) return null;
        try
        {
            await ClusterSetup.EnsureLedgerAsync(directory, cancellationToken);
        }
        catch (LedgerUnavailableException)
        {
            return null; // It has ended in this moment.
        }
        return new RunningPostgres(ClusterSetup.ConnectionString(directory), Path.Combine(found, "log"));
    }

    /// <summary>The server of a state directory that is there, running or not: to stop it.</summary>
    /// <exception cref="EmbeddedPostgresException">The directory is not there, or there is no account to run it as.</exception>
    public static async Task<EmbeddedPostgres> OfAsync(string stateDirectory, CancellationToken cancellationToken)
    {
        // Without symbolic links: the server's working directory is compared with it.
        var real = await BoundedProcess.RunAsync(["realpath", "--", stateDirectory], TimeSpan.FromSeconds(10), cancellationToken);
        if (real.ExitCode != 0) throw new EmbeddedPostgresException($"{stateDirectory} cannot be resolved: {real.Output.Trim()}");
        var path = real.Output.TrimEnd('\n');
        return new EmbeddedPostgres(path, await EmbeddedPostgresAccount.ChooseAsync(path, cancellationToken));
    }

    /// <summary>Fast shutdown (sessions are ended, nothing is lost). At the deadline an immediate one, which the next start recovers from.</summary>
    /// <returns>Whether it ended within the deadline by itself.</returns>
    public async Task<bool> StopAsync(TimeSpan deadline, CancellationToken cancellationToken)
    {
        binaries ??= await EmbeddedPostgresBinaries.FindAsync(ReadMajor(), cancellationToken);
        var seconds = Math.Max(1, (int)deadline.TotalSeconds).ToString(CultureInfo.InvariantCulture);
        var fast = await PgCtlAsync("fast", seconds, deadline, cancellationToken);
        var ended = fast.ExitCode == 0 || EmbeddedPostgresProcesses.Of(dataDirectory).Count == 0;
        if (!ended) await PgCtlAsync("immediate", "5", TimeSpan.FromSeconds(5), cancellationToken);
        await WaitForLastProcessAsync(cancellationToken);
        return ended;
    }

    /// <summary>Lets go of the server without stopping it.</summary>
    public ValueTask DisposeAsync() => logs.DisposeAsync();

    /// <summary>
    /// pg_ctl waits for the postmaster's file, which it removes before it ends; the log's collector ends after the postmaster. Whoever asked for a stop may
    /// remove the directory next.
    /// </summary>
    private async Task WaitForLastProcessAsync(CancellationToken cancellationToken)
    {
        var waited = Stopwatch.StartNew();
        while (EmbeddedPostgresProcesses.Of(dataDirectory).Count > 0 && waited.Elapsed < LastProcessMax)
        {
            await Task.Delay(PollInterval, cancellationToken);
        }
    }

    private async Task BringUpAsync(CancellationToken cancellationToken)
    {
        account.OpenWayTo(Path.GetDirectoryName(baseDirectory)!);
        Directory.CreateDirectory(
            baseDirectory,
            UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute
            | (account.IsOther ? UnixFileMode.OtherExecute : UnixFileMode.None));
        await InitialiseAsync(cancellationToken);
        await MakeSocketDirectoryAsync(cancellationToken);
        await account.MakeDirectoryAsync(logDirectory, "0770", cancellationToken);
        logs.Trim();

        WasRunning = await FindRunningAsync(cancellationToken);
        if (!WasRunning) await LaunchAsync(cancellationToken);
        await ClusterSetup.EnsureLedgerAsync(socketDirectory, cancellationToken);
    }

    /// <summary>A cluster appears under its name only when it is complete: what a crash left half-done has another name and is redone.</summary>
    private async Task InitialiseAsync(CancellationToken cancellationToken)
    {
        var unfinished = dataDirectory + ".new";
        if (Directory.Exists(unfinished)) Directory.Delete(unfinished, recursive: true);
        if (Directory.Exists(dataDirectory))
        {
            binaries = await EmbeddedPostgresBinaries.FindAsync(ReadMajor(), cancellationToken);
            return;
        }
        binaries = await EmbeddedPostgresBinaries.FindAsync(requiredMajor: null, cancellationToken);
        await account.MakeDirectoryAsync(unfinished, "0700", cancellationToken);
        var command = account.Command(
            binaries.Path("initdb"), "--pgdata", unfinished, "--username", ClusterSetup.Superuser, "--auth", "trust", "--encoding", "UTF8",
            "--locale", "C", "--data-checksums", "--no-instructions");
        var result = await BoundedProcess.RunAsync(command, InitMax, cancellationToken);
        if (result.ExitCode != 0)
        {
            throw new EmbeddedPostgresException(
                $"PostgreSQL's initdb failed (exit {result.ExitCode}, as {account.Description}) in {unfinished}: {LastLines(result.Output)}");
        }
        Directory.Move(unfinished, dataDirectory);
        // The rename itself has to be durable before anything is acknowledged that is stored below it.
        await BoundedProcess.RunAsync(["sync", baseDirectory], TimeSpan.FromSeconds(30), cancellationToken);
    }

    /// <summary>
    /// Looks for a postmaster on this data directory: by what answers on the socket, and when nobody does, by the processes that work in it.
    /// One that starts or stops is waited for.
    /// </summary>
    private async Task<bool> FindRunningAsync(CancellationToken cancellationToken)
    {
        var waited = Stopwatch.StartNew();
        while (true)
        {
            var answer = await ClusterSetup.AskAsync(socketDirectory, cancellationToken);
            if (answer.DataDirectory == dataDirectory) return true;
            if (answer.DataDirectory is { } other)
            {
                throw new EmbeddedPostgresException(
                    $"a PostgreSQL of another data directory ({other}) listens in {socketDirectory}: stop it");
            }
            var processes = EmbeddedPostgresProcesses.Of(dataDirectory);
            if (processes.Count == 0 && !answer.Starting) break;
            if (waited.Elapsed > (answer.Starting ? ReadyMax : LeftoversMax))
            {
                throw new EmbeddedPostgresException(
                    $"PostgreSQL processes {string.Join(", ", processes)} hold {dataDirectory} and do not answer in {socketDirectory} "
                    + $"({answer.Problem}): end them (kill -QUIT PID) and start again");
            }
            await Task.Delay(PollInterval, cancellationToken);
        }
        // Nobody works in the data directory, so these files are a dead server's. PostgreSQL itself would refuse to start when its process id has
        // been given to another process of the same account, or is still a zombie's.
        File.Delete(Path.Combine(dataDirectory, "postmaster.pid"));
        File.Delete($"{socketDirectory}{SocketName}.lock");
        return false;
    }

    private async Task LaunchAsync(CancellationToken cancellationToken)
    {
        using var process = new Process { StartInfo = BoundedProcess.StartInfo(account.DetachedCommand(ServerCommand())) };
        var output = new BoundedProcess.BoundedText();
        process.OutputDataReceived += (_, line) => output.Add(line.Data);
        process.ErrorDataReceived += (_, line) => output.Add(line.Data);
        process.Start();
        process.StandardInput.Close();
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        var waited = Stopwatch.StartNew();
        while (true)
        {
            var answer = await ClusterSetup.AskAsync(socketDirectory, cancellationToken);
            if (answer.DataDirectory == dataDirectory) return;
            if (process.HasExited)
            {
                throw new EmbeddedPostgresException(
                    $"PostgreSQL did not start (exit {process.ExitCode}, as {account.Description}, log in {logDirectory}): "
                    + LastLines(output + logs.Newest()));
            }
            if (waited.Elapsed > ReadyMax)
            {
                throw new EmbeddedPostgresException(
                    $"PostgreSQL (process {process.Id}) is not ready after {ReadyMax.TotalSeconds:0} s ({answer.Problem}); its log is in {logDirectory}");
            }
            await Task.Delay(PollInterval, cancellationToken);
        }
    }

    private IEnumerable<string> ServerCommand()
    {
        (string Name, string Value)[] settings =
        [
            ("listen_addresses", ""),
            ("unix_socket_directories", $"\"{socketDirectory.Replace("\"", "\"\"", StringComparison.Ordinal)}\""),
            ("port", "5432"), ("max_connections", "100"), ("shared_buffers", "64MB"), ("max_wal_size", "256MB"),
            // Every change of a mountpoint leaves a dead row behind: a minute of them, the default, is fifty times what a busy host has of live ones.
            ("autovacuum_naptime", "5s"),
            ("fsync", "on"), ("synchronous_commit", "on"), ("full_page_writes", "on"), ("jit", "off"), ("timezone", "UTC"),
            ("logging_collector", "on"), ("log_directory", logDirectory), ("log_filename", "server-%Y%m%d-%H%M%S.log"),
            ("log_rotation_size", LogFileSizeMax), ("log_rotation_age", "1d"), ("log_file_mode", "0660"), ("log_timezone", "UTC"),
            // Conflicts are values here and errors are reported by who gets them: statements have no business in the log.
            ("log_min_error_statement", "panic"), ("log_line_prefix", "%m [%p] "),
        ];
        return [binaries!.Path("postgres"), "-D", dataDirectory, .. settings.SelectMany(s => (string[])["-c", $"{s.Name}={s.Value}"])];
    }

    private Task<BoundedProcess.Result> PgCtlAsync(string mode, string seconds, TimeSpan deadline, CancellationToken cancellationToken) =>
        BoundedProcess.RunAsync(
            account.Command(binaries!.Path("pg_ctl"), "stop", "-D", dataDirectory, "-m", mode, "-w", "-t", seconds),
            deadline + TimeSpan.FromSeconds(2), cancellationToken);

    private async Task MakeSocketDirectoryAsync(CancellationToken cancellationToken)
    {
        if (!socketDirectory.StartsWith(baseDirectory + "/", StringComparison.Ordinal)
            && new DirectoryInfo(socketDirectory) is { Exists: true, LinkTarget: not null })
        {
            throw new EmbeddedPostgresException($"{socketDirectory} is a symbolic link that somebody else has put there: remove it");
        }
        await account.MakeDirectoryAsync(socketDirectory, account.IsOther ? "0710" : "0700", cancellationToken);
    }

    private static string SocketDirectoryFor(string stateDirectory)
    {
        var preferred = Path.Combine(stateDirectory, "postgres", "run");
        if (Encoding.UTF8.GetByteCount(preferred + SocketName) <= SocketPathMaxBytes) return preferred;
        var hash = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(stateDirectory)))[..16];
        var runtime = Environment.GetEnvironmentVariable("XDG_RUNTIME_DIR");
        var parent = Environment.IsPrivilegedProcess && Directory.Exists("/run") ? "/run"
            : runtime is { Length: > 0 and < 64 } && Directory.Exists(runtime) ? runtime
            : "/tmp";
        return Path.Combine(parent, $"mountledger-postgres-{hash}");
    }

    private int? ReadMajor()
    {
        var file = Path.Combine(dataDirectory, "PG_VERSION");
        if (File.Exists(file) && int.TryParse(File.ReadAllText(file).Trim(), CultureInfo.InvariantCulture, out var major)) return major;
        throw new EmbeddedPostgresException($"{dataDirectory} is no data directory of PostgreSQL (no PG_VERSION): move it away");
    }

    private static string LastLines(string output) =>
        string.Join(" | ", output.Split('\n', StringSplitOptions.RemoveEmptyEntries).TakeLast(5));
}

/// <summary>The processes that work in a data directory: a postmaster and its children all have it as their working directory.</summary>
internal static class EmbeddedPostgresProcesses
{
    /// <summary>Zombies have none, so a killed server that nobody has waited for is not listed.</summary>
    public static IReadOnlyList<int> Of(string dataDirectory)
    {
        var processes = new List<int>();
        foreach (var entry in Directory.GetDirectories("/proc"))
        {
            if (!int.TryParse(Path.GetFileName(entry), CultureInfo.InvariantCulture, out var pid)) continue;
            try
            {
                if (new FileInfo(Path.Combine(entry, "cwd")).LinkTarget == dataDirectory) processes.Add(pid);
            }
            catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
            {
                // It has ended, or belongs to somebody whose processes we may not look at: not our server.
            }
        }
        return processes;
    }
}
