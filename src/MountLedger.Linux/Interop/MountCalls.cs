using System.Runtime.InteropServices;
using System.Text;

namespace MountLedger.Linux.Interop;

/// <summary>
/// Making and taking away mounts: fsopen(2), fsconfig(2), fsmount(2), open_tree(2), mount_setattr(2), move_mount(2),
/// umount2(2). Numbers from 428 on are the same on every architecture.
/// </summary>
internal static partial class MountCalls
{
    public const uint FSCONFIG_SET_FLAG = 0;
    public const uint FSCONFIG_SET_STRING = 1;
    public const uint FSCONFIG_SET_FD = 5;
    public const uint FSCONFIG_CMD_CREATE = 6;

    public const ulong MOUNT_ATTR_RDONLY = 0x1;
    public const ulong MOUNT_ATTR_NOSUID = 0x2;
    public const ulong MOUNT_ATTR_NODEV = 0x4;
    public const ulong MOUNT_ATTR_NOEXEC = 0x8;
    public const ulong MOUNT_ATTR_NOATIME = 0x10;
    public const ulong MOUNT_ATTR_STRICTATIME = 0x20;
    public const ulong MOUNT_ATTR_ATIME_MASK = 0x70;
    public const ulong MOUNT_ATTR_NODIRATIME = 0x80;
    public const ulong MOUNT_ATTR_NOSYMFOLLOW = 0x200000;

    public const int MNT_FORCE = 1;
    public const int MNT_DETACH = 2;
    public const int UMOUNT_NOFOLLOW = 8;

    public const uint MOVE_MOUNT_F_EMPTY_PATH = 0x4;
    public const uint MOVE_MOUNT_T_EMPTY_PATH = 0x40;
    public const uint OPEN_TREE_CLONE = 0x1;
    public const uint OPEN_TREE_CLOEXEC = 0x80000;
    public const uint AT_RECURSIVE = 0x8000;

    private const uint CloseOnExec = 1;
    private const nint OpenTreeNumber = 428;
    private const nint MoveMountNumber = 429;
    private const nint FsopenNumber = 430;
    private const nint FsconfigNumber = 431;
    private const nint FsmountNumber = 432;
    private const nint MountSetattrNumber = 442;

    /// <summary>A context for a new superblock, or −1.</summary>
    public static int OpenContext(string fsType, out int errno)
    {
        var rc = Fsopen(FsopenNumber, fsType, (nint)CloseOnExec);
        errno = rc < 0 ? Marshal.GetLastPInvokeError() : 0;
        return (int)rc;
    }

    /// <summary>One step of configuring a context; 0 or the error number. Read <see cref="ReadLog"/> only afterwards.</summary>
    public static int Configure(int context, uint command, string? key, string? value, int auxiliary)
    {
        var rc = Fsconfig(FsconfigNumber, context, (nint)command, key, value, auxiliary);
        return rc == 0 ? 0 : Marshal.GetLastPInvokeError();
    }

    /// <summary>A descriptor of the detached mount, or −1.</summary>
    public static int MakeMount(int context, ulong attributes, out int errno)
    {
        var rc = Fsmount(FsmountNumber, context, (nint)CloseOnExec, (nint)attributes);
        errno = rc < 0 ? Marshal.GetLastPInvokeError() : 0;
        return (int)rc;
    }

    /// <summary>A detached copy of the mount (tree) at <paramref name="source"/>, an O_PATH descriptor; or −1.</summary>
    public static int CloneTree(int source, bool recursive, out int errno)
    {
        var flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | PathCalls.AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
        var rc = OpenTree(OpenTreeNumber, source, "", (nint)flags);
        errno = rc < 0 ? Marshal.GetLastPInvokeError() : 0;
        return (int)rc;
    }

    /// <summary>Sets and clears attributes of a mount (tree); 0 or the error number.</summary>
    public static int SetAttributes(int mount, ulong set, ulong clear, bool recursive)
    {
        var attributes = new MountAttributes { Set = set, Clear = clear };
        var flags = PathCalls.AT_EMPTY_PATH | (recursive ? (int)AT_RECURSIVE : 0);
        var rc = MountSetattr(MountSetattrNumber, mount, "", flags, in attributes, MountAttributes.Size);
        return rc == 0 ? 0 : Marshal.GetLastPInvokeError();
    }

    /// <summary>What is mounted and unmounted in it stays in this namespace; 0 or the error number.</summary>
    public static int MakePrivate(int mount)
    {
        const ulong MS_PRIVATE = 1 << 18;
        var attributes = new MountAttributes { Propagation = MS_PRIVATE };
        var rc = MountSetattr(MountSetattrNumber, mount, "", PathCalls.AT_EMPTY_PATH, in attributes, MountAttributes.Size);
        return rc == 0 ? 0 : Marshal.GetLastPInvokeError();
    }

    /// <summary>Puts a detached mount onto an open directory, with no path looked up; 0 or the error number.</summary>
    public static int Attach(int mount, int directory)
    {
        const uint Flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
        var rc = MoveMount(MoveMountNumber, mount, "", directory, "", (nint)Flags);
        return rc == 0 ? 0 : Marshal.GetLastPInvokeError();
    }

    /// <summary>0 or the error number.</summary>
    public static int Unmount(string path, int flags)
    {
        var rc = Umount2(path, flags);
        return rc == 0 ? 0 : Marshal.GetLastPInvokeError();
    }

    /// <summary>
    /// What the kernel wrote about this context, joined; empty when nothing. It ends with a failing read: take the
    /// error number of the call in question before.
    /// </summary>
    public static unsafe string ReadLog(int context)
    {
        const int MessagesMax = 8;
        const int SizeMax = 512;
        var buffer = stackalloc byte[SizeMax];
        var messages = new List<string>();
        for (var i = 0; i < MessagesMax; i++)
        {
            var length = (int)Read(context, buffer, SizeMax);
            if (length <= 0) break;
            var text = Encoding.UTF8.GetString(buffer, length).Trim();
            messages.Add(text.Length > 2 && text[1] == ' ' ? text[2..] : text);
        }
        return string.Join("; ", messages);
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct MountAttributes
    {
        public const int Size = 32;

        public ulong Set;
        public ulong Clear;
        public ulong Propagation;
        public ulong UserNamespace;
    }

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial nint Fsopen(nint number, string fsType, nint flags);

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial nint Fsconfig(nint number, nint context, nint command, string? key, string? value, nint auxiliary);

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial nint Fsmount(nint number, nint context, nint flags, nint attributes);

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial nint OpenTree(nint number, nint directory, string path, nint flags);

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial nint MountSetattr(
        nint number, nint directory, string path, nint flags, in MountAttributes attributes, nint size);

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial nint MoveMount(nint number, nint from, string fromPath, nint to, string toPath, nint flags);

    [LibraryImport("libc", EntryPoint = "umount2", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Umount2(string path, int flags);

    [LibraryImport("libc", EntryPoint = "read")]
    private static unsafe partial nint Read(int descriptor, byte* buffer, nint size);
}
