using System.Globalization;
using Microsoft.Win32.SafeHandles;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// One agent for one mount table: a lock on a file named after the mount namespace, held until this object is disposed or
/// the process ends. The worker never inherits it, so a worker that the kernel holds on to does not keep a new agent out.
/// </summary>
public sealed class HostLock : IDisposable
{
    public const string DefaultDirectory = "/run/mountledger";

    private const ulong FileMode = 0b110_100_100;

    private readonly FileStream file;

    private HostLock(FileStream file) => this.file = file;

    /// <summary>Takes the lock without waiting.</summary>
    /// <returns>The lock; or null with the pid of the process that has it (null when the file does not tell).</returns>
    /// <exception cref="IOException">The directory or the file cannot be made or opened.</exception>
    public static HostLock? TryTake(string directory, ulong mountNamespaceId, out int? holderPid)
    {
        Directory.CreateDirectory(
            directory, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute
                | UnixFileMode.GroupRead | UnixFileMode.GroupExecute | UnixFileMode.OtherRead | UnixFileMode.OtherExecute);
        var path = Path.Combine(directory, $"{mountNamespaceId}.lock");
        holderPid = null;

        // Not by FileStream's own opening: it takes a lock of its own, and throws when somebody has the file.
        var number = PathCalls.OpenAt(
            PathCalls.AT_FDCWD, path, PathCalls.O_RDWR | PathCalls.O_CREAT, PathCalls.RESOLVE_NO_MAGICLINKS, out var openError, FileMode);
        if (number < 0) throw new IOException($"open {path}: {Errno.Name(openError)}");
        var file = new FileStream(new SafeFileHandle(number, ownsHandle: true), FileAccess.ReadWrite, 0);
        var errno = IdentityCalls.TryLock(number);
        if (errno == 0)
        {
            file.SetLength(0);
            file.Write(System.Text.Encoding.ASCII.GetBytes(Environment.ProcessId.ToString(CultureInfo.InvariantCulture) + "\n"));
            return new HostLock(file);
        }

        using (file)
        {
            if (errno != Errno.EAGAIN) throw new IOException($"lock {path}: {Errno.Name(errno)}");
            Span<byte> text = stackalloc byte[16];
            var length = file.ReadAtLeast(text, text.Length, throwOnEndOfStream: false);
            if (int.TryParse(System.Text.Encoding.ASCII.GetString(text[..length]).AsSpan().Trim(), out var pid)) holderPid = pid;
            return null;
        }
    }

    public void Dispose()
    {
        if (!file.SafeFileHandle.IsClosed) IdentityCalls.Unlock((int)file.SafeFileHandle.DangerousGetHandle());
        file.Dispose();
    }
}
