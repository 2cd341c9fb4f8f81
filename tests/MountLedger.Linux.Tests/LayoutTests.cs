using System.Diagnostics;
using System.Globalization;
using System.Runtime.CompilerServices;
using MountLedger.Linux.Interop;
using MountLedger.Tests;

namespace MountLedger.Linux.Tests;

/// <summary>
/// Every constant and size against the headers of the system, by a C program. What the installed headers do not know
/// (statmount came with Linux 6.8) the program leaves out.
/// </summary>
public sealed class LayoutTests
{
    private static readonly (string Name, ulong Value)[] Constants =
    [
        ("FSCONFIG_SET_FLAG", MountCalls.FSCONFIG_SET_FLAG), ("FSCONFIG_SET_STRING", MountCalls.FSCONFIG_SET_STRING),
        ("FSCONFIG_SET_FD", MountCalls.FSCONFIG_SET_FD), ("FSCONFIG_CMD_CREATE", MountCalls.FSCONFIG_CMD_CREATE),
        ("MOUNT_ATTR_RDONLY", MountCalls.MOUNT_ATTR_RDONLY), ("MOUNT_ATTR_NOSUID", MountCalls.MOUNT_ATTR_NOSUID),
        ("MOUNT_ATTR_NODEV", MountCalls.MOUNT_ATTR_NODEV), ("MOUNT_ATTR_NOEXEC", MountCalls.MOUNT_ATTR_NOEXEC),
        ("MOUNT_ATTR_NOATIME", MountCalls.MOUNT_ATTR_NOATIME), ("MOUNT_ATTR_STRICTATIME", MountCalls.MOUNT_ATTR_STRICTATIME),
        ("MOUNT_ATTR__ATIME", MountCalls.MOUNT_ATTR_ATIME_MASK), ("MOUNT_ATTR_NODIRATIME", MountCalls.MOUNT_ATTR_NODIRATIME),
        ("MOUNT_ATTR_NOSYMFOLLOW", MountCalls.MOUNT_ATTR_NOSYMFOLLOW),
        ("MOVE_MOUNT_F_EMPTY_PATH", MountCalls.MOVE_MOUNT_F_EMPTY_PATH), ("MOVE_MOUNT_T_EMPTY_PATH", MountCalls.MOVE_MOUNT_T_EMPTY_PATH),
        ("OPEN_TREE_CLONE", MountCalls.OPEN_TREE_CLONE), ("OPEN_TREE_CLOEXEC", MountCalls.OPEN_TREE_CLOEXEC),
        ("AT_RECURSIVE", MountCalls.AT_RECURSIVE), ("MNT_FORCE", MountCalls.MNT_FORCE), ("MNT_DETACH", MountCalls.MNT_DETACH),
        ("UMOUNT_NOFOLLOW", MountCalls.UMOUNT_NOFOLLOW), ("AT_REMOVEDIR", PathCalls.AT_REMOVEDIR), ("AT_EMPTY_PATH", PathCalls.AT_EMPTY_PATH),
        ("O_RDWR", PathCalls.O_RDWR), ("O_CREAT", PathCalls.O_CREAT), ("O_CLOEXEC", PathCalls.O_CLOEXEC), ("O_PATH", PathCalls.O_PATH),
        ("O_DIRECTORY", PathCalls.O_DIRECTORY), ("RESOLVE_NO_MAGICLINKS", PathCalls.RESOLVE_NO_MAGICLINKS),
        ("RESOLVE_NO_SYMLINKS", PathCalls.RESOLVE_NO_SYMLINKS), ("RESOLVE_BENEATH", PathCalls.RESOLVE_BENEATH),
        ("sizeof(struct open_how)", PathCalls.OpenHow.Size), ("sizeof(struct mount_attr)", MountCalls.MountAttributes.Size),
        ("sizeof(struct statx)", MountQueryCalls.StatxSize), ("STATX_TYPE", MountQueryCalls.STATX_TYPE),
        ("STATX_MNT_ID", MountQueryCalls.STATX_MNT_ID), ("STATX_MNT_ID_UNIQUE", MountQueryCalls.STATX_MNT_ID_UNIQUE),
        ("STATX_ATTR_MOUNT_ROOT", MountQueryCalls.STATX_ATTR_MOUNT_ROOT), ("AT_STATX_DONT_SYNC", MountQueryCalls.AT_STATX_DONT_SYNC),
        ("AT_NO_AUTOMOUNT", MountQueryCalls.AT_NO_AUTOMOUNT), ("offsetof(struct statx, stx_mnt_id)", 144),
        ("STATMOUNT_SB_BASIC", MountQueryCalls.SB_BASIC), ("STATMOUNT_MNT_BASIC", MountQueryCalls.MNT_BASIC),
        ("STATMOUNT_MNT_ROOT", MountQueryCalls.MNT_ROOT), ("STATMOUNT_MNT_POINT", MountQueryCalls.MNT_POINT),
        ("STATMOUNT_FS_TYPE", MountQueryCalls.FS_TYPE), ("STATMOUNT_MNT_OPTS", MountQueryCalls.MNT_OPTS),
        ("STATMOUNT_FS_SUBTYPE", MountQueryCalls.FS_SUBTYPE), ("STATMOUNT_SB_SOURCE", MountQueryCalls.SB_SOURCE),
        ("LOOP_CTL_GET_FREE", LoopCalls.LOOP_CTL_GET_FREE), ("LOOP_CONFIGURE", LoopCalls.LOOP_CONFIGURE),
        ("LO_FLAGS_READ_ONLY", LoopCalls.LO_FLAGS_READ_ONLY), ("LO_FLAGS_AUTOCLEAR", LoopCalls.LO_FLAGS_AUTOCLEAR),
        ("sizeof(struct loop_config)", LoopCalls.ConfigSize), ("offsetof(struct loop_config, info.lo_flags)", LoopCalls.FlagsOffset),
        ("offsetof(struct loop_config, info.lo_file_name)", LoopCalls.FileNameOffset), ("LO_NAME_SIZE", LoopCalls.FileNameSize),
        ("POLLRDHUP", (ulong)SocketCalls.POLLRDHUP), ("POLLPRI", (ulong)SocketCalls.POLLPRI), ("SIGKILL", ProcessCalls.SIGKILL),
        ("SYS_openat2", 437), ("SYS_open_tree", 428), ("SYS_move_mount", 429), ("SYS_fsopen", 430), ("SYS_fsconfig", 431),
        ("SYS_fsmount", 432), ("SYS_mount_setattr", 442), ("SYS_pidfd_send_signal", 424), ("SYS_pidfd_open", 434),
        ("SYS_close_range", 436), ("SYS_statmount", 457), ("SYS_listmount", 458),
    ];

    [SkippableFact]
    public void Constants_and_layouts_are_those_of_the_headers()
    {
        var compiler = File.Exists("/usr/bin/gcc");
        Skip.If(!compiler && !RootEnvironment.IsCi, "no gcc here");
        var directory = Directory.CreateTempSubdirectory("mountledger-test-").FullName;
        try
        {
            var source = Path.Combine(directory, "layout.c");
            File.WriteAllText(source, Program());
            Run("/usr/bin/gcc", "-o", Path.Combine(directory, "layout"), source);
            var known = Run(Path.Combine(directory, "layout")).Split('\n', StringSplitOptions.RemoveEmptyEntries)
                .Select(line => line.Split('=')).ToDictionary(pair => int.Parse(pair[0], CultureInfo.InvariantCulture), pair => ulong.Parse(pair[1], CultureInfo.InvariantCulture));
            Assert.True(known.Count > 50, $"the headers know only {known.Count}");
            Assert.All(known, pair => Assert.Equal(Constants[pair.Key], (Constants[pair.Key].Name, pair.Value)));
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }
    }

    [Fact]
    public void Structs_have_the_sizes_that_are_passed()
    {
        Assert.Equal(PathCalls.OpenHow.Size, Unsafe.SizeOf<PathCalls.OpenHow>());
        Assert.Equal(MountCalls.MountAttributes.Size, Unsafe.SizeOf<MountCalls.MountAttributes>());
        Assert.Equal(MountQueryCalls.MountIdRequest.SizeInBytes, (uint)Unsafe.SizeOf<MountQueryCalls.MountIdRequest>());
    }

    /// <summary>Prints <c>index=value</c>; macros that the headers lack are left out, enums and structs they all have.</summary>
    private static string Program()
    {
        var body = string.Concat(Constants.Select((constant, index) =>
        {
            var print = $"printf(\"{index}=%llu\\n\", (unsigned long long)({constant.Name}));\n";
            var always = constant.Name.StartsWith("FSCONFIG", StringComparison.Ordinal) || constant.Name.Contains('(', StringComparison.Ordinal)
                || constant.Name is "MNT_FORCE" or "MNT_DETACH" or "UMOUNT_NOFOLLOW" or "LO_FLAGS_READ_ONLY" or "LO_FLAGS_AUTOCLEAR";
            return always ? print : $"#ifdef {constant.Name}\n{print}#endif\n";
        }));
        return "#define _GNU_SOURCE\n#include <stdio.h>\n#include <stddef.h>\n#include <fcntl.h>\n#include <poll.h>\n#include <signal.h>\n"
            + "#include <sys/mount.h>\n#include <sys/stat.h>\n#include <sys/syscall.h>\n#include <linux/mount.h>\n#include <linux/openat2.h>\n"
            + "#include <linux/loop.h>\nint main(void) {\n" + body + "return 0; }\n";
    }

    private static string Run(string program, params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        var error = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, error.Result);
        return output;
    }
}
