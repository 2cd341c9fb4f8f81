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

    /// <summary>
    /// Uses the number while another thread may dispose this: a closed number may be somebody else's by now.
    /// </summary>
    /// <returns><paramref name="whenClosed"/> if it is closed already.</returns>
    public TResult Use<TState, TResult>(TState state, Func<int, TState, TResult> use, TResult whenClosed)
    {
        var borrowed = false;
        try
        {
            DangerousAddRef(ref borrowed);
        }
        catch (ObjectDisposedException)
        {
            return whenClosed;
        }
        try
        {
            return use((int)handle, state);
        }
        finally
        {
            if (borrowed) DangerousRelease();
        }
    }

    protected override bool ReleaseHandle() => Close((int)handle) == 0;

    [LibraryImport("libc", EntryPoint = "close")]
    private static partial int Close(int descriptor);
}
