using System.Buffers.Binary;

namespace MountLedger.Linux;

/// <summary>
/// What is written at the beginning of a device or an image. Asked only after the kernel has refused one without a word, as it
/// does for damaged ext4, xfs, btrfs and erofs: to tell "that is no such filesystem" from "that is one, and something is wrong with it".
/// </summary>
internal static class FilesystemSignature
{
    private static readonly (string Type, long Offset, byte[] Magic)[] Known =
    [
        ("ext2, ext3 or ext4", 0x438, [0x53, 0xef]), ("xfs", 0, "XFSB"u8.ToArray()), ("btrfs", 0x10040, "_BHRfS_M"u8.ToArray()),
        ("squashfs", 0, "hsqs"u8.ToArray()), ("erofs", 0x400, LittleEndian(0xE0F5E1E2)), ("LUKS", 0, "LUKS"u8.ToArray()),
        ("swap", 0xff6, "SWAPSPACE2"u8.ToArray()), ("LVM", 0x218, "LVM2"u8.ToArray()), ("iso9660", 0x8001, "CD001"u8.ToArray()),
        ("a partition table", 0x1fe, [0x55, 0xaa]),
    ];

    /// <summary>One clause for an error message: what is there, and what follows from it.</summary>
    public static string Describe(string path, string wantedType)
    {
        var found = Find(path, out var problem);
        if (problem is not null) return $"its beginning cannot be read: {problem}";
        if (found is null) return $"there is no {wantedType} on it, nor any other filesystem that is known";
        return found.Split([", ", " or "], StringSplitOptions.None).Contains(wantedType)
            ? $"there is a superblock of {found} on it, so the filesystem is damaged, or has features that this kernel does not know: the kernel log (dmesg) says which, and {Checker(wantedType)} examines it"
            : $"there is {found} on it, not {wantedType}";
    }

    private static string? Find(string path, out string? problem)
    {
        problem = null;
        try
        {
            using var file = File.OpenHandle(path);
            foreach (var (type, offset, magic) in Known)
            {
                var bytes = new byte[magic.Length];
                if (RandomAccess.Read(file, bytes, offset) == bytes.Length && bytes.AsSpan().SequenceEqual(magic)) return type;
            }
            return null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            problem = e.Message;
            return null;
        }
    }

    private static string Checker(string type) => type switch
    {
        "ext2" or "ext3" or "ext4" => "e2fsck -n",
        "xfs" => "xfs_repair -n",
        "btrfs" => "btrfs check --readonly",
        "erofs" => "fsck.erofs",
        _ => "unsquashfs -s",
    };

    private static byte[] LittleEndian(uint value)
    {
        var bytes = new byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, value);
        return bytes;
    }
}
