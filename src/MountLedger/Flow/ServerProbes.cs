using System.Collections.Concurrent;

namespace MountLedger;

/// <summary>
/// Asks filesystems whether their servers are alive, and remembers what they said until the look that records it. Asked outside of any
/// turn: a server that hangs makes nobody wait who holds a mountpoint. What cannot block is not asked at all (the host knows).
/// </summary>
public sealed class ServerProbes(IMountHost host, LiveStates live)
{
    /// <summary>How many are asked at the same time; one that hangs takes its place only for the host's deadline, once.</summary>
    private const int AtOnceMax = 4;

    /// <summary>Nobody could ask: the host is busy with others that hang.</summary>
    private const string CannotTell = "EAGAIN";

    private readonly ConcurrentDictionary<string, (ulong? MountId, ServerAnswer Answer)> _last = new(StringComparer.Ordinal);

    /// <summary>What the mount of this state said last; null when nothing is known of it.</summary>
    public ServerAnswer? LastOf(MountState state) =>
        state.Kernel is { } mount && _last.TryGetValue(state.Mountpoint, out var last) && last.MountId == mount.MountId ? last.Answer : null;

    /// <summary>Asks one mount.</summary>
    /// <returns>Null: nobody can tell.</returns>
    public async Task<ServerAnswer?> AskAsync(MountState state, CancellationToken cancellationToken)
    {
        if (!IsInPlace(state)) return null;
        var errno = await host.ProbeAsync(state.Mountpoint, state.Kernel!.MountId, cancellationToken);
        if (errno == CannotTell) return null;
        var answer = new ServerAnswer(errno);
        // Of the many that are well nothing needs to be remembered.
        if (errno is null && !state.Drift.ContainsKey(DriftKind.Stale)) _last.TryRemove(state.Mountpoint, out _);
        else _last[state.Mountpoint] = (state.Kernel!.MountId, answer);
        return answer;
    }

    /// <summary>Asks all, a few at a time, and tells which are not as the ledger says.</summary>
    /// <returns>When all have answered or were given up.</returns>
    public async Task AskAllAsync(Action<string> differs, CancellationToken cancellationToken)
    {
        foreach (var path in _last.Keys.Where(path => live.PresentAt(path)?.Kernel is null)) _last.TryRemove(path, out _);
        using var places = new SemaphoreSlim(AtOnceMax);
        var asked = new List<Task>();
        try
        {
            foreach (var state in live.Present().Where(IsInPlace))
            {
                await places.WaitAsync(cancellationToken);
                var question = AskOneAsync(state);
                if (!question.IsCompletedSuccessfully) asked.Add(question);
            }
        }
        finally
        {
            await Task.WhenAll(asked);
        }

        async Task AskOneAsync(MountState state)
        {
            try
            {
                if (!StaleRules.Compare(state, await AskAsync(state, cancellationToken)).IsEmpty) differs(state.Mountpoint);
            }
            finally
            {
                places.Release();
            }
        }
    }

    /// <summary>Our mount is what the path leads to, as far as the ledger knows; else another one would answer.</summary>
    private bool IsInPlace(MountState state) =>
        state is { Operation: null, Uncertain: false, Kernel: { } mount } && mount.IsOf(host.Identity)
        && !state.Drift.Keys.Any(kind => kind is DriftKind.Missing or DriftKind.Moved or DriftKind.Stacked);
}
