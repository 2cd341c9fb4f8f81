using System.Text;

namespace MountLedger.Linux.Tests;

/// <summary>Lines as real kernels wrote them, and lines that none should write.</summary>
public sealed class MountInfoParserTests
{
    private static ObservedMount Parse(string line)
    {
        Assert.True(new MountInfoParser().TryParse(Encoding.UTF8.GetBytes(line), out var entry, out var problem), problem);
        return entry.Mount;
    }

    [Theory]
    [InlineData("22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro", "/", "ext4", "/dev/vda", "/")]
    [InlineData("23 22 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw", "/proc", "proc", "proc", "/")]
    [InlineData("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue", "/mnt2", "ext3", "/dev/root", "/mnt1")]
    [InlineData("41 22 0:35 / /run rw,nosuid,nodev shared:2 - tmpfs tmpfs rw,size=813260k,mode=755,inode64", "/run", "tmpfs", "tmpfs", "/")]
    [InlineData("60 22 0:44 /@home /home rw,relatime shared:30 - btrfs /dev/sda2 rw,space_cache=v2,subvolid=257,subvol=/@home", "/home", "btrfs", "/dev/sda2", "/@home")]
    [InlineData("71 22 8:17 / /data rw,relatime - xfs /dev/sdb1 rw,attr2,inode64,logbufs=8,logbsize=32k,noquota", "/data", "xfs", "/dev/sdb1", "/")]
    [InlineData("80 22 7:0 / /snap/core/1 ro,nodev,relatime shared:40 - squashfs /dev/loop0 ro,errors=continue", "/snap/core/1", "squashfs", "/dev/loop0", "/")]
    [InlineData("90 22 0:50 / /var/lib/docker/overlay2/x/merged rw,relatime - overlay overlay rw,lowerdir=/a:/b,upperdir=/u,workdir=/w", "/var/lib/docker/overlay2/x/merged", "overlay", "overlay", "/")]
    [InlineData("95 22 0:61 / /mnt/nfs rw,relatime shared:70 - nfs4 10.0.0.1:/srv/export rw,vers=4.2,rsize=1048576,hard,proto=tcp,addr=10.0.0.1", "/mnt/nfs", "nfs4", "10.0.0.1:/srv/export", "/")]
    [InlineData("96 22 0:62 / /mnt/share rw,relatime - cifs //server/share rw,vers=3.1.1,cache=strict,username=u", "/mnt/share", "cifs", "//server/share", "/")]
    [InlineData("97 22 0:63 / /mnt/ssh rw,nosuid,nodev,relatime shared:80 - fuse.sshfs host:/dir rw,user_id=0,group_id=0", "/mnt/ssh", "fuse.sshfs", "host:/dir", "/")]
    [InlineData("25 22 0:23 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:5 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot", "/sys/fs/cgroup", "cgroup2", "cgroup2", "/")]
    [InlineData("33 22 0:4 net:[4026532281] /run/netns/a rw shared:9 - nsfs nsfs rw", "/run/netns/a", "nsfs", "nsfs", "net:[4026532281]")]
    [InlineData("98 22 7:3 / /img ro,relatime - erofs /dev/loop3 ro,user_xattr,acl,cache_strategy=readaround", "/img", "erofs", "/dev/loop3", "/")]
    public void Real_line_is_read(string line, string path, string type, string source, string root)
    {
        var mount = Parse(line);
        Assert.Equal((path, type, source, root), (mount.Path, mount.FsType, mount.Source, mount.Root));
        Assert.Null(mount.MountId);
        Assert.Contains(mount.MountOptions, option => option is "rw" or "ro");
    }

    [Fact]
    public void Numbers_and_option_lists_are_read()
    {
        Assert.True(new MountInfoParser().TryParse(
            "41 22 0:35 / /run rw,nosuid,nodev shared:2 master:3 propagate_from:1 unbindable - tmpfs tmpfs rw,size=1k,mode=755"u8, out var entry, out _));
        Assert.Equal((41, 22, 0u, 35u), (entry.Mount.OldId, entry.Mount.OldParentId, entry.DeviceMajor, entry.DeviceMinor));
        Assert.Equal(["rw", "nosuid", "nodev"], entry.Mount.MountOptions.ToArray());
        Assert.Equal(["rw", "size=1k", "mode=755"], entry.Mount.SuperOptions.ToArray());
    }

    [Fact]
    public void Escapes_are_undone()
    {
        var mount = Parse(@"1 2 0:1 /a\134b /mnt/a\040b\011c\012d\134e rw - fuse.x src\040with\043hash rw,name=a\054b");
        Assert.Equal("/mnt/a b\tc\nd\\e", mount.Path);
        Assert.Equal("/a\\b", mount.Root);
        Assert.Equal("src with#hash", mount.Source);
        Assert.Equal(["rw", "name=a,b"], mount.SuperOptions.ToArray());
    }

    [Fact]
    public void Backslash_that_escapes_nothing_stays() => Assert.Equal(@"/a\04", Parse(@"1 2 0:1 / /a\04 rw - tmpfs tmpfs rw").Path);

    [Fact]
    public void Deleted_root_keeps_its_mark() => Assert.Equal("/dir//deleted", Parse("1 2 0:1 /dir//deleted /mnt rw - tmpfs tmpfs rw").Root);

    [Fact]
    public void Empty_source_is_read() => Assert.Equal(("", "rw"), (Parse("1 2 0:1 / /mnt rw - tmpfs  rw").Source, Parse("1 2 0:1 / /mnt rw - tmpfs  rw").SuperOptions[0]));

    [Fact]
    public void Missing_super_options_are_read() => Assert.Empty(Parse("1 2 0:1 / /mnt rw - tmpfs src").SuperOptions);

    [Fact]
    public void Path_that_is_not_utf8_is_survived()
    {
        byte[] line = [.. "1 2 0:1 / /m"u8, 0xff, .. " rw - tmpfs tmpfs rw"u8];
        Assert.True(new MountInfoParser().TryParse(line, out var entry, out _));
        Assert.Equal("/m\uFFFD", entry.Mount.Path);
    }

    [Theory]
    [InlineData("")]
    [InlineData("garbage")]
    [InlineData("x 2 0:1 / /mnt rw - tmpfs tmpfs rw")]
    [InlineData("1 2 01 / /mnt rw - tmpfs tmpfs rw")]
    [InlineData("1 2 0:1 / /mnt rw tmpfs tmpfs rw")]
    [InlineData("1 2 0:1 / /mnt")]
    [InlineData("1 2 0:1 / /mnt rw -")]
    [InlineData("99999999999999999999 2 0:1 / /mnt rw - tmpfs tmpfs rw")]
    public void Odd_line_is_refused_with_a_reason(string line)
    {
        Assert.False(new MountInfoParser().TryParse(Encoding.UTF8.GetBytes(line), out _, out var problem));
        Assert.False(string.IsNullOrEmpty(problem));
    }

    [Fact]
    public void Odd_lines_in_a_table_are_reported_and_the_others_read()
    {
        var entries = MountInfoReader.Parse("1 2 0:1 / /a rw - tmpfs t rw\nnonsense\u0001here\n2 2 0:1 / /b rw - tmpfs t rw\n"u8, out var odd);
        Assert.Equal(["/a", "/b"], entries.Select(entry => entry.Mount.Path));
        Assert.Contains("nonsense?here", Assert.Single(odd), StringComparison.Ordinal);
    }

    [Fact]
    public void Table_of_this_process_is_read_without_odd_lines()
    {
        var entries = MountInfoReader.Read(out var odd);
        Assert.Empty(odd);
        Assert.Contains(entries, entry => entry.Mount.Path == "/");
        var ids = entries.Select(entry => entry.Mount.MountId).Where(id => id is not null).ToList();
        Assert.Equal(ids.Count, ids.Distinct().Count());
    }

    [Fact]
    public void Random_bytes_never_throw()
    {
        var random = new Random(4711);
        var real = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue"u8.ToArray();
        for (var i = 0; i < 20_000; i++)
        {
            var line = (byte[])real.Clone();
            for (var n = random.Next(1, 6); n > 0; n--) line[random.Next(line.Length)] = (byte)random.Next(256);
            if (!new MountInfoParser().TryParse(line, out _, out var problem)) Assert.NotNull(problem);
        }
    }
}
