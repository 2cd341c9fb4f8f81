using Microsoft.Extensions.Logging.Abstractions;
using MountLedger.Linux;
using MountLedger.Postgres;

namespace MountLedger.EndToEnd;

/// <summary>
/// A host of its own for one test: a fresh ledger in a real PostgreSQL, a root in a temporary directory, the real worker,
/// and the node that an agent runs. <see cref="CrashAndRestartAsync"/> is what a crash of the agent leaves behind.
/// </summary>
public sealed class TestHost : IAsyncDisposable
{
    private const string HostName = "test";

    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("mountledger-e2e-");
    private readonly string _machineId = Guid.NewGuid().ToString("N");
    private readonly List<HostNode> _dead = [];
    private LedgerDatabase _database = null!;
    private int _command;

    private TestHost()
    {
        Root = Path.Combine(_directory.FullName, "mnt");
        Directory.CreateDirectory(Root);
    }

    public string Root { get; }

    public HostNode Node { get; private set; } = null!;

    public CountingMountHost Kernel { get; private set; } = null!;

    public WorkerMountHost Worker { get; private set; } = null!;

    public PostgresEventStore Store { get; private set; } = null!;

    public string ConnectionString { get; private set; } = "";

    public ExecutorOptions ExecutorOptions { get; init; } = new();

    /// <summary>Null: nobody watches the mount table, so that a test alone decides when the kernel is looked at.</summary>
    public DriftOptions? DriftOptions { get; init; }

    public static async Task<TestHost> StartAsync(PostgresServer server, ExecutorOptions? options = null, DriftOptions? drift = null)
    {
        RootEnvironment.Require();
        var host = new TestHost { ExecutorOptions = options ?? new(), DriftOptions = drift, ConnectionString = await server.CreateLedgerAsync() };
        host._database = LedgerDatabase.Open(host.ConnectionString);
        host.Store = new PostgresEventStore(host._database);
        await host.StartNodeAsync();
        return host;
    }

    public string PathOf(string name) => Path.Combine(Root, name);

    /// <summary>A scratch directory outside the root, for sources.</summary>
    public string Outside(string name)
    {
        var path = Path.Combine(_directory.FullName, name);
        Directory.CreateDirectory(path);
        return path;
    }

    public static MountSpec Tmpfs(string source = "scratch", params string[] options) =>
        new(source, "tmpfs", [.. options.Concat(["nodev", "nosuid"]).Order(StringComparer.Ordinal)]);

    public MountCommand.Mount MountOf(
        string mountpoint, string consumer, string volume = "vol", MountSpec? spec = null, OnFailure onFailure = OnFailure.Forget) =>
        new(NextId(), $"user-{consumer}", new StreamKey(HostName, mountpoint), spec ?? Tmpfs(), new AttachmentKey(volume, consumer), onFailure);

    public MountCommand.Unmount UnmountOf(
        string mountpoint, string consumer, string volume = "vol", UnmountMode mode = UnmountMode.Normal) =>
        new(NextId(), $"user-{consumer}", new StreamKey(HostName, mountpoint), new AttachmentKey(volume, consumer), mode);

    public Task<CommandResult> MountAsync(
        string mountpoint, string consumer, string volume = "vol", MountSpec? spec = null, OnFailure onFailure = OnFailure.Forget) =>
        Node.HandleAsync(MountOf(mountpoint, consumer, volume, spec, onFailure), CancellationToken.None);

    public Task<CommandResult> UnmountAsync(
        string mountpoint, string consumer, string volume = "vol", UnmountMode mode = UnmountMode.Normal) =>
        Node.HandleAsync(UnmountOf(mountpoint, consumer, volume, mode), CancellationToken.None);

    public Task<CommandResult> RemountAsync(string mountpoint, string consumer, params string[] options) => Node.HandleAsync(
        new MountCommand.Remount(
            NextId(), $"user-{consumer}", new StreamKey(HostName, mountpoint), [.. options], ByAdmin: false, new InputPolicy(HostName, [Root])),
        CancellationToken.None);

    public Task<HostState> HostAsync(bool up, string? reason = null) =>
        Node.HandleAsync(new HostCommand(NextId(), "operator", HostName, up, reason));

    public async Task<MountState> StateAsync(string mountpoint) =>
        await Store.LoadAsync(new StreamKey(HostName, mountpoint), CancellationToken.None);

    /// <summary>The stored names of a mountpoint's events, in order.</summary>
    public async Task<string[]> EventsAsync(string mountpoint) =>
        [.. (await Store.ReadStreamAsync(new StreamKey(HostName, mountpoint), 1, CancellationToken.None)).Select(e => e.StoredType)];

    /// <summary>Waits for a state in the ledger itself, not in this process's memory.</summary>
    public async Task<MountState> UntilAsync(string mountpoint, Func<MountState, bool> until, int secondsMax = 30)
    {
        var deadline = DateTime.UtcNow.AddSeconds(secondsMax);
        while (true)
        {
            var state = await StateAsync(mountpoint);
            if (until(state)) return state;
            Assert.True(DateTime.UtcNow < deadline, $"{mountpoint} did not get there: {state.Phase}, error {state.Error?.Message}");
            await Task.Delay(10);
        }
    }

    /// <summary>Waits until something of this process is so.</summary>
    public static async Task UntilAsync(Func<bool> so, string what)
    {
        var deadline = DateTime.UtcNow.AddSeconds(30);
        while (!so())
        {
            Assert.True(DateTime.UtcNow < deadline, $"never: {what}");
            await Task.Delay(10);
        }
    }

    /// <summary>What the kernel has at a path, the first mounted first.</summary>
    public static ObservedMount[] MountsAt(string mountpoint) =>
        [.. MountInfoReader.Read(out _).Select(entry => entry.Mount).Where(mount => mount.Path == mountpoint)];

    /// <summary>
    /// The agent and its worker die without a word, <paramref name="meanwhile"/> happens, and a new agent starts.
    /// </summary>
    public async Task CrashAndRestartAsync(Action? meanwhile = null)
    {
        // What still runs in the dead node's tasks meets a dead worker and a stale epoch: as after a real crash, it can do nothing.
        _dead.Add(Node);
        Node.Journal.Fence();
        await Worker.DisposeAsync();
        meanwhile?.Invoke();
        await StartNodeAsync();
    }

    public async ValueTask DisposeAsync()
    {
        await Node.StopAsync(TimeSpan.FromSeconds(5));
        foreach (var node in _dead.Append(Node)) await node.DisposeAsync();
        await Worker.DisposeAsync();
        await _database.DisposeAsync();
        foreach (var mount in MountInfoReader.Read(out _).Select(entry => entry.Mount).Reverse().Where(mount => MountPath.IsBelow(mount.Path, _directory.FullName)))
            Shell.UnmountLazily(mount.Path);
        _directory.Delete(recursive: true);
    }

    private string NextId() => $"cmd-{Interlocked.Increment(ref _command)}";

    private async Task StartNodeAsync()
    {
        Worker = new WorkerMountHost(
            WorkerOptions.ForThisProgram([Root], Path.Combine(_directory.FullName, "run")) with { OperationDeadline = TimeSpan.FromSeconds(20) });
        await Worker.KillEarlierWorkersAsync(CancellationToken.None);
        await Worker.StartAsync(CancellationToken.None);
        Kernel = new CountingMountHost(Worker);
        var agentId = Guid.NewGuid().ToString();
        var lease = (LeaseResult.Taken)await new HostLease(_database).TakeAsync(
            HostName, agentId, _machineId, Worker.Identity.BootId, 0, TimeSpan.FromSeconds(30), CancellationToken.None);
        Node = new HostNode(
            new AgentIdentity(HostName, agentId, lease.Epoch), Store, Kernel, await Store.LoadHostStateAsync(HostName, CancellationToken.None),
            [Root], TimeProvider.System, NullLogger.Instance, ExecutorOptions, driftOptions: DriftOptions);
        await Node.StartAsync(Task.CompletedTask, CancellationToken.None);
    }
}
