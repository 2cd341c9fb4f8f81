using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>Where an open mount is attached, by whatever the kernel has to tell it.</summary>
internal readonly record struct MountPlace(string Point, ulong? ParentId, uint OldParentId)
{
    /// <summary>Null: it is attached nowhere (any more).</summary>
    public static MountPlace? Of(Descriptor mount)
    {
        if (MountQueryCalls.Describe(mount.Number, out var facts) != 0) return null;
        if (facts.MountId is { } id)
            return MountTable.ById(id) is { Point: { } point } now ? new MountPlace(point, now.ParentId, now.OldParentId) : null;
        var row = MountInfoReader.Read(out _).Select(entry => entry.Mount).FirstOrDefault(row => row.OldId == facts.OldMountId);
        return row is null ? null : new MountPlace(row.Path, null, (uint)row.OldParentId);
    }

    /// <summary>It lies directly on the mount that a directory was in.</summary>
    public bool IsOn(MountQueryCalls.FileFacts below) => below.MountId is { } id ? ParentId == id : OldParentId == below.OldMountId;
}
