using System.Runtime.InteropServices;

namespace MountLedger.Linux.Interop;

/// <summary>A socket pair that keeps messages apart and carries descriptors: unix(7), SOCK_SEQPACKET, SCM_RIGHTS.</summary>
internal static partial class PacketCalls
{
    public const int DescriptorsMax = 2;

    private const int AF_UNIX = 1;
    private const int SOCK_SEQPACKET = 5;
    private const int SOCK_CLOEXEC = 0x80000;
    private const int SOL_SOCKET = 1;
    private const int SO_TYPE = 3;
    private const int SCM_RIGHTS = 1;
    private const int MSG_NOSIGNAL = 0x4000;
    private const int MSG_CMSG_CLOEXEC = 0x40000000;
    private const int ControlHeaderSize = 16;
    private const int ControlSize = ControlHeaderSize + (DescriptorsMax * sizeof(int));

    /// <summary>0 and two connected descriptors, or the error number.</summary>
    public static unsafe int Pair(out Descriptor? first, out Descriptor? second)
    {
        var pair = stackalloc int[2];
        var rc = SocketPair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
        var errno = rc == 0 ? 0 : Marshal.GetLastPInvokeError();
        (first, second) = errno == 0 ? (new Descriptor(pair[0]), new Descriptor(pair[1])) : ((Descriptor?)null, (Descriptor?)null);
        return errno;
    }

    /// <summary>Whether an open descriptor is such a socket.</summary>
    public static unsafe bool IsOne(int descriptor)
    {
        int type = 0;
        var size = (uint)sizeof(int);
        return GetSocketOption(descriptor, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET;
    }

    /// <summary>Sends one message with up to two descriptors; 0 or the error number.</summary>
    public static unsafe int Send(int socket, ReadOnlySpan<byte> message, ReadOnlySpan<int> descriptors)
    {
        var control = stackalloc byte[ControlSize];
        var length = ControlHeaderSize + (descriptors.Length * sizeof(int));
        *(ulong*)control = (ulong)length;
        *(int*)(control + 8) = SOL_SOCKET;
        *(int*)(control + 12) = SCM_RIGHTS;
        descriptors.CopyTo(new Span<int>(control + ControlHeaderSize, DescriptorsMax));
        fixed (byte* start = message)
        {
            var part = new Part { Start = start, Length = (nuint)message.Length };
            // The length of the control data is rounded up to whole words.
            var header = new Header
            {
                Parts = &part,
                PartCount = 1,
                Control = descriptors.Length > 0 ? control : null,
                ControlLength = descriptors.Length > 0 ? (nuint)((length + 7) & ~7) : 0,
            };
            while (true)
            {
                var rc = SendMessage(socket, &header, MSG_NOSIGNAL);
                var errno = rc < 0 ? Marshal.GetLastPInvokeError() : 0;
                if (errno != Errno.EINTR) return errno;
            }
        }
    }

    /// <summary>
    /// Waits for one message: its length, 0 at the end and at any error. The descriptors that came with it, close-on-exec, are the caller's.
    /// </summary>
    public static unsafe int Receive(int socket, Span<byte> message, List<Descriptor> descriptors)
    {
        var control = stackalloc byte[ControlSize];
        fixed (byte* start = message)
        {
            var part = new Part { Start = start, Length = (nuint)message.Length };
            while (true)
            {
                var header = new Header { Parts = &part, PartCount = 1, Control = control, ControlLength = ControlSize };
                var rc = ReceiveMessage(socket, &header, MSG_CMSG_CLOEXEC);
                var errno = rc < 0 ? Marshal.GetLastPInvokeError() : 0;
                if (errno == Errno.EINTR) continue;
                if (errno != 0) return 0;
                if (header.ControlLength >= ControlHeaderSize && *(int*)(control + 8) == SOL_SOCKET && *(int*)(control + 12) == SCM_RIGHTS)
                {
                    var count = Math.Min(DescriptorsMax, ((int)*(ulong*)control - ControlHeaderSize) / sizeof(int));
                    for (var i = 0; i < count; i++) descriptors.Add(new Descriptor(((int*)(control + ControlHeaderSize))[i]));
                }
                return (int)rc;
            }
        }
    }

    /// <summary>struct iovec</summary>
    [StructLayout(LayoutKind.Sequential)]
    private unsafe struct Part
    {
        public byte* Start;
        public nuint Length;
    }

    /// <summary>struct msghdr, 64-bit</summary>
    [StructLayout(LayoutKind.Sequential)]
    private unsafe struct Header
    {
        public void* Name;
        public uint NameLength;
        public Part* Parts;
        public nuint PartCount;
        public void* Control;
        public nuint ControlLength;
        public int Flags;
    }

    [LibraryImport("libc", EntryPoint = "socketpair", SetLastError = true)]
    private static unsafe partial int SocketPair(int family, int type, int protocol, int* pair);

    [LibraryImport("libc", EntryPoint = "getsockopt")]
    private static unsafe partial int GetSocketOption(int socket, int level, int option, void* value, uint* size);

    [LibraryImport("libc", EntryPoint = "sendmsg", SetLastError = true)]
    private static unsafe partial nint SendMessage(int socket, Header* message, int flags);

    [LibraryImport("libc", EntryPoint = "recvmsg", SetLastError = true)]
    private static unsafe partial nint ReceiveMessage(int socket, Header* message, int flags);
}
