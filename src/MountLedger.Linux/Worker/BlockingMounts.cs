using System.Collections.Frozen;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// Which mounts may hold up whoever walks through them: FUSE, network, and every type that is not known to live in this kernel
/// alone. Kept up to date by what is new in the mount table, a few microseconds for each question however large the table is;
/// nothing here touches a filesystem.
/// </summary>
internal sealed class BlockingMounts
{
    /// <summary>Ids that may come late: a mount has its id from when it is made, and is in the table from when it is attached.</summary>
    private const ulong LateIdsMax = 64;

    private static readonly FrozenSet<string> Local = FrozenSet.Create(
        StringComparer.Ordinal,
        "tmpfs", "ramfs", "rootfs", "ext2", "ext3", "ext4", "xfs", "btrfs", "squashfs", "erofs", "overlay", "vfat", "exfat", "ntfs3", "iso9660",
        "udf", "f2fs", "zfs", "bcachefs", "proc", "sysfs", "devtmpfs", "devpts", "mqueue", "hugetlbfs", "cgroup", "cgroup2", "securityfs", "debugfs",
        "tracefs", "configfs", "fusectl", "bpf", "pstore", "efivarfs", "binfmt_misc", "nsfs", "rpc_pipefs", "selinuxfs");

    private readonly Lock gate = new();
    private readonly Dictionary<string, HashSet<ulong>> byPath = new(StringComparer.Ordinal);
    private readonly SortedSet<ulong> seen = [];
    private ulong last;
    private FileStream? table;

    /// <summary>Whether a filesystem of this type can make a call wait for somebody outside this kernel.</summary>
    public static bool MayBlock(string type) => !Local.Contains(type);

    /// <summary>The mount at a path or above it that may block, as <c>fuse at /mnt/a</c>; null: none.</summary>
    public string? AtOrAbove(string path)
    {
        lock (gate)
        {
            Refresh();
            if (byPath.Count == 0) return null;
            for (var at = path; ; at = at[..Math.Max(at.LastIndexOf('/'), 1)])
            {
                if (TypeAt(at) is { } type) return $"{type} at {at}";
                if (at == "/") return null;
            }
        }
    }

    /// <summary>Whether a mount that may block is below this path.</summary>
    public bool AnyBelow(string path)
    {
        lock (gate)
        {
            Refresh();
            return byPath.Keys.Where(at => at.StartsWith(path + "/", StringComparison.Ordinal)).ToList().Exists(at => TypeAt(at) is not null);
        }
    }

    /// <summary>Tells of a mount that was attached just now.</summary>
    public void Add(ulong? mountId)
    {
        if (mountId is not { } id) return;
        lock (gate) Look(id);
    }

    private string? TypeAt(string path)
    {
        if (!byPath.TryGetValue(path, out var ids)) return null;
        if (table is not null) return "a network or FUSE filesystem";
        foreach (var id in ids.ToList())
        {
            if (MountQueryCalls.Look(id, MountQueryCalls.MNT_BASIC | MountQueryCalls.MNT_POINT | MountQueryCalls.FS_TYPE, out var mount) == 0 && mount?.Point == path)
                return mount.FsType ?? "?";
            // Gone, or moved to where it is looked up again.
            ids.Remove(id);
            Look(id);
        }
        if (ids.Count == 0) byPath.Remove(path);
        return null;
    }

    private void Refresh()
    {
        if (table is null)
        {
            var ids = new List<ulong>();
            var errno = MountQueryCalls.List(MountQueryCalls.LSMT_ROOT, MountInfoReader.MountsMax, ids, last > LateIdsMax ? last - LateIdsMax : 0);
            if (errno == 0)
            {
                foreach (var id in ids.Where(seen.Add)) Look(id);
                if (ids.Count > 0) last = Math.Max(last, ids[^1]);
                if (seen.Count > 2 * (int)LateIdsMax) seen.RemoveWhere(id => id + LateIdsMax < last);
                return;
            }
        }
        RefreshFromTable();
    }

    /// <summary>For kernels before 6.8: the table is read anew when it has changed.</summary>
    private void RefreshFromTable()
    {
        if (table is not null)
        {
            var descriptor = (int)table.SafeFileHandle.DangerousGetHandle();
            if ((SocketCalls.Poll(descriptor, SocketCalls.POLLPRI, 0) & SocketCalls.POLLPRI) == 0) return;
        }
        table ??= new FileStream("/proc/self/mountinfo", FileMode.Open, FileAccess.Read, FileShare.ReadWrite, 0);
        byPath.Clear();
        foreach (var (mount, _, _) in MountInfoReader.Read(out _))
            if (MayBlock(mount.FsType)) byPath[mount.Path] = [];
    }

    private void Look(ulong id)
    {
        const ulong Asked = MountQueryCalls.MNT_BASIC | MountQueryCalls.MNT_POINT | MountQueryCalls.FS_TYPE;
        if (MountQueryCalls.Look(id, Asked, out var mount) != 0 || mount is not { Point: { } point, FsType: { } type } || !MayBlock(type)) return;
        if (!byPath.TryGetValue(point, out var ids)) byPath[point] = ids = [];
        ids.Add(id);
    }
}
