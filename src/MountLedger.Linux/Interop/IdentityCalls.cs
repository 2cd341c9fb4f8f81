using System.Runtime.InteropServices;

namespace MountLedger.Linux.Interop;

/// <summary>Who and what this process is among others: flock(2), getpwuid_r(3), geteuid(2), ioctl_nsfs(2).</summary>
internal static partial class IdentityCalls
{
    private const int LOCK_EX = 2;
    private const int LOCK_NB = 4;
    private const int LOCK_UN = 8;
    private const nuint NS_GET_MNTNS_ID = 0x8008b705;
    private const int PasswordBufferSize = 4096;

    /// <summary>Takes an exclusive lock without waiting; 0 or the error number (EAGAIN: another process has it).</summary>
    public static int TryLock(int descriptor)
    {
        var rc = Flock(descriptor, LOCK_EX | LOCK_NB);
        return rc == 0 ? 0 : Marshal.GetLastPInvokeError();
    }

    /// <summary>Gives the lock back, also when a child that has just been forked still has the descriptor.</summary>
    public static void Unlock(int descriptor) => Flock(descriptor, LOCK_UN);

    /// <summary>The unique id of the mount namespace that an open /proc/PID/ns/mnt shows; null on a kernel that has none.</summary>
    public static unsafe ulong? MountNamespaceId(int descriptor)
    {
        ulong id;
        return IoControl(descriptor, NS_GET_MNTNS_ID, &id) == 0 && id != 0 ? id : null;
    }

    /// <summary>The name of a user, or null when the system knows none.</summary>
    public static unsafe string? UserName(uint uid)
    {
        // struct passwd starts with the pointer to the name; 48 bytes on 64-bit Linux.
        var entry = stackalloc byte[64];
        var buffer = stackalloc byte[PasswordBufferSize];
        void* found;
        var rc = GetPasswordEntry(uid, entry, buffer, PasswordBufferSize, &found);
        return rc != 0 || found == null ? null : Marshal.PtrToStringUTF8(*(nint*)entry);
    }

    [LibraryImport("libc", EntryPoint = "geteuid")]
    public static partial uint EffectiveUser();

    [LibraryImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    private static unsafe partial int IoControl(int descriptor, nuint request, ulong* value);

    [LibraryImport("libc", EntryPoint = "flock", SetLastError = true)]
    private static partial int Flock(int descriptor, int operation);

    [LibraryImport("libc", EntryPoint = "getpwuid_r")]
    private static unsafe partial int GetPasswordEntry(uint uid, byte* entry, byte* buffer, nuint size, void** found);
}
