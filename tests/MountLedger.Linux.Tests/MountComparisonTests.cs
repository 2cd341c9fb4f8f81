using System.Text;
using MountLedger.Tests;

namespace MountLedger.Linux.Tests;

/// <summary>Lines of real mount tables against what was wanted. The kernel writes them as they are here, odd ones included.</summary>
public sealed class MountComparisonTests
{
    [Theory]
    // tmpfs: sizes in kibibytes, modes without zeros, defaults left out, a source that looks like an option.
    [InlineData("107 85 0:41 / /mnt/m rw,nosuid,nodev,relatime - tmpfs -oevil rw,size=1048576k,mode=750", "tmpfs", "-oevil", "nosuid,nodev,size=1g,mode=0750", "")]
    [InlineData("107 85 0:41 / /mnt/m rw,nosuid,nodev,relatime - tmpfs -oevil rw,size=1048576k,mode=750", "tmpfs", "-oevil", "nosuid,nodev,size=1073741824,mode=750,uid=0,huge=never", "")]
    [InlineData("107 85 0:41 / /mnt/m rw,nosuid,nodev,relatime - tmpfs tmpfs rw,size=1048576k", "tmpfs", "tmpfs", "nosuid,nodev,size=2g", "options")]
    [InlineData("107 85 0:41 / /mnt/m rw,nosuid,nodev,relatime - tmpfs tmpfs rw,size=16384k", "tmpfs", "tmpfs", "nr_blocks=4k", "")]
    [InlineData("107 85 0:41 / /mnt/m rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw", "tmpfs", "tmpfs", "nosuid,nodev", "options")]
    [InlineData("107 85 0:41 / /mnt/m rw,nosuid,nodev,noatime - tmpfs tmpfs rw", "tmpfs", "tmpfs", "nosuid,nodev", "options")]
    [InlineData("107 85 0:41 / /mnt/m rw,nosuid,nodev - tmpfs tmpfs rw", "tmpfs", "tmpfs", "nosuid,nodev", "options")]
    [InlineData("107 85 0:41 / /mnt/m rw,nosuid,nodev - tmpfs tmpfs rw", "tmpfs", "tmpfs", "nosuid,nodev,strictatime", "")]
    [InlineData("107 85 0:41 / /mnt/m rw,relatime - tmpfs tmpfs rw", "tmpfs", "tmpfs", "nosuid,nodev", "options")]
    [InlineData("108 85 0:41 / /mnt/m rw,relatime - ramfs r rw", "ramfs", "r", "mode=0755", "")]
    [InlineData("108 85 0:41 / /mnt/m rw,relatime - ramfs r rw", "tmpfs", "r", "", "fstype")]
    // ext2, ext3, ext4: defaults are not shown; what is shown otherwise.
    [InlineData("109 85 8:17 / /mnt/m rw,relatime - ext2 /dev/sdb1 rw", "ext2", "/dev/sdb1", "errors=continue,bsddf", "")]
    [InlineData("108 85 8:17 / /mnt/m rw,relatime - ext3 /dev/sdb1 rw,nobarrier", "ext3", "/dev/sdb1", "barrier=0", "")]
    [InlineData("108 85 8:17 / /mnt/m rw,relatime - ext3 /dev/sdb1 rw,nobarrier", "ext3", "/dev/sdb1", "barrier=1", "options")]
    [InlineData("108 85 8:17 / /mnt/m rw,relatime - ext4 /dev/sdb1 rw", "ext4", "/dev/sdb1", "acl,user_xattr,delalloc,barrier,commit=5,data=ordered", "")]
    [InlineData("108 85 8:17 / /mnt/m rw,relatime - ext4 /dev/sdb1 rw", "ext4", "/dev/sdb1", "commit=30", "options")]
    [InlineData("108 85 8:17 / /mnt/m rw,relatime - ext4 /dev/sdb1 rw,nodelalloc", "ext4", "/dev/sdb1", "delalloc", "options")]
    [InlineData("27 1 8:1 / /mnt/m rw,relatime shared:1 - ext4 /dev/sda1 rw,discard,errors=remount-ro", "ext4", "/dev/sda1", "discard,errors=remount-ro", "")]
    [InlineData("27 1 8:1 / /mnt/m rw,relatime - ext4 /dev/sda1 ro,errors=remount-ro", "ext4", "/dev/sda1", "errors=remount-ro", "options")]
    [InlineData("27 1 8:1 / /mnt/m ro,relatime - ext4 /dev/sda1 ro", "ext4", "/dev/sda1", "ro", "")]
    [InlineData("27 1 8:1 /home /mnt/m rw,relatime - ext4 /dev/sda1 rw", "ext4", "/dev/sda1", "", "source")]
    // xfs, btrfs: what they choose themselves is not asked for and does no harm.
    [InlineData("108 85 8:17 / /mnt/m rw,relatime - xfs /dev/sdb1 rw,inode64,logbufs=8,logbsize=32k,noquota", "xfs", "/dev/sdb1", "logbsize=32768", "")]
    [InlineData("108 85 8:17 / /mnt/m rw,relatime - xfs /dev/sdb1 rw,inode64,logbufs=8,logbsize=32k,noquota", "xfs", "/dev/sdb1", "logbsize=64k", "options")]
    [InlineData("108 85 8:17 / /mnt/m rw,relatime - xfs /dev/sdb1 rw,attr2,inode64,allocsize=1024k,logbufs=8,logbsize=32k,noquota", "xfs", "/dev/sdb1", "allocsize=1m,nolargeio", "")]
    [InlineData("109 85 0:42 / /mnt/m rw,relatime - btrfs /dev/sdb1 rw,ssd,discard=async,space_cache=v2,subvolid=5,subvol=/", "btrfs", "/dev/sdb1", "subvol=/,datacow", "")]
    [InlineData("109 85 0:42 / /mnt/m rw,relatime - btrfs /dev/sdb1 rw,compress=zstd:3,ssd,discard=async,space_cache=v2,subvolid=256,subvol=/inner", "btrfs", "/dev/sdb1", "compress=zstd,subvol=/inner", "")]
    [InlineData("109 85 0:42 / /mnt/m rw,relatime - btrfs /dev/sdb1 rw,compress=zstd:3,ssd,space_cache=v2,subvolid=256,subvol=/inner", "btrfs", "/dev/sdb1", "compress=zstd:9,subvol=/other", "options")]
    [InlineData("109 85 0:42 / /mnt/m rw,relatime - btrfs /dev/sdb1 rw,nodatacow,nodatasum,subvolid=5,subvol=/", "btrfs", "/dev/sdb1", "datacow", "options")]
    // squashfs, erofs: read-only by nature.
    [InlineData("108 85 7:0 / /mnt/m ro,relatime - squashfs /dev/sdb1 ro,errors=continue", "squashfs", "/dev/sdb1", "ro,errors=continue", "")]
    [InlineData("108 85 7:0 / /mnt/m ro,relatime - erofs /dev/sdb1 ro,user_xattr,acl,cache_strategy=readaround", "erofs", "/dev/sdb1", "ro,acl", "")]
    [InlineData("108 85 7:0 / /mnt/m ro,relatime - erofs /dev/sdb1 ro,user_xattr,acl,cache_strategy=readaround", "erofs", "/dev/sdb1", "ro,cache_strategy=disabled", "options")]
    // overlay: layers in one word, or one by one since Linux 6.13; the order of the lower ones matters.
    [InlineData("111 85 0:42 / /mnt/m rw,relatime - overlay overlay rw,lowerdir=/l:/s,upperdir=/u,workdir=/w,uuid=on", "overlay", "overlay", "lowerdir=/l:/s,upperdir=/u,workdir=/w,index=off", "")]
    [InlineData("111 85 0:42 / /mnt/m rw,relatime - overlay overlay rw,lowerdir+=/l,lowerdir+=/s,upperdir=/u,workdir=/w", "overlay", "overlay", "lowerdir=/l:/s,upperdir=/u,workdir=/w", "")]
    [InlineData("111 85 0:42 / /mnt/m rw,relatime - overlay overlay rw,lowerdir=/s:/l,upperdir=/u,workdir=/w", "overlay", "overlay", "lowerdir=/l:/s,upperdir=/u,workdir=/w", "options")]
    // Foreign ones.
    [InlineData("108 85 0:42 / /mnt/m rw,relatime - proc proc rw", "tmpfs", "tmpfs", "", "source fstype")]
    [InlineData("108 85 0:22 / /mnt/m rw,relatime - sysfs sysfs rw", "tmpfs", "sysfs", "", "fstype")]
    [InlineData("108 85 0:38 / /mnt/m rw,relatime - cgroup2 cgroup2 rw,nsdelegate", "tmpfs", "cgroup2", "", "fstype")]
    [InlineData("108 85 0:42 / /mnt/m rw,nosuid,relatime - devpts devpts rw,mode=600,ptmxmode=000", "ramfs", "devpts", "mode=600", "fstype")]
    // Sources as the kernel escapes them.
    [InlineData("108 85 0:42 / /mnt/sp\\040ace rw,relatime - tmpfs \\043sp\\040ace rw", "tmpfs", "#sp ace", "", "")]
    [InlineData("108 85 0:42 / /mnt/t rw,relatime - tmpfs \\043tab\\011new\\012line rw", "tmpfs", "#tab\tnew\nline", "", "")]
    [InlineData("108 85 0:42 / /mnt/back\\134slash rw,relatime - tmpfs \\043back\\134slash rw", "tmpfs", "#back\\slash", "", "")]
    [InlineData("108 85 0:42 / /mnt/#hash rw,relatime - tmpfs \\043\\043hash rw", "tmpfs", "##hash", "", "")]
    [InlineData("108 85 0:42 / /mnt/ünï rw,relatime - tmpfs \\043ünï rw", "tmpfs", "#ünï", "", "")]
    [InlineData("108 85 0:42 / /mnt/ünï rw,relatime - tmpfs \\043ünï rw", "tmpfs", "#üni", "", "source")]
    public void A_line_of_the_table_is_compared_by_meaning(string line, string type, string source, string options, string differences)
    {
        var entry = Parsed(line);
        var found = new MountTable.Found(entry.Mount, entry.DeviceMajor, entry.DeviceMinor);
        var wanted = new MountSpec(source, type, [.. options.Split(',', StringSplitOptions.RemoveEmptyEntries)]);
        Assert.Equal(differences, string.Join(' ', MountComparison.Differences(wanted, found)));
    }

    [Fact]
    public void The_order_of_options_means_nothing()
    {
        var entry = Parsed("27 1 8:1 / /mnt/m rw,nodev,noexec,nosuid,relatime - ext4 /dev/sda1 rw,nodelalloc,commit=30,errors=remount-ro");
        string[] options = ["commit=30", "errors=remount-ro", "nodelalloc", "nodev", "noexec", "nosuid"];
        foreach (var order in (IEnumerable<string[]>)[options, [.. options.Reverse()], [.. options.OrderBy(option => option.Length)]])
            Assert.Empty(MountComparison.Differences(new MountSpec("/dev/sda1", "ext4", [.. order]), new MountTable.Found(entry.Mount, 8, 1)));
    }

    [Fact]
    public void A_deleted_source_of_a_bind_is_read_as_the_kernel_says_it()
    {
        var entry = Parsed("108 85 0:40 /s/sub//deleted /mnt/m rw,relatime - tmpfs x rw");
        Assert.Equal("/s/sub//deleted", entry.Mount.Root);
        Assert.Equal(
            ["source"], MountComparison.Differences(new MountSpec("/s/sub", "bind", []), new MountTable.Found(entry.Mount, 0, 40)).ToArray());
    }

    private static MountInfoEntry Parsed(string line)
    {
        var entries = MountInfoReader.Parse(Encoding.UTF8.GetBytes(line), out var odd);
        Assert.Empty(odd);
        return Assert.Single(entries);
    }
}
