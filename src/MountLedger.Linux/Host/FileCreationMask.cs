using System.Runtime.InteropServices;

namespace MountLedger.Linux;

/// <summary>The process's file creation mask (umask(2)). It is one for all threads: to be set once, before anything else runs.</summary>
public static partial class FileCreationMask
{
    /// <summary>From now on new files have at least these permission bits taken away, such as octal 022.</summary>
    public static void Restrict(uint bits) => _ = SetMask(SetMask(0x1FF) | bits);

    [LibraryImport("libc", EntryPoint = "umask")]
    private static partial uint SetMask(uint mask);
}
