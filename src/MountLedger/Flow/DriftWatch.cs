using System.Threading.Channels;
using Microsoft.Extensions.Logging;

namespace MountLedger;

/// <summary>How the mount table is watched while the agent runs.</summary>
public sealed record DriftOptions
{
    /// <summary>How often the whole table is compared although nothing was told: for what no notification covers (a renamed parent). Infinite: never.</summary>
    public TimeSpan AuditInterval { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>Between the end of a comparison and the next one that a notification asks for; more when a comparison takes long.</summary>
    public TimeSpan AuditPause { get; init; } = TimeSpan.FromMilliseconds(500);

    /// <summary>A stranger's mount that is gone again before this is nobody's business.</summary>
    public TimeSpan ForeignAfter { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>How many foreign mounts are recorded and remembered at most; more than that is somebody else's machine.</summary>
    public int ForeignMax { get; init; } = 1_000;
}

/// <summary>
/// Turns what the kernel tells of its mount table, and what a comparison of all of it finds, into looks at single mountpoints. It decides
/// nothing: each look is a turn of the executor, which records what differs and repairs what may be repaired.
/// </summary>
public sealed class DriftWatch(
    IMountHost host, LiveStates live, MountExecutor executor, DriftCheck check, ServerProbes servers, TimeProvider time, DriftOptions options,
    ILogger logger)
{
    /// <summary>A comparison takes at most this share of the time, 1/20, unless it takes longer than 1.5 s.</summary>
    private const int PauseFactor = 20;

    private static readonly TimeSpan AuditPauseMax = TimeSpan.FromSeconds(30);

    /// <summary>One request is enough, however many ask.</summary>
    private readonly Channel<bool> _auditWanted = Channel.CreateBounded<bool>(1);
    private readonly Lock _lock = new();

    /// <summary>Mounts that others made below a root, bounded: what goes away says only its id.</summary>
    private readonly Dictionary<ulong, Stranger> _strangers = [];

    private long _audits;

    private readonly record struct Stranger(string Path, long SeenAt, bool Told);

    /// <summary>How many times the whole table was compared.</summary>
    public long Audits => Interlocked.Read(ref _audits);

    /// <summary>Watches until the token ends it. <paramref name="changes"/> has been asked for before the first listing.</summary>
    public Task RunAsync(IAsyncEnumerable<MountTableChange> changes, CancellationToken cancellationToken) => Task.WhenAll(
        FollowAsync(changes, cancellationToken), AuditsAsync(cancellationToken), TellOfStrangersAsync(cancellationToken),
        AskServersAsync(cancellationToken));

    /// <summary>Asks for a comparison of everything, soon.</summary>
    public void AuditSoon() => _auditWanted.Writer.TryWrite(true);

    /// <summary>Compares all that the ledger wants with the whole table, and has a look taken at what seems to differ.</summary>
    /// <returns>How many mountpoints are looked at.</returns>
    public async Task<int> AuditAsync(CancellationToken cancellationToken)
    {
        Interlocked.Increment(ref _audits);
        var table = new TableSnapshot(await host.ListAsync(cancellationToken));
        var suspects = 0;
        // An append without an answer may have brought about what is not in memory.
        foreach (var mountpoint in live.Doubtful())
        {
            executor.Examine(mountpoint);
            suspects++;
        }
        foreach (var state in live.Present())
        {
            if (!IsSuspect(state, table)) continue;
            executor.Examine(state.Mountpoint);
            suspects++;
        }
        foreach (var mount in table.Mounts)
        {
            if (mount.MountId is { } id) Notice(id, mount.Path);
        }
        return suspects;
    }

    private bool IsSuspect(MountState state, TableSnapshot table) =>
        // What lies in a directory is not in the table.
        state.Drift.ContainsKey(DriftKind.ShadowedData)
        || !DriftRules.Compare(state, table.SightOf(state, host.Identity), host.Identity, check.MayBeForeign(state)).IsEmpty;

    private async Task FollowAsync(IAsyncEnumerable<MountTableChange> changes, CancellationToken cancellationToken)
    {
        await foreach (var change in changes.WithCancellation(cancellationToken))
        {
            switch (change.Kind)
            {
                case TableChangeKind.Detached: Gone(change.MountId); break;
                case TableChangeKind.Attached when change.Path is { } path: Came(change.MountId, path); break;
                case TableChangeKind.Moved when change.Path is { } path: Moved(change.MountId, path); break;
                default: AuditSoon(); break;
            }
        }
        if (!cancellationToken.IsCancellationRequested) logger.NotWatching(options.AuditInterval.TotalSeconds);
    }

    private void Gone(ulong id)
    {
        // An unmount of ours says itself what becomes of it.
        if (live.MountpointOf(id) is { } ours && live.PresentAt(ours)?.Operation?.Kind != OperationKind.Unmount) executor.Examine(ours);
        Stranger stranger;
        lock (_lock)
        {
            if (!_strangers.Remove(id, out stranger)) return;
        }
        if (stranger.Told || live.PresentAt(stranger.Path) is not null) executor.Examine(stranger.Path);
    }

    private void Came(ulong id, string path)
    {
        if (live.PresentAt(path) is { } state)
        {
            // Our own: recorded before it was attached. On kernels that give no id so early, the operation in flight says so.
            if (state.Operation is { } operation && (operation.MountId is null || operation.MountId == id)) return;
            if (state.Kernel?.MountId == id) return;
            executor.Examine(path);
        }
        Notice(id, path);
    }

    private void Moved(ulong id, string path)
    {
        Gone(id);
        Came(id, path);
        // What is below it came along, and nobody tells of those.
        AuditSoon();
    }

    private void Notice(ulong id, string path)
    {
        // A mount of ours that was moved is no stranger where it came to be.
        if (live.MountpointOf(id) is not null || !check.MayBeForeign(path)) return;
        lock (_lock)
        {
            if (_strangers.Count < options.ForeignMax) _strangers.TryAdd(id, new Stranger(path, time.GetTimestamp(), Told: false));
        }
    }

    /// <summary>Who mounts and unmounts again at once below a root leaves no trace in the ledger.</summary>
    private async Task TellOfStrangersAsync(CancellationToken cancellationToken)
    {
        using var timer = new PeriodicTimer(options.ForeignAfter, time);
        while (await timer.WaitForNextTickAsync(cancellationToken))
        {
            List<string> due = [];
            lock (_lock)
            {
                foreach (var (id, stranger) in _strangers)
                {
                    if (stranger.Told || time.GetElapsedTime(stranger.SeenAt) < options.ForeignAfter) continue;
                    _strangers[id] = stranger with { Told = true };
                    due.Add(stranger.Path);
                }
            }
            foreach (var path in due) executor.Examine(path);
        }
    }

    /// <summary>
    /// The kernel tells nobody that a server died, so they are asked at the pace of the slow audit; beside it, as one may hang. Not when a
    /// notification asks for an audit: many servers would have to answer for each change of the mount table.
    /// </summary>
    private async Task AskServersAsync(CancellationToken cancellationToken)
    {
        await Task.Yield(); // Going through ten thousand mountpoints is nothing that a start waits for.
        while (options.AuditInterval != Timeout.InfiniteTimeSpan)
        {
            try
            {
                await servers.AskAllAsync(executor.Examine, cancellationToken);
            }
            catch (IOException e)
            {
                logger.AuditFailed(e.Message);
            }
            await Task.Delay(options.AuditInterval, time, cancellationToken);
        }
    }

    /// <summary>Until somebody asks for an audit, or the slow one is due.</summary>
    private async Task WantedAsync(CancellationToken cancellationToken)
    {
        using var slow = new CancellationTokenSource(options.AuditInterval, time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(slow.Token, cancellationToken);
        try
        {
            await _auditWanted.Reader.ReadAsync(either.Token);
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            // The slow one.
        }
    }

    private async Task AuditsAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            await WantedAsync(cancellationToken);
            var began = time.GetTimestamp();
            try
            {
                await AuditAsync(cancellationToken);
            }
#pragma warning disable CA1031 // Whatever it was, the next comparison may go well; without them drift would go unseen until a restart.
            catch (Exception e) when (e is not OperationCanceledException)
#pragma warning restore CA1031
            {
                logger.AuditFailed(e.Message);
            }
            // A comparison that took long because this process was stopped, or the machine asleep, must not put off the next one for hours.
            var pause = time.GetElapsedTime(began) * PauseFactor;
            if (pause > AuditPauseMax) pause = AuditPauseMax;
            await Task.Delay(pause > options.AuditPause ? pause : options.AuditPause, time, cancellationToken);
        }
    }
}
