using System.Collections.Immutable;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// Point look-ups in the mount table: about 5 µs each by statmount(2), whatever the size of the table. On kernels without it
/// (before 6.8), or without the fields that are needed (before 6.11), the table is read instead.
/// </summary>
internal static class MountTable
{
    private const int StackDepthMax = 64;

    private static readonly Lazy<bool> StatmountTellsAll = new(ProbeStatmount);

    /// <summary>A mount with what is needed to compare it by meaning.</summary>
    public readonly record struct Found(ObservedMount Mount, uint DeviceMajor, uint DeviceMinor);

    /// <summary>The mounts whose root is exactly this open directory's path, topmost first.</summary>
    /// <param name="path">The path it was opened by.</param>
    public static List<Found> At(string path, MountQueryCalls.FileFacts facts)
    {
        if (!facts.IsMountRoot) return [];
        if (facts.MountId is not { } top || !StatmountTellsAll.Value) return ByPath(path);
        var stack = new List<Found>();
        for (var id = top; stack.Count < StackDepthMax;)
        {
            var errno = LookTwice(id, out var mount);
            // That it cannot be asked for does not mean that it is not there.
            if (errno is not (0 or Errno.ENOENT)) return ByPath(path);
            if (mount is null || (stack.Count > 0 && mount.Point != path)) break;
            stack.Add(Observed(mount));
            // A stacked mount hangs on the root of the one below it.
            if (mount.ParentId == id) break;
            id = mount.ParentId;
        }
        return stack;
    }

    /// <summary>The same from the whole table: slow with many mounts, but it opens nothing.</summary>
    public static List<Found> ByPath(string path) =>
        Stacked([.. MountInfoReader.Read(out _).Where(entry => entry.Mount.Path == path)]);

    /// <summary>The mount with this unique id; null when it is gone (or the kernel has no such ids).</summary>
    /// <exception cref="KernelFailure">The kernel cannot tell: it may be there or not.</exception>
    public static MountQueryCalls.MountFacts? ById(ulong id) => LookTwice(id, out var facts) switch
    {
        0 => facts,
        Errno.ENOENT or Errno.ENOSYS or Errno.EINVAL => null,
        var errno => throw new KernelFailure(errno, "statmount: it cannot be told whether the mount is there"),
    };

    /// <summary>Looking changes nothing, so what fails for a moment (memory, a signal) is asked once more.</summary>
    private static int LookTwice(ulong id, out MountQueryCalls.MountFacts? facts)
    {
        var errno = MountQueryCalls.Look(id, MountQueryCalls.Everything, out facts);
        return errno is 0 or Errno.ENOENT or Errno.ENOSYS ? errno : MountQueryCalls.Look(id, MountQueryCalls.Everything, out facts);
    }

    /// <summary>The mount with this unique id, wherever it is.</summary>
    /// <returns>False: it cannot be told by id, ask the table.</returns>
    public static bool TryFind(ulong id, out ObservedMount? mount)
    {
        mount = null;
        if (!StatmountTellsAll.Value) return false;
        var errno = MountQueryCalls.Look(id, MountQueryCalls.Everything, out var facts);
        if (errno == 0 && facts is not null) mount = Observed(facts).Mount;
        return errno is 0 or Errno.ENOENT;
    }

    /// <summary>What a bind mount of this directory would show: the device and the path within its filesystem.</summary>
    /// <returns>Null when the directory cannot be opened without following a link.</returns>
    public static (uint Major, uint Minor, string Root)? OriginOf(string directory)
    {
        const ulong NoLinks = PathCalls.RESOLVE_NO_SYMLINKS | PathCalls.RESOLVE_NO_MAGICLINKS;
        var number = PathCalls.OpenAt(PathCalls.AT_FDCWD, directory, PathCalls.O_PATH, NoLinks, out _);
        if (number < 0) return null;
        using var opened = new Descriptor(number);
        if (MountQueryCalls.Describe(opened.Number, out var facts) != 0) return null;
        uint major, minor;
        string root, point;
        if (facts.MountId is { } id && StatmountTellsAll.Value)
        {
            if (ById(id) is not { Root: not null, Point: not null } mount) return null;
            (major, minor, root, point) = (mount.DeviceMajor, mount.DeviceMinor, mount.Root, mount.Point);
        }
        else
        {
            var entry = MountInfoReader.Read(out _).FirstOrDefault(entry => entry.Mount.OldId == facts.OldMountId);
            if (entry.Mount is null) return null;
            (major, minor, root, point) = (entry.DeviceMajor, entry.DeviceMinor, entry.Mount.Root, entry.Mount.Path);
        }
        var below = point == "/" ? directory : directory[point.Length..];
        return (major, minor, root == "/" && below.Length > 0 ? below : (root + below).TrimEnd('/') is { Length: > 0 } whole ? whole : "/");
    }

    private static List<Found> Stacked(List<MountInfoEntry> entries)
    {
        // The topmost is the one that no other one here hangs on.
        var ordered = new List<Found>();
        while (entries.Count > 0)
        {
            var top = entries.FindLastIndex(entry => !entries.Exists(other => other.Mount.OldParentId == entry.Mount.OldId && other.Mount.OldId != entry.Mount.OldId));
            if (top < 0) top = entries.Count - 1;
            ordered.Add(new Found(entries[top].Mount, entries[top].DeviceMajor, entries[top].DeviceMinor));
            entries.RemoveAt(top);
        }
        return ordered;
    }

    private static Found Observed(MountQueryCalls.MountFacts facts)
    {
        var type = facts.SubType is null ? facts.FsType ?? "" : $"{facts.FsType}.{facts.SubType}";
        return new Found(
            new ObservedMount(
                facts.MountId, (int)facts.OldId, (int)facts.OldParentId, facts.Point ?? "", type, facts.Source ?? "none",
                facts.Root ?? "", AttributeWords(facts.Attributes), SuperWords(facts), null),
            facts.DeviceMajor, facts.DeviceMinor);
    }

    /// <summary>The words that mountinfo would show for the mount's own attributes, in its order.</summary>
    private static ImmutableArray<string> AttributeWords(ulong attributes)
    {
        var words = ImmutableArray.CreateBuilder<string>(8);
        words.Add((attributes & MountCalls.MOUNT_ATTR_RDONLY) != 0 ? "ro" : "rw");
        if ((attributes & MountCalls.MOUNT_ATTR_NOSUID) != 0) words.Add("nosuid");
        if ((attributes & MountCalls.MOUNT_ATTR_NODEV) != 0) words.Add("nodev");
        if ((attributes & MountCalls.MOUNT_ATTR_NOEXEC) != 0) words.Add("noexec");
        if ((attributes & MountCalls.MOUNT_ATTR_NOATIME) != 0) words.Add("noatime");
        if ((attributes & MountCalls.MOUNT_ATTR_NODIRATIME) != 0) words.Add("nodiratime");
        if ((attributes & MountCalls.MOUNT_ATTR_ATIME_MASK) == 0) words.Add("relatime");
        if ((attributes & MountCalls.MOUNT_ATTR_NOSYMFOLLOW) != 0) words.Add("nosymfollow");
        return words.ToImmutable();
    }

    private static ImmutableArray<string> SuperWords(MountQueryCalls.MountFacts facts)
    {
        const uint SB_RDONLY = 1, SB_SYNCHRONOUS = 1 << 4, SB_DIRSYNC = 1 << 7, SB_LAZYTIME = 1 << 25;
        var words = ImmutableArray.CreateBuilder<string>();
        words.Add((facts.SuperFlags & SB_RDONLY) != 0 ? "ro" : "rw");
        if ((facts.SuperFlags & SB_SYNCHRONOUS) != 0) words.Add("sync");
        if ((facts.SuperFlags & SB_DIRSYNC) != 0) words.Add("dirsync");
        if ((facts.SuperFlags & SB_LAZYTIME) != 0) words.Add("lazytime");
        if (facts.Options is { Length: > 0 }) words.AddRange(facts.Options.Split(',', StringSplitOptions.RemoveEmptyEntries));
        return words.ToImmutable();
    }

    /// <summary>Asks for a mount that must have a source and a type: the one that /proc is, or the root.</summary>
    private static bool ProbeStatmount()
    {
        var number = PathCalls.OpenAt(PathCalls.AT_FDCWD, "/proc", PathCalls.O_PATH, 0, out _);
        if (number < 0) return false;
        using var proc = new Descriptor(number);
        const ulong Needed = MountQueryCalls.SB_BASIC | MountQueryCalls.MNT_BASIC | MountQueryCalls.MNT_ROOT
            | MountQueryCalls.MNT_POINT | MountQueryCalls.FS_TYPE | MountQueryCalls.SB_SOURCE;
        return MountQueryCalls.Describe(proc.Number, out var facts) == 0 && facts.MountId is { } id
            && ById(id) is { } mount && (mount.Mask & Needed) == Needed;
    }
}
