using System.Collections.Immutable;

namespace MountLedger.Simulation;

/// <summary>
/// The kernel as one agent reaches it: by a worker that may die or hang. What an agent asks the kernel to do is checked in the same
/// instant: only who has the lease may, and never twice, nor over a mount that is needed.
/// </summary>
internal sealed class SimHost(World world, Machine machine, Life life) : IMountHost
{
    private static readonly TimeSpan OperationDeadline = TimeSpan.FromSeconds(30);

    private SimWorker? _worker;
    private long _token;

    public KernelIdentity Identity { get; } = machine.Kernel;

    /// <summary>How many mounts are made, and neither attached nor thrown away.</summary>
    public int PreparedCount => _worker is { IsDead: false, IsWrittenOff: false } worker ? worker.Prepared.Count : 0;

    public Task<Observation> ObserveAsync(string mountpoint, MountSpec? wanted, CancellationToken cancellationToken) =>
        CallAsync(mountpoint, mayHang: false, () => Seen(mountpoint, wanted), _ => Seen(mountpoint, wanted), cancellationToken);

    public Task<ImmutableArray<ObservedMount>> ListAsync(CancellationToken cancellationToken) =>
        CallAsync("/", mayHang: false, List, _ => List(), cancellationToken);

    public IAsyncEnumerable<MountTableChange> WatchAsync(CancellationToken cancellationToken)
    {
        var told = new Queue<MountTableChange>();
        TaskCompletionSource? waits = null;
        void Watcher(MountTableChange change)
        {
            told.Enqueue(change);
            waits?.TrySetResult();
        }
        machine.Watchers.Add(Watcher);
        life.OnDeath(() => machine.Watchers.Remove(Watcher));
        return ReadAsync();

        // Not a channel: its enumerator goes on wherever it likes, and here everything happens in the life that asked.
        async IAsyncEnumerable<MountTableChange> ReadAsync()
        {
            while (true)
            {
                while (told.TryDequeue(out var change)) yield return change;
                waits = new TaskCompletionSource();
                using var end = cancellationToken.Register(() => waits.TrySetCanceled(cancellationToken));
                await waits.Task;
            }
        }
    }

    public Task<PrepareResult> PrepareAsync(string mountpoint, MountSpec spec, CancellationToken cancellationToken)
    {
        var worker = Worker();
        return CallAsync<PrepareResult>(mountpoint, mayHang: true, () =>
        {
            var seen = Seen(mountpoint, spec);
            if (seen.Top is not null) return new PrepareResult.Occupied(seen);
            if (world.Dice.Percent(world.Faults.PrepareFailsPercent))
                return new PrepareResult.Failed(KernelError.Of(OperationKind.Mount, "ENOENT", "the source is missing", transient: true));
            var id = world.NextMountId();
            var token = ++_token;
            worker.Prepared.Add(token, id);
            return new PrepareResult.Ready(new PreparedMount(token, mountpoint, spec, IdOf(id), []));
        },
        why => new PrepareResult.Failed(KernelError.Of(OperationKind.Mount, "ECONNRESET", why, transient: true)), cancellationToken, worker);
    }

    public Task<AttachResult> AttachAsync(PreparedMount prepared, CancellationToken cancellationToken)
    {
        world.BeginsToAct(life, machine, $"attach {prepared.Mountpoint}");
        if (machine.Workers.Find(worker => worker.Agent == life && worker.Prepared.ContainsKey(prepared.Token)) is not { } worker)
            return Task.FromResult<AttachResult>(new AttachResult.Unknown("the worker that prepared it is gone"));
        return CallAsync<AttachResult>(prepared.Mountpoint, mayHang: true, () =>
        {
            if (!worker.Prepared.Remove(prepared.Token, out var id))
                return new AttachResult.Failed(KernelError.Of(OperationKind.Mount, "ESTALE", "not prepared", transient: true));
            if (machine.At(prepared.Mountpoint).FirstOrDefault() is { } top)
            {
                world.AttachedOver(machine, top);
                return new AttachResult.Failed(KernelError.Of(OperationKind.Mount, "EBUSY", $"{top.Id} is there", transient: true));
            }
            if (world.Dice.Percent(world.Faults.AttachFailsPercent))
                return new AttachResult.Failed(KernelError.Of(OperationKind.Mount, "ENOSPC", "no space", transient: true));
            var mount = machine.Attach(id, prepared.Mountpoint, prepared.Spec, ours: true);
            world.Attached(life, machine, mount);
            return new AttachResult.Attached(IdOf(id), []);
        },
        why => new AttachResult.Unknown(why), cancellationToken, worker);
    }

    public Task DiscardAsync(PreparedMount prepared)
    {
        foreach (var worker in machine.Workers.Where(worker => worker.Agent == life)) worker.Prepared.Remove(prepared.Token);
        return Task.CompletedTask;
    }

    public Task<RemountResult> RemountAsync(RemountOrder order, CancellationToken cancellationToken)
    {
        world.BeginsToAct(life, machine, $"remount {order.Mountpoint}");
        return CallAsync<RemountResult>(order.Mountpoint, mayHang: true, () =>
        {
            if (machine.At(order.Mountpoint).FirstOrDefault() is not { } top || (order.MountId is { } id && top.Id != id))
                return new RemountResult.Failed(KernelError.Of(OperationKind.Remount, "EINVAL", "it is covered, or elsewhere", transient: false));
            if (world.Dice.Percent(world.Faults.AttachFailsPercent))
                return new RemountResult.Failed(KernelError.Of(OperationKind.Remount, "EINVAL", "not with these options", transient: false));
            top.Spec = order.After;
            return new RemountResult.Remounted();
        },
        why => new RemountResult.Unknown(why), cancellationToken);
    }

    public Task<UnmountResult> UnmountAsync(UnmountOrder order, CancellationToken cancellationToken)
    {
        if (order.MountId != UnmountOrder.NoMount) world.BeginsToAct(life, machine, $"unmount {order.Mountpoint}");
        return CallAsync<UnmountResult>(order.Mountpoint, mayHang: true, () =>
        {
            if (order.MountId == UnmountOrder.NoMount) return new UnmountResult.NotMounted([]);
            UnmountResult Busy(string why) =>
                new UnmountResult.Failed(KernelError.Of(OperationKind.Unmount, "EBUSY", why, transient: true));

            var top = machine.At(order.Mountpoint).FirstOrDefault();
            if (order.MountId is { } id && top?.Id != id)
                return machine.Table.Exists(mount => mount.Id == id) ? Busy("it is covered, or elsewhere") : new UnmountResult.NotMounted([]);
            if (top is null) return new UnmountResult.NotMounted([]);
            if (machine.Table.Exists(mount => mount.Below == top))
            {
                world.UnmountedUnder(machine, top);
                return Busy("something is mounted on it");
            }
            if (top.IsPinned && order.Mode != UnmountMode.Lazy) return Busy("a process uses it");
            machine.TakeAway(top);
            world.Unmounted(life, machine, top);
            return new UnmountResult.Unmounted([]);
        },
        why => new UnmountResult.Unknown(why), cancellationToken);
    }

    public async Task QuiesceAsync(string mountpoint, CancellationToken cancellationToken)
    {
        foreach (var worker in machine.Workers.Where(worker => worker.Agent == life && worker.IsAt(mountpoint)).ToArray()) worker.Kill();
        var dead = new TaskCompletionSource();
        world.Scheduler.After(world.Outside, world.Dice.Millis(1, 20), () => dead.TrySetResult());
        await dead.Task;
    }

    /// <summary>What an agent does first: nothing of the agents before it may act any more.</summary>
    public void KillEarlierWorkers()
    {
        foreach (var worker in machine.Workers.Where(worker => worker.Agent != life).ToArray()) worker.Kill();
    }

    private ulong? IdOf(ulong id) => world.HasUniqueIds ? id : null;

    private SimWorker Worker()
    {
        if (_worker is { IsDead: false, IsWrittenOff: false } ready) return ready;
        _worker = new SimWorker(machine, life);
        machine.Workers.Add(_worker);
        return _worker;
    }

    /// <summary>The call takes effect at one instant, if its worker lives until then.</summary>
    private Task<T> CallAsync<T>(
        string mountpoint, bool mayHang, Func<T> effect, Func<string, T> unknown, CancellationToken cancellationToken, SimWorker? by = null)
    {
        var worker = by ?? Worker();
        var done = new TaskCompletionSource<T>();
        if (cancellationToken.CanBeCanceled) cancellationToken.Register(() => done.TrySetCanceled(cancellationToken));
        var call = new SimWorker.Call(mountpoint, () => world.Scheduler.After(
            world.Outside, world.Dice.Millis(0, 3), () => done.TrySetResult(unknown("the worker died while it was at it"))));
        worker.Begin(call);

        var hangs = mayHang && world.Dice.Percent(world.Faults.HangPercent);
        var effectAt = hangs ? world.Dice.Millis(31_000, 90_000) : world.Dice.Latency(world.Faults.SlowKernelPercent);
        if (hangs)
        {
            world.Scheduler.After(world.Outside, OperationDeadline, () =>
            {
                if (worker.IsDead) return;
                worker.IsWrittenOff = true;
                done.TrySetResult(unknown("no answer from the worker in time"));
            });
        }
        world.Scheduler.After(world.Outside, effectAt, () =>
        {
            if (worker.IsDead) return;
            var result = effect();
            world.Scheduler.After(world.Outside, world.Dice.Micros(20, 300), () =>
            {
                if (worker.IsDead) return;
                worker.End(call);
                if (done.TrySetResult(result) && result is AttachResult or UnmountResult or RemountResult) world.OutcomeKnown(life, mountpoint);
            });
        });
        return done.Task;
    }

    private Observation Seen(string mountpoint, MountSpec? wanted) =>
        new([.. machine.At(mountpoint).Select(mount => Observed(mount, wanted))], true);

    private ImmutableArray<ObservedMount> List() => [.. machine.Table.Select(mount => Observed(mount, null))];

    private ObservedMount Observed(SimMount mount, MountSpec? wanted) => new(
        IdOf(mount.Id), (int)mount.Id, (int)(mount.Below?.Id ?? 1), mount.Path, mount.Spec.FsType, mount.Spec.Source, "/",
        [.. mount.Spec.Options.Where(option => !option.Contains('=', StringComparison.Ordinal))],
        [.. mount.Spec.Options.Where(option => option.Contains('=', StringComparison.Ordinal))],
        wanted is null ? null : [.. wanted.DifferencesFrom(mount.Spec)]);
}
