using System.Runtime.InteropServices;

namespace MountLedger.Linux.Interop;

/// <summary>The stream socket between agent and worker: socketpair(2), send(2), recv(2), shutdown(2), poll(2).</summary>
internal static partial class SocketCalls
{
    public const short POLLIN = 0x1;
    public const short POLLPRI = 0x2;
    public const short POLLRDHUP = 0x2000;

    private const int AF_UNIX = 1;
    private const int SOCK_STREAM = 1;
    private const int SOCK_CLOEXEC = 0x80000;
    private const int MSG_NOSIGNAL = 0x4000;
    private const int SOL_SOCKET = 1;
    private const int SO_SNDTIMEO = 21;
    private const int SHUT_RDWR = 2;

    /// <summary>0 and two connected descriptors, or the error number.</summary>
    public static unsafe int Pair(out Descriptor? first, out Descriptor? second)
    {
        var pair = stackalloc int[2];
        var rc = SocketPair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
        var errno = rc == 0 ? 0 : Marshal.GetLastPInvokeError();
        (first, second) = errno == 0 ? (new Descriptor(pair[0]), new Descriptor(pair[1])) : ((Descriptor?)null, (Descriptor?)null);
        return errno;
    }

    /// <summary>How long a send may wait for a peer that does not read; 0 or the error number.</summary>
    public static unsafe int LimitSendTime(int socket, TimeSpan limit)
    {
        var time = stackalloc long[2];
        time[0] = (long)limit.TotalSeconds;
        time[1] = limit.Milliseconds * 1000L;
        var rc = SetSocketOption(socket, SOL_SOCKET, SO_SNDTIMEO, time, 16);
        return rc == 0 ? 0 : Marshal.GetLastPInvokeError();
    }

    /// <summary>Sends all bytes; 0 or the error number (EAGAIN: the time limit passed, part of it may have been sent).</summary>
    public static unsafe int SendAll(int socket, ReadOnlySpan<byte> bytes)
    {
        fixed (byte* start = bytes)
        {
            for (var sent = 0; sent < bytes.Length;)
            {
                var rc = Send(socket, start + sent, bytes.Length - sent, MSG_NOSIGNAL);
                var errno = rc < 0 ? Marshal.GetLastPInvokeError() : 0;
                if (errno == Errno.EINTR) continue;
                if (errno != 0) return errno;
                sent += (int)rc;
            }
        }
        return 0;
    }

    /// <summary>Waits for bytes; 0 at the end of the stream, and at any error.</summary>
    public static unsafe int Receive(int socket, Span<byte> bytes)
    {
        const int StarvedMax = 1000;
        var starved = 0;
        fixed (byte* start = bytes)
        {
            while (true)
            {
                var rc = Recv(socket, start, bytes.Length, 0);
                var errno = rc < 0 ? Marshal.GetLastPInvokeError() : 0;
                if (errno == Errno.EINTR) continue;
                // The kernel had no memory for it just now; what came is there still, and giving up would end a worker amid its work.
                if (errno == Errno.ENOMEM && ++starved < StarvedMax)
                {
                    Thread.Sleep(1);
                    continue;
                }
                return errno != 0 ? 0 : (int)rc;
            }
        }
    }

    /// <summary>Ends the stream in both directions, so that a thread that waits in <see cref="Receive"/> returns.</summary>
    public static int Shutdown(int socket) => ShutdownSocket(socket, SHUT_RDWR);

    /// <summary>The events that came within the time (−1: wait for ever), 0 when none or interrupted.</summary>
    public static unsafe short Poll(int descriptor, short events, int timeoutMs)
    {
        var entry = new PollEntry { Descriptor = descriptor, Events = events };
        return PollDescriptors(&entry, 1, timeoutMs) > 0 ? entry.Returned : (short)0;
    }

    /// <summary>Waits for any of some descriptors (a negative one is left out); <paramref name="came"/> gets what came on each.</summary>
    public static unsafe void Poll(ReadOnlySpan<int> descriptors, ReadOnlySpan<short> events, Span<short> came, int timeoutMs)
    {
        var entries = stackalloc PollEntry[descriptors.Length];
        for (var i = 0; i < descriptors.Length; i++) entries[i] = new PollEntry { Descriptor = descriptors[i], Events = events[i] };
        var any = PollDescriptors(entries, (nuint)descriptors.Length, timeoutMs) > 0;
        for (var i = 0; i < descriptors.Length; i++) came[i] = any ? entries[i].Returned : (short)0;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct PollEntry
    {
        public int Descriptor;
        public short Events;
        public short Returned;
    }

    [LibraryImport("libc", EntryPoint = "socketpair", SetLastError = true)]
    private static unsafe partial int SocketPair(int family, int type, int protocol, int* pair);

    [LibraryImport("libc", EntryPoint = "setsockopt", SetLastError = true)]
    private static unsafe partial int SetSocketOption(int socket, int level, int option, void* value, uint size);

    [LibraryImport("libc", EntryPoint = "send", SetLastError = true)]
    private static unsafe partial nint Send(int socket, byte* bytes, nint length, int flags);

    [LibraryImport("libc", EntryPoint = "recv", SetLastError = true)]
    private static unsafe partial nint Recv(int socket, byte* bytes, nint length, int flags);

    [LibraryImport("libc", EntryPoint = "shutdown")]
    private static partial int ShutdownSocket(int socket, int how);

    [LibraryImport("libc", EntryPoint = "poll")]
    private static unsafe partial int PollDescriptors(PollEntry* entries, nuint count, int timeoutMs);
}
