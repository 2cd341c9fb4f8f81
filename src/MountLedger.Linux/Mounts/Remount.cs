using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// Changes the options of a mount through a descriptor of its root: those of the filesystem by fspick and a reconfiguration,
/// those of the mount by mount_setattr. What can fail for good reason comes first, and a later failure puts it back.
/// </summary>
internal sealed class Remount(PathWalk walk)
{
    private const ulong Settable =
        MountCalls.MOUNT_ATTR_RDONLY | MountCalls.MOUNT_ATTR_NOSUID | MountCalls.MOUNT_ATTR_NODEV | MountCalls.MOUNT_ATTR_NOEXEC
        | MountCalls.MOUNT_ATTR_ATIME_MASK | MountCalls.MOUNT_ATTR_NODIRATIME | MountCalls.MOUNT_ATTR_NOSYMFOLLOW;

    /// <inheritdoc cref="IMountHost.RemountAsync"/>
    public RemountResult Run(RemountOrder order)
    {
        var tried = MountPlan.Of(order.After).Describe(order.Mountpoint).Replace("mount ", "remount ", StringComparison.Ordinal);
        try
        {
            using var root = OpenMount(order);
            Change(root, order);
            return new RemountResult.Remounted();
        }
        catch (KernelFailure failure)
        {
            return new RemountResult.Failed(failure.ToError(OperationKind.Remount, tried));
        }
    }

    private Descriptor OpenMount(RemountOrder order)
    {
        var root = walk.Open(order.Mountpoint, out var problem)
            ?? throw new KernelFailure(problem!.Value.Errno, problem.Value.Message);
        var errno = MountQueryCalls.Describe(root.Number, out var facts);
        if (errno == 0 && facts.IsMountRoot && (order.MountId is null || facts.MountId == order.MountId)) return root;
        root.Dispose();
        KernelFailure.ThrowIf(errno, "the mountpoint cannot be examined");
        throw new KernelFailure(Errno.ESTALE, facts.IsMountRoot
            ? "another mount covers it: that one has to go first"
            : "the mount is not there any more");
    }

    private static void Change(Descriptor root, RemountOrder order)
    {
        var (before, after) = (MountPlan.Of(order.Before), MountPlan.Of(order.After));
        var there = SuperblockSteps(order.Before, order.After);
        var back = SuperblockSteps(order.After, order.Before);
        if (there.Count > 0)
        {
            RefuseShared(root, order);
            Reconfigure(root, there);
        }
        try
        {
            KillPoint.Reached("worker-filesystem-told");
            SetAttributes(root, after);
            KillPoint.Reached("worker-remounted");
            ReadBack(order);
        }
        catch (KernelFailure)
        {
            PutBack(root, back, before);
            throw;
        }
    }

    /// <summary>
    /// What to tell the filesystem: each option that is new or has another value, and for one that is gone the word that undoes
    /// it (<c>async</c> for <c>sync</c>). Options are only ever replaced by others, so there is such a word.
    /// </summary>
    internal static IReadOnlyList<(string Key, string? Value)> SuperblockSteps(MountSpec from, MountSpec to)
    {
        var filesystem = FilesystemCatalog.Find(to.FsType);
        var steps = new List<(string, string?)>();
        var isOnBlockDevice = MountPlan.Of(to).IsOnBlockDevice;
        foreach (var option in to.Options.Except(from.Options))
        {
            // A filesystem on a disk is made read-only as a whole, as when it is mounted; any other only here.
            if (option == "ro" ? isOnBlockDevice : !MountPlan.IsAttribute(option))
                steps.Add((Filesystem.KeyOf(option), Filesystem.ValueOf(option)));
        }
        foreach (var option in from.Options.Except(to.Options))
        {
            if (option == "ro" ? !isOnBlockDevice : MountPlan.IsAttribute(option)) continue;
            if (filesystem?.RuleOf(option) is not { } rule) continue;
            if (to.Options.Any(other => filesystem.RuleOf(other)?.Group == rule.Group)) continue;
            var undoes = filesystem.Options.Values.FirstOrDefault(other => other.Group == rule.Group && other.IsDefault);
            if (undoes is not null) steps.Add((undoes.Name, null));
        }
        return steps;
    }

    private static void Reconfigure(Descriptor root, IReadOnlyList<(string Key, string? Value)> steps)
    {
        var number = RemountCalls.PickContext(root.Number, out var errno);
        if (number < 0) throw new KernelFailure(errno, errno == Errno.ENOSYS ? "options of a live filesystem are changed with fspick (Linux 5.2)" : "fspick");
        using var context = new Descriptor(number);
        foreach (var (key, value) in steps)
            DetachedMount.Step(context, value is null ? MountCalls.FSCONFIG_SET_FLAG : MountCalls.FSCONFIG_SET_STRING, key, value);
        errno = MountCalls.Configure(context.Number, RemountCalls.FSCONFIG_CMD_RECONFIGURE, null, null, 0);
        if (errno == 0) return;
        var words = string.Join(',', steps.Select(step => step.Key));
        throw DetachedMount.Failure(context, errno, errno == Errno.EBUSY
            ? $"{words}: files are open for writing"
            : $"the filesystem cannot change {words} while it is mounted");
    }

    private static void SetAttributes(Descriptor root, MountPlan plan)
    {
        var id = MountQueryCalls.Describe(root.Number, out var facts) == 0 ? facts.MountId : null;
        if (id is { } known && MountTable.ById(known) is { } now && (now.Attributes & Settable) == plan.Attributes) return;
        var errno = MountCalls.SetAttributes(root.Number, plan.Attributes, Settable & ~plan.Attributes | MountCalls.MOUNT_ATTR_ATIME_MASK, recursive: false);
        KernelFailure.ThrowIf(errno, errno switch
        {
            Errno.EBUSY => "mount_setattr: files are open for writing",
            Errno.ENOSYS => "options of a live mount are changed with mount_setattr (Linux 5.12)",
            _ => "mount_setattr",
        });
    }

    /// <summary>
    /// Filesystems ignore some options of a reconfiguration without a word (tmpfs its mode, btrfs its subvolume): what was to
    /// change is looked at, as far as the kernel shows it.
    /// </summary>
    private static void ReadBack(RemountOrder order)
    {
        if (order.MountId is not { } id || MountTable.ById(id) is not { } now) return;
        var observed = MountTable.Observed(now).Mount;
        foreach (var option in order.After.Options.Except(order.Before.Options))
        {
            var holds = MountPlan.IsKernelType(order.After.FsType) || MountPlan.IsAttribute(option)
                ? OptionMeaning.Holds(order.After.FsType, option, observed.MountOptions, observed.SuperOptions)
                : HelperComparison.OptionHolds(option, observed.SuperOptions);
            if (holds) continue;
            throw new KernelFailure(
                Errno.EOPNOTSUPP,
                $"the filesystem took {Filesystem.KeyOf(option)} and did not change it: it can be given only when it is mounted");
        }
    }

    private static void PutBack(Descriptor root, IReadOnlyList<(string Key, string? Value)> steps, MountPlan before)
    {
        try
        {
            SetAttributes(root, before);
        }
        catch (KernelFailure)
        {
            // What is left is found by whoever compares; the failure that is told is the first.
        }
        if (steps.Count == 0) return;
        try
        {
            Reconfigure(root, steps);
        }
        catch (KernelFailure)
        {
            // As above.
        }
    }

    /// <summary>
    /// The same filesystem mounted at another place would change with this one. Bind mounts of it count: they are somebody's too.
    /// </summary>
    private static void RefuseShared(Descriptor root, RemountOrder order)
    {
        if (MountQueryCalls.Describe(root.Number, out var facts) != 0 || facts.MountId is not { } id || MountTable.ById(id) is not { } own) return;
        var others = MountInfoReader.Read(out _)
            .Where(entry => entry.DeviceMajor == own.DeviceMajor && entry.DeviceMinor == own.DeviceMinor && entry.Mount.OldId != (int)own.OldId)
            .Select(entry => entry.Mount.Path).Take(4).ToList();
        if (others.Count > 0)
        {
            throw new KernelFailure(
                Errno.EBUSY, $"the same filesystem is mounted at {string.Join(", ", others)} too and would change there: unmount it there first ({order.Mountpoint} alone can get only options of the mount itself)");
        }
    }
}
