using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// Makes a mount that is attached nowhere: fsopen, fsconfig, fsmount for filesystems, open_tree(OPEN_TREE_CLONE) for
/// bind mounts. Closing the descriptor it returns takes the mount away again.
/// </summary>
internal static class DetachedMount
{
    private const ulong NoLinks = PathCalls.RESOLVE_NO_SYMLINKS | PathCalls.RESOLVE_NO_MAGICLINKS;

    /// <exception cref="KernelFailure">The kernel refused a step.</exception>
    public static Descriptor Make(MountPlan plan) => plan switch
    {
        { IsBind: true } => Bind(plan),
        { Spec.FsType: "overlay" } => Create(plan, plan.Spec.Source, Overlay.LayersOf(plan)),
        { IsOnBlockDevice: true } => OnDevice(plan),
        _ => Create(plan, plan.Spec.Source, null),
    };

    /// <summary>Opens a source without following links; a link is refused by name.</summary>
    internal static Descriptor OpenSource(string path, ulong flags)
    {
        var descriptor = PathCalls.OpenAt(PathCalls.AT_FDCWD, path, flags, NoLinks, out var errno);
        if (descriptor >= 0) return new Descriptor(descriptor);
        throw new KernelFailure(errno, errno == Errno.ELOOP
            ? $"{FirstLink(path)} is a symbolic link: links are not followed in a source, give the real path"
            : $"{path} cannot be opened");
    }

    /// <summary>Whether the source of a disk filesystem is a file, and not a device.</summary>
    internal static bool IsImage(string path)
    {
        // Device names such as /dev/disk/by-uuid/… are links; the kernel follows them. An image is opened strictly.
        var probe = PathCalls.OpenAt(PathCalls.AT_FDCWD, path, PathCalls.O_PATH, path.StartsWith("/dev/", StringComparison.Ordinal) ? 0 : NoLinks, out var errno);
        if (probe < 0) OpenSource(path, PathCalls.O_PATH).Dispose();
        if (probe < 0) throw new KernelFailure(errno, $"{path} cannot be opened");
        using var opened = new Descriptor(probe);
        KernelFailure.ThrowIf(MountQueryCalls.Describe(opened.Number, out var facts), $"{path} cannot be examined");
        return facts.IsRegularFile;
    }

    private static Descriptor Bind(MountPlan plan)
    {
        if (plan.Parameters.Count > 0)
            throw new KernelFailure(Errno.EINVAL, $"a bind mount takes no option {plan.Parameters[0].Key}");
        using var source = OpenSource(plan.Spec.Source, PathCalls.O_PATH | PathCalls.O_DIRECTORY);
        var clone = MountCalls.CloneTree(source.Number, plan.Recursive, out var errno);
        KernelFailure.ThrowIf(clone < 0 ? errno : 0, "open_tree");
        var mount = new Descriptor(clone);
        try
        {
            SetAttributes(mount, plan);
            return mount;
        }
        catch
        {
            mount.Dispose();
            throw;
        }
    }

    /// <summary>Gives a mount (tree) that exists the attributes of a plan.</summary>
    internal static void SetAttributes(Descriptor mount, MountPlan plan)
    {
        if ((plan.Attributes | plan.Cleared) == 0) return;
        // The atime words are one field: to set one of them, the field must be cleared.
        var clear = plan.Cleared & ~plan.Attributes;
        if ((clear & MountCalls.MOUNT_ATTR_ATIME_MASK) != 0 || (plan.Attributes & MountCalls.MOUNT_ATTR_ATIME_MASK) != 0)
            clear |= MountCalls.MOUNT_ATTR_ATIME_MASK;
        KernelFailure.ThrowIf(MountCalls.SetAttributes(mount.Number, plan.Attributes, clear, plan.Recursive), "mount_setattr");
    }

    private static Descriptor OnDevice(MountPlan plan)
    {
        var path = plan.Spec.Source;
        if (!plan.Loop && !IsImage(path)) return Create(plan, path, null);

        var neverWritten = plan.Spec.FsType is "squashfs" or "erofs";
        if (plan.Spec.FsType == "erofs" && !plan.Loop)
        {
            try
            {
                return Create(plan, path, null);
            }
            catch (KernelFailure failure) when (failure.Number is Errno.ENOTBLK or Errno.EOPNOTSUPP)
            {
                // A kernel that reads erofs from block devices only.
            }
        }

        var readOnly = plan.ReadOnly || neverWritten;
        using var image = OpenSource(path, readOnly ? PathCalls.O_RDONLY : PathCalls.O_RDWR);
        var (device, devicePath) = LoopDevices.Attach(image, path, readOnly);
        // Kept open until the filesystem has it: the device clears itself when its last user goes.
        using (device) return Create(plan, devicePath, null);
    }

    private static Descriptor Create(MountPlan plan, string source, IReadOnlyList<(string Key, string Path)>? layers)
    {
        // A filesystem that is in use already would be handed out again without a word, with the options that it has.
        var canBeShared = plan.IsOnBlockDevice && source.StartsWith("/dev/", StringComparison.Ordinal);
        if (canBeShared)
        {
            using var alone = Configured(plan, source, layers);
            var refused = MountCalls.Configure(alone.Number, MountCalls.FSCONFIG_CMD_CREATE_EXCL, null, null, 0);
            if (refused == 0) return Mounted(plan, alone);
            // Linux before 6.6 does not know the command; there the mount table alone is asked.
            if (refused is not (Errno.EBUSY or Errno.EOPNOTSUPP)) throw Refused(plan, source, alone, refused);
            if (refused == Errno.EBUSY || SharedFilesystem.IsMounted(source)) SharedFilesystem.RefuseOtherOptions(plan, source);
        }
        using var context = Configured(plan, source, layers);
        var errno = MountCalls.Configure(context.Number, MountCalls.FSCONFIG_CMD_CREATE, null, null, 0);
        return errno == 0 ? Mounted(plan, context) : throw Refused(plan, source, context, errno);
    }

    private static Descriptor Configured(MountPlan plan, string source, IReadOnlyList<(string Key, string Path)>? layers)
    {
        var number = MountCalls.OpenContext(plan.Spec.FsType, out var errno);
        if (number < 0)
            throw new KernelFailure(errno, errno == Errno.ENODEV ? $"this kernel has no filesystem {plan.Spec.FsType}" : "fsopen");
        var context = new Descriptor(number);
        try
        {
            Step(context, MountCalls.FSCONFIG_SET_STRING, "source", source);
            if (plan.ReadOnly && plan.IsOnBlockDevice) Step(context, MountCalls.FSCONFIG_SET_FLAG, "ro", null);
            if (layers is not null) Overlay.Configure(context, layers);
            foreach (var (key, value) in plan.Parameters)
            {
                if (layers is not null && Overlay.IsLayerKey(key)) continue;
                Step(context, value is null ? MountCalls.FSCONFIG_SET_FLAG : MountCalls.FSCONFIG_SET_STRING, key, value);
            }
            return context;
        }
        catch
        {
            context.Dispose();
            throw;
        }
    }

    private static Descriptor Mounted(MountPlan plan, Descriptor context)
    {
        var mount = MountCalls.MakeMount(context.Number, plan.Attributes, out var errno);
        return mount >= 0 ? new Descriptor(mount) : throw Failure(context, errno, "fsmount");
    }

    private static KernelFailure Refused(MountPlan plan, string source, Descriptor context, int errno)
    {
        var log = MountCalls.ReadLog(context.Number);
        var silent = log.Length == 0 && plan.IsOnBlockDevice && errno is Errno.EINVAL or Errno.EUCLEAN or Errno.EIO or Errno.EBADMSG;
        return new KernelFailure(
            errno, silent ? FilesystemSignature.Describe(source, plan.Spec.FsType) : "the filesystem refused its parameters or its device", log);
    }

    internal static void Step(Descriptor context, uint command, string key, string? value)
    {
        var errno = MountCalls.Configure(context.Number, command, key, value, 0);
        if (errno != 0) throw Failure(context, errno, $"option {key}");
    }

    internal static KernelFailure Failure(Descriptor context, int errno, string step)
    {
        var log = MountCalls.ReadLog(context.Number);
        return new KernelFailure(errno, log.Length == 0 && errno == Errno.EINVAL ? step + "; the kernel log may say more" : step, log);
    }

    private static string FirstLink(string path)
    {
        for (var end = path.IndexOf('/', 1); ; end = path.IndexOf('/', end + 1))
        {
            var part = end < 0 ? path : path[..end];
            if (PathCalls.ReadLink(part) is not null) return part;
            if (end < 0) return path;
        }
    }
}
