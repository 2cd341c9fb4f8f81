using System.Runtime.InteropServices;

namespace MountLedger.Linux;

/// <summary>The process's file creation mask (umask(2)), changed for the length of a scope: for what is created by code that takes no mode.</summary>
public sealed partial class FileCreationMask : IDisposable
{
    private readonly uint _before;

    /// <param name="mask">The permission bits that new files must not have, such as octal 077.</param>
    public FileCreationMask(uint mask) => _before = SetMask(mask);

    public void Dispose() => _ = SetMask(_before);

    [LibraryImport("libc", EntryPoint = "umask")]
    private static partial uint SetMask(uint mask);
}
