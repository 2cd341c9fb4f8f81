using System.Collections.Concurrent;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// Mounting and unmounting in this process, each call on the caller's thread for as long as the kernel takes. The worker
/// runs this; the agent reaches it through <see cref="WorkerMountHost"/>. Safe for many threads, as long as no two work on
/// the same mountpoint.
/// </summary>
/// <param name="roots">Directories below which mountpoints may lie.</param>
/// <param name="directoryAttributes">What directories that are made for mountpoints get; null: the default.</param>
/// <param name="helpers">How mount helpers are run; null: none are.</param>
internal sealed class MountOperations(
    IReadOnlyList<string> roots, DirectoryAttributes? directoryAttributes = null, HelperOptions? helpers = null)
{
    private const int PreparedMax = 1024;
    private readonly HelperMount? helperMount = helpers is null ? null : new HelperMount(helpers);
    private readonly PathWalk walk = new(roots);
    private readonly DirectoryKeeper directories = new(new PathWalk(roots), directoryAttributes ?? DirectoryAttributes.Default);
    private readonly ConcurrentDictionary<long, Prepared> prepared = new();

    /// <summary>Either a mount that is attached nowhere, or all that <see cref="ClassicMount"/> needs to make one.</summary>
    private sealed record Prepared(Descriptor? Mount, ClassicMount? Classic, MountPlan Plan, string Mountpoint, ulong? MountId) : IDisposable
    {
        public void Dispose()
        {
            Mount?.Dispose();
            Classic?.Dispose();
        }
    }

    /// <summary>The directories below which mountpoints may lie.</summary>
    public IReadOnlyList<string> Roots => roots;

    /// <summary>Where programs that mount are looked for.</summary>
    public IReadOnlyList<string> HelperDirectories => helpers?.Directories ?? [];

    /// <summary>How many mounts are made and neither attached nor thrown away.</summary>
    public int PreparedCount => prepared.Count;

    /// <inheritdoc cref="IMountHost.ObserveAsync"/>
    public Observation Observe(string mountpoint, MountSpec? wanted)
    {
        using var directory = walk.Open(mountpoint, out var problem);
        if (directory is not null && MountQueryCalls.Describe(directory.Number, out var facts) == 0)
            return Compared(MountTable.At(mountpoint, facts), true, wanted);
        // Nothing can be mounted at a path that does not exist, or leads through a link or a file. Any other error (a dead
        // server above, say) tells nothing about the path: the table does.
        return problem?.Errno is Errno.ENOENT or Errno.ELOOP or Errno.ENOTDIR
            ? new Observation([], false)
            : Compared(MountTable.ByPath(mountpoint), true, wanted);
    }

    /// <summary>
    /// Asks the filesystem itself for the attributes of its root, which takes as long as its server does: only for a worker that
    /// nobody waits for.
    /// </summary>
    /// <returns>Null when it answers, else the name of the error.</returns>
    public string? Probe(string mountpoint)
    {
        using var directory = walk.Open(mountpoint, out var problem);
        var errno = directory is null ? problem!.Value.Errno : MountQueryCalls.Touch(directory.Number);
        return errno == 0 ? null : Errno.Name(errno);
    }

    /// <inheritdoc cref="IMountHost.PrepareAsync"/>
    /// <param name="token">Chosen by the caller, unique in this process's life.</param>
    public PrepareResult Prepare(long token, string mountpoint, MountSpec spec)
    {
        var plan = MountPlan.Of(spec);
        var tried = plan.Describe(mountpoint);
        try
        {
            if (prepared.Count >= PreparedMax)
                throw new KernelFailure(Errno.ENFILE, $"{PreparedMax} mounts are prepared and not attached: something is stuck");
            if (walk.OpenDeepest(mountpoint, out var problem) is not { } reach)
                throw new KernelFailure(problem!.Value.Errno, problem.Value.Message);
            using var deepest = reach.Found;
            KernelFailure.ThrowIf(MountQueryCalls.Describe(deepest.Number, out var facts), "the mountpoint cannot be examined");
            if (reach.Missing.Count == 0 && facts.IsMountRoot)
                return new PrepareResult.Occupied(Compared(MountTable.At(mountpoint, facts), true, spec));

            if (spec.FsType == "overlay")
                SharedFilesystem.RefuseSharedLayers(plan, prepared.Values.Select(other => (other.Mountpoint, other.Plan)));
            KillPoint.Reached("worker-before-make");
            var made = MadeFor(plan, mountpoint);
            prepared[token] = made;
            KillPoint.Reached("worker-made");
            return new PrepareResult.Ready(new PreparedMount(token, mountpoint, spec, made.MountId, [.. reach.Missing]));
        }
        catch (KernelFailure failure)
        {
            return new PrepareResult.Failed(failure.ToError(OperationKind.Mount, tried));
        }
    }

    /// <inheritdoc cref="IMountHost.AttachAsync"/>
    public AttachResult Attach(PreparedMount order)
    {
        var tried = MountPlan.Of(order.Spec).Describe(order.Mountpoint);
        if (!prepared.TryRemove(order.Token, out var ours) || ours.Mountpoint != order.Mountpoint)
        {
            ours?.Dispose();
            return new AttachResult.Failed(KernelFailure.Error(
                OperationKind.Mount, Errno.ESTALE, tried, "this worker holds no such prepared mount: prepare it again"));
        }
        using (ours)
        {
            var created = new List<string>();
            try
            {
                using var leaf = directories.Create(order.Mountpoint, created);
                KillPoint.Reached("worker-directories-made");
                var overEmpty = created.Contains(order.Mountpoint) || DirectoryEntries.Any(leaf) == false;
                return new AttachResult.Attached(AttachTo(ours, leaf), [.. created], overEmpty);
            }
            catch (KernelFailure failure)
            {
                directories.Remove(order.Mountpoint, created);
                return new AttachResult.Failed(failure.ToError(OperationKind.Mount, tried));
            }
        }
    }

    /// <inheritdoc cref="IMountHost.HasEntriesAsync"/>
    public bool? HasEntries(string mountpoint)
    {
        using var directory = walk.Open(mountpoint, out var problem);
        if (directory is null) return problem?.Errno == Errno.ENOENT ? false : null;
        // A mount that has come meanwhile has content of its own.
        return MountQueryCalls.Describe(directory.Number, out var facts) != 0 || facts.IsMountRoot ? null : DirectoryEntries.Any(directory);
    }

    /// <inheritdoc cref="IMountHost.DiscardAsync"/>
    public void Discard(long token)
    {
        if (prepared.TryRemove(token, out var ours)) ours.Dispose();
    }

    /// <inheritdoc cref="IMountHost.UnmountAsync"/>
    public UnmountResult Unmount(UnmountOrder order)
    {
        var tried = $"unmount {order.Mountpoint}";
        try
        {
            KillPoint.Reached("worker-before-unmount");
            var unmounted = TakeAwayUnlessWeHoldIt(order);
            KillPoint.Reached("worker-unmounted");
            var removed = directories.Remove(order.Mountpoint, order.DirectoriesToRemove);
            KillPoint.Reached("worker-directories-removed");
            return unmounted ? new UnmountResult.Unmounted([.. removed]) : new UnmountResult.NotMounted([.. removed]);
        }
        catch (KernelFailure failure)
        {
            var error = failure.ToError(OperationKind.Unmount, tried);
            return new UnmountResult.Failed(failure.Number == Errno.EBUSY ? WithHolders(error, order) : error);
        }
    }

    /// <inheritdoc cref="IMountHost.RemountAsync"/>
    public RemountResult Change(RemountOrder order) => new Remount(walk).Run(order);

    private Prepared MadeFor(MountPlan plan, string mountpoint)
    {
        var byHelper = helperMount?.Mounts(plan.Spec.FsType) == true;
        if (byHelper && !(KernelInterfaces.HasDetachedMounts && KernelInterfaces.HasMountSetattr))
            throw new KernelFailure(
                Errno.ENOSYS, "what a program mounts is put into place with open_tree, mount_setattr and move_mount (Linux 5.12)");
        if (!byHelper && ClassicMount.IsNeededFor(plan)) return new Prepared(null, ClassicMount.Prepare(plan), plan, mountpoint, null);
        var mount = byHelper ? helperMount!.Make(plan) : DetachedMount.Make(plan);
        var errno = MountQueryCalls.Describe(mount.Number, out var made);
        if (errno != 0)
        {
            // Without its id it could later not be told from a foreign one.
            mount.Dispose();
            throw new KernelFailure(errno, "the new mount cannot be examined");
        }
        return new Prepared(mount, null, plan, mountpoint, made.MountId);
    }

    /// <returns>The mount's unique id, where the kernel has those.</returns>
    private static ulong? AttachTo(Prepared ours, Descriptor leaf)
    {
        KernelFailure.ThrowIf(MountQueryCalls.Describe(leaf.Number, out var below), "the mountpoint cannot be examined");
        if (below.IsMountRoot) throw new KernelFailure(Errno.EBUSY, "something has been mounted there meanwhile: never stacked");
        if (ours.Classic is { } classic) return classic.MountOnto(leaf, below, ours.Mountpoint);
        var mount = ours.Mount!;
        var errno = MountCalls.Attach(mount.Number, leaf.Number);
        KillPoint.Reached("worker-attached");
        KernelFailure.ThrowIf(errno, errno == Errno.ENOSPC ? "move_mount: the limit fs.mount-max is reached" : "move_mount");

        // Two real directories can be swapped between look-up and attach, and a stranger can mount there in the same moment:
        // what counts is where the mount has come to be.
        MountPlace? place;
        try
        {
            place = MountPlace.Of(mount);
        }
        catch (KernelFailure unseen)
        {
            throw new KernelFailure(unseen.Number, $"{unseen.Message}, and where it came to be is not known: {TakeBack(mount)}");
        }
        KillPoint.Reached("worker-read-back");
        if (place is not { } now || (now.Point == ours.Mountpoint && now.IsOn(below))) return ours.MountId;
        throw new KernelFailure(
            Errno.ESTALE, now.Point != ours.Mountpoint
                ? $"the directories were moved while it was attached, it came to be at {now.Point}: {TakeBack(mount)}"
                : $"another mount came first and would have been covered: {TakeBack(mount)}");
    }

    /// <summary>Through our own descriptor this is exactly our mount, wherever it went; lazily, because the descriptor uses it.</summary>
    private static string TakeBack(Descriptor mount)
    {
        var path = $"/proc/self/fd/{mount.Number}";
        var errno = MountCalls.Unmount(path, MountCalls.MNT_DETACH);
        if (errno != 0) errno = MountCalls.Unmount(path, MountCalls.MNT_DETACH);
        return errno == 0 ? "it was taken away again" : throw new MountLeftBehindException($"a mount in the wrong place could not be taken away again: {Errno.Name(errno)}");
    }

    /// <summary>
    /// Another request of this process that looks at something in the mount (a status, a mount below it) holds it for a
    /// moment. Nobody outside is told that it is busy because of us.
    /// </summary>
    private bool TakeAwayUnlessWeHoldIt(UnmountOrder order)
    {
        const int AttemptsBeforeLook = 3;
        const int AttemptsAlways = 12;
        const int AttemptsMax = 250;
        const int PauseMs = 2;
        var seenAt = 0;
        for (var attempt = 1; ; attempt++)
        {
            try
            {
                return TakeAway(order);
            }
            catch (KernelFailure busy) when (busy.Number == Errno.EBUSY && attempt < AttemptsMax)
            {
                // Whoever it was may have let go before we can look: so a few tries are made in any case, and a few more since we were seen to hold it.
                if (attempt > AttemptsBeforeLook && TargetOf(order) is { } target && HolderSearch.IsHeldByThisProcess(target.OldId)) seenAt = attempt;
                if (attempt - seenAt > AttemptsAlways) throw;
                Thread.Sleep(PauseMs);
            }
        }
    }

    /// <returns>False: it was gone before.</returns>
    private bool TakeAway(UnmountOrder order)
    {
        using var parent = walk.OpenParent(order.Mountpoint, out var leafName, out var problem);
        if (parent is null)
        {
            if (order.MountId is { } lost && KernelInterfaces.HasUniqueIds && MountTable.ById(lost) is { } elsewhere) throw OutOfReach(order, elsewhere, problem!.Value.Message);
            if (problem!.Value.Errno is Errno.ENOENT or Errno.ENOTDIR or Errno.ELOOP) return false;
            throw new KernelFailure(problem.Value.Errno, problem.Value.Message);
        }
        if (!KernelInterfaces.HasUniqueIds) return OlderUnmount.TakeAway(order, parent, leafName);

        var top = TopAt(parent, leafName);
        if (order.MountId is { } id && (top is null || top.Value.MountId != id))
        {
            if (MountTable.ById(id) is not { } other) return false;
            if (top is null || other.Point != order.Mountpoint) throw OutOfReach(order, other, "the path does not lead to it");
            throw new KernelFailure(Errno.EBUSY, $"another mount covers it ({Named(top.Value)}): that one has to go first");
        }
        if (top is null) return false;
        if (top.Value.MountId is { } own) DealWithChildren(order, own);

        // By the parent's descriptor and the name, never by path: nobody can put another directory in the way.
        var errno = UnmountEscalation.Unmount($"/proc/self/fd/{parent.Number}/{leafName}", order.Mode, top.Value.MountId);
        if (errno == Errno.EINVAL && TopAt(parent, leafName) is null) return false;
        KernelFailure.ThrowIf(errno, errno == Errno.EBUSY ? "it is in use" : "umount2");
        if (order.MountId is { } gone && MountTable.ById(gone) is not null)
            throw new KernelFailure(Errno.EAGAIN, "another mount was put on top in this moment and was taken away instead");
        return true;
    }

    private void DealWithChildren(UnmountOrder order, ulong own)
    {
        if (order.RecursiveSource is { } source)
        {
            // Asked before anything is taken away, so that it is all or nothing as far as that can be told.
            var children = RecursiveBind.Children(order.Mountpoint, own, source);
            if (order.Mode == UnmountMode.Lazy) return;
            foreach (var (path, id) in children) TakeAway(new UnmountOrder(path, id, order.Mode, []));
        }
        else if (order.Mode == UnmountMode.Lazy)
        {
            RefuseToTakeOthers(own);
        }
    }

    /// <summary>A lazy unmount detaches the whole tree, and what others mounted below is not ours to take.</summary>
    private static void RefuseToTakeOthers(ulong own)
    {
        const int ShownMax = 8;
        var below = new List<ulong>();
        MountQueryCalls.List(own, ShownMax, below);
        var points = below.Select(id => MountTable.ById(id)?.Point).OfType<string>().ToList();
        if (points.Count > 0)
            throw new KernelFailure(Errno.EBUSY, $"a lazy unmount would take other mounts along ({string.Join(", ", points)}): unmount those first");
    }

    /// <summary>The topmost mount at a name, or null when that is no mount.</summary>
    internal static MountQueryCalls.FileFacts? TopAt(Descriptor parent, string name)
    {
        using var leaf = PathWalk.OpenChild(parent, name, out var errno);
        if (leaf is null)
            return errno is Errno.ENOENT or Errno.ELOOP or Errno.ENOTDIR ? null : throw new KernelFailure(errno, "the mountpoint cannot be opened");
        KernelFailure.ThrowIf(MountQueryCalls.Describe(leaf.Number, out var facts), "the mountpoint cannot be examined");
        return facts.IsMountRoot ? facts : null;
    }

    /// <summary>The mount exists, and its path does not lead to it.</summary>
    private static KernelFailure OutOfReach(UnmountOrder order, MountQueryCalls.MountFacts now, string why) => now.Point == order.Mountpoint
        ? new(Errno.EAGAIN, $"the mount is there, but {why}: something is changing the path or covers it")
        : new(Errno.EINVAL, $"the mount that was made at {order.Mountpoint} is now at {now.Point ?? "a place that cannot be reached"}: unmount it there by hand");

    private static string Named(MountQueryCalls.FileFacts top) =>
        top.MountId is { } id && MountTable.ById(id) is { } facts ? ObservedMount.Describe(facts.FsType, facts.Source) : "of an unknown kind";

    private static KernelError WithHolders(KernelError error, UnmountOrder order)
    {
        if (TargetOf(order) is not { } target) return error;
        var (holders, others) = HolderSearch.Find(target);
        var text = error.Message;
        if (holders.Length > 0)
            text += $"; held by {string.Join(", ", holders.Select(holder => $"{holder.Command} (pid {holder.Pid}: {string.Join(' ', holder.Uses)})"))}";
        if (others is not null) text += $"; {others}";
        return error with { Message = text, Holders = holders };
    }

    /// <summary>The mount of an order, for a search; null when it cannot be told which one that is.</summary>
    private static HolderSearch.Target? TargetOf(UnmountOrder order)
    {
        if (order.MountId is { } id && KernelInterfaces.HasUniqueIds)
        {
            return MountQueryCalls.Look(id, MountQueryCalls.Everything, out var facts) == 0 && facts is not null
                ? new(order.Mountpoint, facts.OldId, id, facts.DeviceMajor, facts.DeviceMinor, facts.PeerGroup) : null;
        }
        return MountTable.ByPath(order.Mountpoint) is [var top, ..]
            ? new(order.Mountpoint, (uint)top.Mount.OldId, top.Mount.MountId, top.DeviceMajor, top.DeviceMinor, PeerGroup: 0) : null;
    }

    private static Observation Compared(List<MountTable.Found> mounts, bool exists, MountSpec? wanted) =>
        new([.. mounts.Select(found => wanted is null
            ? found.Mount
            : found.Mount with { Differences = MountComparison.Differences(wanted, found) })], exists);
}
