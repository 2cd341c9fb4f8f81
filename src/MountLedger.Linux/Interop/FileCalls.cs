using System.Runtime.InteropServices;

namespace MountLedger.Linux.Interop;

/// <summary>Looking at, reading and writing an open file: statx(2), read(2), write(2), geteuid(2), pipe2(2).</summary>
internal static partial class FileCalls
{
    private const int AT_EMPTY_PATH = 0x1000;
    private const uint STATX_BASIC_STATS = 0x7FF;
    private const uint S_IFMT = 0xF000;
    private const uint S_IFREG = 0x8000;

    /// <summary>Of a file, by its descriptor. <paramref name="Mode"/>: permission bits alone.</summary>
    public readonly record struct FileStatus(uint Mode, bool IsFile, uint Owner, long Size);

    /// <summary>What an open descriptor refers to; <paramref name="errno"/> is 0 or says why that is not known.</summary>
    public static FileStatus Status(int descriptor, out int errno)
    {
        var rc = Statx(descriptor, "", AT_EMPTY_PATH, STATX_BASIC_STATS, out var status);
        errno = rc == 0 ? 0 : Marshal.GetLastPInvokeError();
        return new FileStatus(status.Mode & 0xFFFu, (status.Mode & S_IFMT) == S_IFREG, status.Uid, (long)status.Size);
    }

    /// <summary>How many bytes were read, 0 at the end; <paramref name="errno"/> is 0 or the error.</summary>
    public static unsafe int Read(int descriptor, Span<byte> bytes, out int errno)
    {
        nint rc;
        fixed (byte* start = bytes) rc = ReadDescriptor(descriptor, start, bytes.Length);
        errno = rc >= 0 ? 0 : Marshal.GetLastPInvokeError();
        return (int)Math.Max(rc, 0);
    }

    /// <summary>Writes all of it; 0 or the error number.</summary>
    public static unsafe int WriteAll(int descriptor, ReadOnlySpan<byte> bytes)
    {
        while (!bytes.IsEmpty)
        {
            nint rc;
            fixed (byte* start = bytes) rc = WriteDescriptor(descriptor, start, bytes.Length);
            var errno = rc >= 0 ? 0 : Marshal.GetLastPInvokeError();
            if (errno == Errno.EINTR) continue;
            if (errno != 0) return errno;
            bytes = bytes[(int)rc..];
        }
        return 0;
    }

    [LibraryImport("libc", EntryPoint = "geteuid")]
    public static partial uint EffectiveUser();

    /// <summary>struct statx, 256 bytes; only what is used is named.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 256)]
    private struct StatxBuffer
    {
        [FieldOffset(20)]
        public uint Uid;

        [FieldOffset(28)]
        public ushort Mode;

        [FieldOffset(40)]
        public ulong Size;
    }

    [LibraryImport("libc", EntryPoint = "statx", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Statx(int directory, string path, int flags, uint mask, out StatxBuffer buffer);

    [LibraryImport("libc", EntryPoint = "read", SetLastError = true)]
    private static unsafe partial nint ReadDescriptor(int descriptor, byte* bytes, nint length);

    [LibraryImport("libc", EntryPoint = "write", SetLastError = true)]
    private static unsafe partial nint WriteDescriptor(int descriptor, byte* bytes, nint length);
}
