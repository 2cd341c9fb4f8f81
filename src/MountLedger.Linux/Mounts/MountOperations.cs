using System.Collections.Concurrent;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// Mounting and unmounting in this process, each call on the caller's thread for as long as the kernel takes. The worker
/// runs this; the agent reaches it through <see cref="WorkerMountHost"/>. Safe for many threads, as long as no two work on
/// the same mountpoint.
/// </summary>
internal sealed class MountOperations(IReadOnlyList<string> roots, uint directoryMode = MountOperations.DirectoryModeDefault)
{
    /// <summary>rwxr-xr-x</summary>
    public const uint DirectoryModeDefault = 0b111_101_101;

    private const int PreparedMax = 1024;
    private readonly PathWalk walk = new(roots);
    private readonly DirectoryKeeper directories = new(new PathWalk(roots));
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

            var made = ClassicMount.IsNeededFor(plan)
                ? new Prepared(null, ClassicMount.Prepare(plan), plan, mountpoint, null) : Detached(plan, mountpoint);
            prepared[token] = made;
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
                using var leaf = directories.Create(order.Mountpoint, order.DirectoriesToCreate, directoryMode, created);
                return new AttachResult.Attached(AttachTo(ours, leaf), [.. created]);
            }
            catch (KernelFailure failure)
            {
                directories.Remove(order.Mountpoint, created);
                return new AttachResult.Failed(failure.ToError(OperationKind.Mount, tried));
            }
        }
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
            var unmounted = TakeAway(order);
            var removed = directories.Remove(order.Mountpoint, order.DirectoriesToRemove);
            return unmounted ? new UnmountResult.Unmounted([.. removed]) : new UnmountResult.NotMounted([.. removed]);
        }
        catch (KernelFailure failure)
        {
            var error = failure.ToError(OperationKind.Unmount, tried);
            return new UnmountResult.Failed(failure.Number == Errno.EBUSY ? WithHolders(error, order) : error);
        }
    }

    private static Prepared Detached(MountPlan plan, string mountpoint)
    {
        var mount = DetachedMount.Make(plan);
        MountQueryCalls.Describe(mount.Number, out var made);
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
        KernelFailure.ThrowIf(errno, errno == Errno.ENOSPC ? "move_mount: the limit fs.mount-max is reached" : "move_mount");

        // Two real directories can be swapped between look-up and attach, and a stranger can mount there in the same moment:
        // what counts is where the mount has come to be.
        if (MountPlace.Of(mount) is not { } now || (now.Point == ours.Mountpoint && now.IsOn(below))) return ours.MountId;

        // Through our own descriptor this is exactly our mount, wherever it went; lazily, because the descriptor uses it.
        errno = MountCalls.Unmount($"/proc/self/fd/{mount.Number}", MountCalls.MNT_DETACH);
        var outcome = errno == 0 ? "it was taken away again" : $"taking it away failed with {Errno.Name(errno)}";
        throw new KernelFailure(
            Errno.ESTALE, now.Point != ours.Mountpoint
                ? $"the directories were moved while it was attached, it came to be at {now.Point}: {outcome}"
                : $"another mount came first and would have been covered: {outcome}");
    }

    /// <returns>False: it was gone before.</returns>
    private bool TakeAway(UnmountOrder order)
    {
        using var parent = walk.OpenParent(order.Mountpoint, out var leafName, out var problem);
        if (parent is null)
        {
            if (order.MountId is { } lost && MountTable.ById(lost) is { } elsewhere) throw Moved(order, elsewhere);
            if (problem!.Value.Errno is Errno.ENOENT or Errno.ENOTDIR or Errno.ELOOP) return false;
            throw new KernelFailure(problem.Value.Errno, problem.Value.Message);
        }
        if (!KernelInterfaces.HasUniqueIds) return OlderUnmount.TakeAway(order, parent, leafName);

        var top = TopAt(parent, leafName);
        if (order.MountId is { } id && (top is null || top.Value.MountId != id))
        {
            if (MountTable.ById(id) is not { } other) return false;
            if (other.Point != order.Mountpoint) throw Moved(order, other);
            throw new KernelFailure(Errno.EBUSY, "another mount covers it: that one has to go first");
        }
        if (top is null) return false;
        if (order is { Mode: UnmountMode.Lazy, Recursive: false } && top.Value.MountId is { } own)
            RefuseToTakeOthers(own);

        // By the parent's descriptor and the name, never by path: nobody can put another directory in the way.
        var errno = MountCalls.Unmount($"/proc/self/fd/{parent.Number}/{leafName}", FlagsOf(order.Mode));
        if (errno == Errno.EINVAL && TopAt(parent, leafName) is null) return false;
        KernelFailure.ThrowIf(errno, errno == Errno.EBUSY ? "it is in use" : "umount2");
        if (order.MountId is { } gone && MountTable.ById(gone) is not null)
            throw new KernelFailure(Errno.EAGAIN, "another mount was put on top in this moment and was taken away instead");
        return true;
    }

    internal static int FlagsOf(UnmountMode mode) => MountCalls.UMOUNT_NOFOLLOW | mode switch
    {
        UnmountMode.Lazy => MountCalls.MNT_DETACH,
        UnmountMode.Force => MountCalls.MNT_FORCE,
        _ => 0,
    };

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

    private static KernelFailure Moved(UnmountOrder order, MountQueryCalls.MountFacts now) =>
        new(Errno.EINVAL, $"the mount that was made at {order.Mountpoint} is now at {now.Point}: unmount it there by hand");

    private static KernelError WithHolders(KernelError error, UnmountOrder order)
    {
        var oldId = order.MountId is { } id && KernelInterfaces.HasUniqueIds
            ? MountTable.ById(id)?.OldId : (uint?)MountTable.ByPath(order.Mountpoint).FirstOrDefault().Mount?.OldId;
        var holders = oldId is { } known ? HolderSearch.Find(order.Mountpoint, known) : [];
        var text = error.Message;
        if (holders.Length > 0)
            text += $"; held by {string.Join(", ", holders.Select(holder => $"{holder.Command} (pid {holder.Pid}: {string.Join(' ', holder.Uses)})"))}";
        if (HolderSearch.OtherUses(order.Mountpoint, order.MountId) is { } others) text += $"; {others}";
        return error with { Message = text, Holders = holders };
    }

    private static Observation Compared(List<MountTable.Found> mounts, bool exists, MountSpec? wanted) =>
        new([.. mounts.Select(found => wanted is null
            ? found.Mount
            : found.Mount with { Differences = MountComparison.Differences(wanted, found) })], exists);
}
