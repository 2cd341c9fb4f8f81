using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace MountLedger.Linux.Interop;

/// <summary>
/// An open file descriptor, closed exactly once. Closing one opened with <c>O_PATH</c> never blocks, whatever the
/// filesystem below does.
/// </summary>
internal sealed partial class Descriptor : SafeHandleMinusOneIsInvalid
{
    public Descriptor(int number) : base(ownsHandle: true) => SetHandle(number);

    /// <summary>Valid only while this object is alive and not disposed: keep it in a <c>using</c> around the use.</summary>
    public int Number => (int)handle;

    protected override bool ReleaseHandle() => Close((int)handle) == 0;

    [LibraryImport("libc", EntryPoint = "close")]
    private static partial int Close(int descriptor);
}
