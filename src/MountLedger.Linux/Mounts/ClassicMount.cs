using System.Text;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// A mount made with mount(2), for kernels (or seccomp filters) without the calls that make one before it is attached. Everything that can be
/// checked before is checked in <see cref="Prepare"/>; <see cref="MountOnto"/> then mounts onto the open directory, by its descriptor.
/// </summary>
/// <remarks>
/// Weaker than the newer way in three things: there is no id before the mount can be seen, the kernel explains nothing, and the options of a bind mount
/// come a moment after it.
/// </remarks>
internal sealed class ClassicMount : IDisposable
{
    private const int DataBytesMax = 4095; // mount(2): a page, with the final zero
    private const int FindAttemptsMax = 64;
    private readonly MountPlan plan;
    private readonly string source;
    private readonly string? data;
    private readonly ulong flags;
    private readonly Descriptor? held;

    private ClassicMount(MountPlan plan, string source, Descriptor? held)
    {
        (this.plan, this.source, this.held) = (plan, source, held);
        flags = plan.IsBind
            ? MountFlags.MS_BIND | (plan.Recursive ? MountFlags.MS_REC : 0)
            : MountFlags.OfAttributes(plan.Attributes) | plan.Parameters.Aggregate(0UL, (set, pair) => set | MountFlags.OfParameter(pair.Key));
        data = plan.IsBind ? null : Data(plan);
    }

    /// <summary>Whether this kernel can make the mount only so.</summary>
    public static bool IsNeededFor(MountPlan plan) =>
        !KernelInterfaces.HasDetachedMounts || (plan.IsBind && HasAttributes(plan) && !KernelInterfaces.HasMountSetattr);

    /// <exception cref="KernelFailure">The source cannot be used, or this kernel cannot do what is asked for.</exception>
    public static ClassicMount Prepare(MountPlan plan)
    {
        if (plan.IsBind)
        {
            if (plan.Parameters.Count > 0)
                throw new KernelFailure(Errno.EINVAL, $"a bind mount takes no option {plan.Parameters[0].Key}");
            if (plan.Recursive && HasAttributes(plan))
                throw new KernelFailure(
                    Errno.ENOSYS, "the options of a recursive bind have to reach every mount that it brings along, which takes mount_setattr (Linux 5.12)");
            var opened = DetachedMount.OpenSource(plan.Spec.Source, PathCalls.O_PATH | PathCalls.O_DIRECTORY);
            return new ClassicMount(plan, $"/proc/self/fd/{opened.Number}", opened);
        }
        if (plan.Spec.FsType == "overlay")
        {
            // The kernel looks the layers up by name; that none of them leads through a link is seen here.
            foreach (var (_, path) in Overlay.LayersOf(plan))
                DetachedMount.OpenSource(path, PathCalls.O_PATH | PathCalls.O_DIRECTORY).Dispose();
        }
        if (!plan.IsOnBlockDevice || !(plan.Loop || DetachedMount.IsImage(plan.Spec.Source)))
            return new ClassicMount(plan, plan.Spec.Source, null);

        var readOnly = plan.ReadOnly || plan.Spec.FsType is "squashfs" or "erofs";
        using var image = DetachedMount.OpenSource(plan.Spec.Source, readOnly ? PathCalls.O_RDONLY : PathCalls.O_RDWR);
        // Kept open until the filesystem has it: the device clears itself when its last user goes.
        var (device, devicePath) = LoopDevices.Attach(image, plan.Spec.Source, readOnly);
        try
        {
            return new ClassicMount(plan, devicePath, device);
        }
        catch
        {
            device.Dispose(); // With it the loop device goes.
            throw;
        }
    }

    /// <summary>Mounts onto an open directory, and makes sure of where the mount has come to be.</summary>
    /// <returns>The unique id, where the kernel has those.</returns>
    /// <exception cref="KernelFailure">It was not mounted, or was taken away again.</exception>
    /// <exception cref="MountLeftBehindException">It was mounted, and is somewhere.</exception>
    public ulong? MountOnto(Descriptor leaf, MountQueryCalls.FileFacts below, string mountpoint)
    {
        var errno = MountCalls.Mount(
            source, $"/proc/self/fd/{leaf.Number}", plan.IsBind ? null : plan.Spec.FsType, flags, data);
        KernelFailure.ThrowIf(errno, errno switch
        {
            Errno.ENODEV => $"this kernel has no filesystem {plan.Spec.FsType}",
            Errno.ENOSPC => "mount: the limit fs.mount-max is reached",
            Errno.EINVAL => "mount; the kernel log may say more",
            _ => "mount",
        });
        var (root, row, facts) = FindAbove(leaf, below);
        using (root)
        {
            if (row.Path != mountpoint)
                throw RolledBack(root, Errno.ESTALE, $"the directories were moved while it was attached, it came to be at {row.Path}");
            if (plan.IsBind && HasAttributes(plan))
            {
                // All flags are set anew by a remount: those that the source's mount had stay unless they were asked away.
                var attributes = (MountFlags.AttributesOf(row.MountOptions) & ~plan.Cleared) | plan.Attributes;
                errno = MountCalls.Mount(
                    null, $"/proc/self/fd/{root.Number}", null, MountFlags.MS_REMOUNT | MountFlags.MS_BIND | MountFlags.OfAttributes(attributes) | Atime(attributes), null);
                if (errno != 0) throw RolledBack(root, errno, "the options of the bind mount cannot be set");
            }
            return facts.MountId;
        }
    }

    public void Dispose() => held?.Dispose();

    /// <summary>
    /// Opens the root of the mount that now lies on the directory. A descriptor of a directory does not see what is mounted over it, so its name
    /// is looked up again in its parent, whatever they are called by now, until mount and directory belong together.
    /// </summary>
    private static (Descriptor Root, ObservedMount Row, MountQueryCalls.FileFacts Facts) FindAbove(Descriptor leaf, MountQueryCalls.FileFacts below)
    {
        for (var attempt = 0; attempt < FindAttemptsMax; attempt++)
        {
            if (PathCalls.ReadLink($"/proc/self/fd/{leaf.Number}") is not { } path) break;
            var name = path[(path.LastIndexOf('/') + 1)..];
            var number = PathCalls.OpenPlain(
                leaf.Number, $"../{name}", PathCalls.O_PATH | PathCalls.O_DIRECTORY | PathCalls.O_NOFOLLOW, 0, out _);
            if (number < 0) continue;
            var root = new Descriptor(number);
            if (MountQueryCalls.Describe(root.Number, out var facts) == 0 && facts.IsMountRoot && Row(facts) is { } row && IsOn(row, below))
                return (root, row, facts);
            root.Dispose();
        }
        throw new MountLeftBehindException("it was mounted, and the directories are moved about so fast that it cannot be found again: look for it with `findmnt`");
    }

    private static ObservedMount? Row(MountQueryCalls.FileFacts facts) => MountInfoReader.Read(out _)
        .Select(entry => entry.Mount).FirstOrDefault(mount => facts.MountId is { } id ? mount.MountId == id : mount.OldId == facts.OldMountId);

    private static bool IsOn(ObservedMount row, MountQueryCalls.FileFacts below) =>
        below.MountId is { } id ? MountTable.ById(id)?.OldId == row.OldParentId : below.OldMountId == row.OldParentId;

    /// <exception cref="MountLeftBehindException">It is still there.</exception>
    private static KernelFailure RolledBack(Descriptor root, int why, string what)
    {
        // Lazily, because the descriptor uses it.
        var errno = MountCalls.Unmount($"/proc/self/fd/{root.Number}", MountCalls.MNT_DETACH);
        return errno == 0
            ? new KernelFailure(why, $"{what}: it was taken away again")
            : throw new MountLeftBehindException($"{what}: taking it away failed with {Errno.Name(errno)}");
    }

    private static bool HasAttributes(MountPlan plan) => (plan.Attributes | plan.Cleared) != 0;

    /// <summary>Without a word about access times a remount would keep what was there.</summary>
    private static ulong Atime(ulong attributes) => (attributes & MountCalls.MOUNT_ATTR_ATIME_MASK) == 0 ? MountFlags.MS_RELATIME : 0;

    private static string? Data(MountPlan plan)
    {
        var text = new StringBuilder();
        foreach (var (key, value) in plan.Parameters)
        {
            if (MountFlags.OfParameter(key) != 0) continue;
            if (value?.Contains(',', StringComparison.Ordinal) == true)
                throw new KernelFailure(Errno.ENOSYS, $"option {key}: a comma within a value takes fsconfig (Linux 5.2)");
            if (key == "lowerdir+")
                throw new KernelFailure(Errno.ENOSYS, "option lowerdir+ takes fsconfig (Linux 5.2): give the layers as lowerdir=A:B");
            if (text.Length > 0) text.Append(',');
            text.Append(key);
            if (value is not null) text.Append('=').Append(value);
        }
        if (Encoding.UTF8.GetByteCount(text.ToString()) > DataBytesMax)
            throw new KernelFailure(Errno.ENOSYS, $"options of more than {DataBytesMax} bytes take fsconfig (Linux 5.2)");
        return text.Length == 0 ? null : text.ToString();
    }
}
