using System.Runtime.InteropServices;
using System.Text;

namespace MountLedger.Linux.Interop;

/// <summary>Opening, making and removing paths relative to a held descriptor: openat2(2), mkdirat(2), unlinkat(2), readlinkat(2).</summary>
internal static partial class PathCalls
{
    public const int AT_FDCWD = -100;
    public const int AT_REMOVEDIR = 0x200;
    public const int AT_EMPTY_PATH = 0x1000;

    public const ulong O_RDONLY = 0;
    public const ulong O_RDWR = 2;
    public const ulong O_CREAT = 0x40;
    public const ulong O_CLOEXEC = 0x80000;
    public const ulong O_PATH = 0x200000;

    /// <summary>Differs between the two architectures: arm64 kept its own older number.</summary>
    public static readonly ulong O_DIRECTORY = RuntimeInformation.ProcessArchitecture == Architecture.Arm64 ? 0x4000UL : 0x10000UL;

    public const ulong RESOLVE_NO_MAGICLINKS = 2;
    public const ulong RESOLVE_NO_SYMLINKS = 4;
    public const ulong RESOLVE_BENEATH = 8;

    private const nint Openat2Number = 437;

    /// <summary>Opens with openat2; −1 and the error number when it fails. <paramref name="mode"/> is for O_CREAT only.</summary>
    public static int OpenAt(int directory, string path, ulong flags, ulong resolve, out int errno, ulong mode = 0)
    {
        var how = new OpenHow { Flags = flags | O_CLOEXEC, Mode = mode, Resolve = resolve };
        var rc = Openat2(Openat2Number, directory, path, in how, OpenHow.Size);
        errno = rc < 0 ? Marshal.GetLastPInvokeError() : 0;
        return (int)rc;
    }

    /// <summary>0, or the error number.</summary>
    public static int MakeDirectory(int directory, string name, uint mode)
    {
        var rc = Mkdirat(directory, name, mode);
        return rc == 0 ? 0 : Marshal.GetLastPInvokeError();
    }

    /// <summary>Gives an open directory (O_PATH will do) to a user and a group; 0 or the error number.</summary>
    public static int ChangeOwner(int directory, uint user, uint group)
    {
        var rc = Fchownat(directory, "", user, group, AT_EMPTY_PATH);
        return rc == 0 ? 0 : Marshal.GetLastPInvokeError();
    }

    /// <summary>0, or the error number. Never follows a link, and never removes what is not empty.</summary>
    public static int RemoveDirectory(int directory, string name)
    {
        var rc = Unlinkat(directory, name, AT_REMOVEDIR);
        return rc == 0 ? 0 : Marshal.GetLastPInvokeError();
    }

    /// <summary>The target of a link as text, or null. Touches the link only, never what it points to.</summary>
    public static unsafe string? ReadLink(string path)
    {
        const int SizeMax = 4096;
        var buffer = stackalloc byte[SizeMax];
        var length = Readlinkat(AT_FDCWD, path, buffer, SizeMax);
        return length < 0 ? null : Encoding.UTF8.GetString(buffer, (int)length);
    }

    /// <summary>Sets the mask to zero, so that directories get exactly the mode that is configured.</summary>
    public static void ClearUmask() => _ = Umask(0);

    [StructLayout(LayoutKind.Sequential)]
    internal struct OpenHow
    {
        public const int Size = 24;

        public ulong Flags;
        public ulong Mode;
        public ulong Resolve;
    }

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial nint Openat2(nint number, nint directory, string path, in OpenHow how, nint size);

    [LibraryImport("libc", EntryPoint = "mkdirat", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Mkdirat(int directory, string path, uint mode);

    [LibraryImport("libc", EntryPoint = "fchownat", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Fchownat(int directory, string path, uint user, uint group, int flags);

    [LibraryImport("libc", EntryPoint = "unlinkat", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Unlinkat(int directory, string path, int flags);

    [LibraryImport("libc", EntryPoint = "readlinkat", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static unsafe partial nint Readlinkat(int directory, string path, byte* buffer, nint size);

    [LibraryImport("libc", EntryPoint = "umask")]
    private static partial uint Umask(uint mask);
}
