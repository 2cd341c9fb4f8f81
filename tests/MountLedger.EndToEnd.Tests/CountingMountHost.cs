using System.Collections.Concurrent;
using System.Collections.Immutable;

namespace MountLedger.EndToEnd;

/// <summary>The real kernel, with every operation counted, and a place where a test can hold one up before it begins.</summary>
public sealed class CountingMountHost(IMountHost real) : IMountHost
{
    private readonly ConcurrentDictionary<(string Operation, string Mountpoint), int> _counts = new();

    /// <summary>Awaited before each attach, unmount and remount; completes at once unless a test sets it.</summary>
    public Func<string, string, Task> Before { get; set; } = static (_, _) => Task.CompletedTask;

    /// <summary>Changes what an attach or unmount answers; the operation itself has been done.</summary>
    public Func<string, object, object> After { get; set; } = static (_, result) => result;

    public KernelIdentity Identity => real.Identity;

    public int Mounts => Sum("attach");

    public int Unmounts => Sum("unmount");

    public int MountsAt(string mountpoint) => _counts.GetValueOrDefault(("attach", mountpoint));

    public int RemountsAt(string mountpoint) => _counts.GetValueOrDefault(("remount", mountpoint));

    public int UnmountsAt(string mountpoint) => _counts.GetValueOrDefault(("unmount", mountpoint));

    public Task<Observation> ObserveAsync(string mountpoint, MountSpec? wanted, CancellationToken cancellationToken) =>
        real.ObserveAsync(mountpoint, wanted, cancellationToken);

    public Task<ImmutableArray<ObservedMount>> ListAsync(CancellationToken cancellationToken) => real.ListAsync(cancellationToken);

    public IAsyncEnumerable<MountTableChange> WatchAsync(CancellationToken cancellationToken) => real.WatchAsync(cancellationToken);

    public Task<ObservedMount?> FindAsync(ulong mountId, CancellationToken cancellationToken) => real.FindAsync(mountId, cancellationToken);

    public Task<bool?> HasEntriesAsync(string mountpoint, CancellationToken cancellationToken) => real.HasEntriesAsync(mountpoint, cancellationToken);

    public Task<string?> ProbeAsync(string mountpoint, ulong? mountId, CancellationToken cancellationToken) =>
        real.ProbeAsync(mountpoint, mountId, cancellationToken);

    public Task<PrepareResult> PrepareAsync(string mountpoint, MountSpec spec, CancellationToken cancellationToken) =>
        real.PrepareAsync(mountpoint, spec, cancellationToken);

    public async Task<AttachResult> AttachAsync(PreparedMount prepared, CancellationToken cancellationToken)
    {
        await Before("attach", prepared.Mountpoint);
        Count("attach", prepared.Mountpoint);
        return (AttachResult)After("attach", await real.AttachAsync(prepared, cancellationToken));
    }

    public Task DiscardAsync(PreparedMount prepared) => real.DiscardAsync(prepared);

    public async Task<UnmountResult> UnmountAsync(UnmountOrder order, CancellationToken cancellationToken)
    {
        await Before("unmount", order.Mountpoint);
        var result = await real.UnmountAsync(order, cancellationToken);
        // An order for what is gone already only removes directories.
        if (result is not UnmountResult.NotMounted) Count("unmount", order.Mountpoint);
        return (UnmountResult)After("unmount", result);
    }

    public async Task<RemountResult> RemountAsync(RemountOrder order, CancellationToken cancellationToken)
    {
        await Before("remount", order.Mountpoint);
        Count("remount", order.Mountpoint);
        return (RemountResult)After("remount", await real.RemountAsync(order, cancellationToken));
    }

    public Task QuiesceAsync(string mountpoint, CancellationToken cancellationToken) => real.QuiesceAsync(mountpoint, cancellationToken);

    private void Count(string operation, string mountpoint) =>
        _counts.AddOrUpdate((operation, mountpoint), 1, static (_, count) => count + 1);

    private int Sum(string operation) => _counts.Where(pair => pair.Key.Operation == operation).Sum(pair => pair.Value);
}
