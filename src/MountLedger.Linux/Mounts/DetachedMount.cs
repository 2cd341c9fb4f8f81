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
        var isImage = plan.Loop;
        if (!isImage)
        {
            // Device names such as /dev/disk/by-uuid/… are links; the kernel follows them. An image is opened strictly.
            var probe = PathCalls.OpenAt(PathCalls.AT_FDCWD, path, PathCalls.O_PATH, path.StartsWith("/dev/", StringComparison.Ordinal) ? 0 : NoLinks, out var errno);
            if (probe < 0) OpenSource(path, PathCalls.O_PATH).Dispose();
            if (probe < 0) throw new KernelFailure(errno, $"{path} cannot be opened");
            using var opened = new Descriptor(probe);
            KernelFailure.ThrowIf(MountQueryCalls.Describe(opened.Number, out var facts), $"{path} cannot be examined");
            isImage = facts.IsRegularFile;
        }
        if (!isImage) return Create(plan, path, null);

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
        var number = MountCalls.OpenContext(plan.Spec.FsType, out var errno);
        if (number < 0)
            throw new KernelFailure(errno, errno == Errno.ENODEV ? $"this kernel has no filesystem {plan.Spec.FsType}" : "fsopen");
        using var context = new Descriptor(number);
        Step(context, MountCalls.FSCONFIG_SET_STRING, "source", source);
        if (plan.ReadOnly && plan.IsOnBlockDevice) Step(context, MountCalls.FSCONFIG_SET_FLAG, "ro", null);
        if (layers is not null) Overlay.Configure(context, layers);
        foreach (var (key, value) in plan.Parameters)
        {
            if (layers is not null && Overlay.IsLayerKey(key)) continue;
            Step(context, value is null ? MountCalls.FSCONFIG_SET_FLAG : MountCalls.FSCONFIG_SET_STRING, key, value);
        }
        errno = MountCalls.Configure(context.Number, MountCalls.FSCONFIG_CMD_CREATE, null, null, 0);
        if (errno != 0) throw Failure(context, errno, "the filesystem refused its parameters or its device");

        var mount = MountCalls.MakeMount(context.Number, plan.Attributes, out errno);
        return mount >= 0 ? new Descriptor(mount) : throw Failure(context, errno, "fsmount");
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
