using System.Buffers.Binary;
using System.Text;
using System.Threading.Channels;
using Microsoft.Extensions.Logging;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// Tells changes of this process's mount table. Attaches, detaches and moves come from fanotify, each with its mount; that something else
/// changed (options) from poll on mountinfo, which on kernels without mount events stands for everything. Neither touches a filesystem.
/// What others do outside the roots costs one look-up by id and no memory.
/// </summary>
internal sealed class MountTableWatch : IDisposable
{
    /// <summary>Changes that nobody has taken yet; beyond that they are dropped, and everything is to be looked at.</summary>
    private const int QueueMax = 1 << 16;

    private const int EventBytesMax = 1 << 16;

    /// <summary>The kernel queues the event of a mount a moment after it has marked the table as changed.</summary>
    private const int EventDelayMs = 2;

    /// <summary>Without mount events each change of a busy table would be a wake-up of its own.</summary>
    private const int PollPauseMs = 20;

    private const int RetryMs = 50;

    private readonly Channel<MountTableChange> _changes = Channel.CreateBounded<MountTableChange>(
        new BoundedChannelOptions(QueueMax) { SingleReader = true, SingleWriter = true });
    private readonly byte[][] _roots;
    private readonly Descriptor? _events;
    private readonly Descriptor _table;
    private readonly Descriptor _stop;
    private readonly Descriptor _stopped;
    private readonly byte[] _buffer = new byte[EventBytesMax];
    private readonly byte[] _mount = new byte[MountQueryCalls.StatmountFixedSize + 8192];
    private bool _lost;

    private MountTableWatch(IReadOnlyList<string> roots, Descriptor? events, Descriptor table, Descriptor stop, Descriptor stopped)
    {
        (_events, _table, _stop, _stopped) = (events, table, stop, stopped);
        _roots = [.. roots.Select(root => Encoding.UTF8.GetBytes(root.TrimEnd('/') + "/"))];
        new Thread(Run) { IsBackground = true, Name = "mount-table" }.Start();
    }

    /// <summary>Begins to watch; what happens from now on is told.</summary>
    /// <param name="openEvents">Opens a group of the mount events of this namespace, which takes a capability; null and the error number: there is none.</param>
    /// <exception cref="IOException">/proc is not there.</exception>
    public static MountTableWatch Start(IReadOnlyList<string> roots, ILogger logger, Func<(Descriptor? Group, int Errno)> openEvents)
    {
        var table = Open("/proc/self/mountinfo");
        // An event tells a unique id and nothing else: of no use where the kernel does not say what that is.
        var (events, errno) = KernelInterfaces.HasUniqueIds ? openEvents() : (null, Errno.ENOSYS);
        if (events is null)
            logger.LogInformation("The kernel tells no mount events ({Errno}): the mount table is compared whenever it changes", Errno.Name(errno));
        errno = SocketCalls.Pair(out var stop, out var stopped);
        if (errno != 0 || stop is null || stopped is null) throw new IOException($"socketpair: {Errno.Name(errno)}");
        return new MountTableWatch(roots, events, table, stop, stopped);
    }

    public IAsyncEnumerable<MountTableChange> ReadAllAsync(CancellationToken cancellationToken) => _changes.Reader.ReadAllAsync(cancellationToken);

    /// <summary>Ends the watch; its thread closes what it uses.</summary>
    public void Dispose() => _stop.Dispose();

    private static Descriptor Open(string path)
    {
        var number = PathCalls.OpenAt(PathCalls.AT_FDCWD, path, PathCalls.O_RDONLY, 0, out var errno);
        return number >= 0 ? new Descriptor(number) : throw new IOException($"{path}: {Errno.Name(errno)}");
    }

    private void Run()
    {
        using (_table)
        using (_stopped)
        using (_events)
        {
            while (Wait(out var named, out var changed))
            {
                var told = named && ReadEvents();
                if (changed) Explain(told);
                if (_lost && _changes.Writer.TryWrite(new(TableChangeKind.Unclear, 0, null))) _lost = false;
            }
        }
        _changes.Writer.TryComplete();
    }

    /// <returns>False: the watch is to end.</returns>
    private bool Wait(out bool named, out bool changed)
    {
        Span<short> came = stackalloc short[3];
        SocketCalls.Poll(
            [_stopped.Number, _table.Number, _events?.Number ?? -1],
            [SocketCalls.POLLIN, SocketCalls.POLLPRI, SocketCalls.POLLIN], came, _lost ? RetryMs : -1);
        (changed, named) = (came[1] != 0, came[2] != 0);
        return came[0] == 0;
    }

    /// <summary>The table changed: if no event says how, it was something that has none.</summary>
    private void Explain(bool told)
    {
        if (_events is null)
        {
            Tell(new(TableChangeKind.Unclear, 0, null));
            Thread.Sleep(PollPauseMs);
            return;
        }
        if (!told)
        {
            Thread.Sleep(EventDelayMs);
            told = ReadEvents();
        }
        if (!told) Tell(new(TableChangeKind.Unclear, 0, null));
        // What those events were marked by has been taken note of. A remount in just this moment is left to the slow audit.
        else SocketCalls.Poll(_table.Number, SocketCalls.POLLPRI, 0);
    }

    /// <returns>Whether there were any.</returns>
    private bool ReadEvents()
    {
        var any = false;
        while (true)
        {
            var length = FanotifyCalls.Read(_events!.Number, _buffer);
            if (length <= 0) return any;
            any = true;
            for (var events = _buffer.AsSpan(0, length); events.Length >= FanotifyCalls.MetadataSize;)
            {
                var size = (int)BinaryPrimitives.ReadUInt32LittleEndian(events);
                if (size < FanotifyCalls.MetadataSize || size > events.Length) break;
                Take(events[..size]);
                events = events[size..];
            }
        }
    }

    private void Take(ReadOnlySpan<byte> one)
    {
        var mask = BinaryPrimitives.ReadUInt64LittleEndian(one[FanotifyCalls.MaskOffset..]);
        var info = one[BinaryPrimitives.ReadUInt16LittleEndian(one[FanotifyCalls.MetadataLengthOffset..])..];
        if ((mask & FanotifyCalls.FAN_Q_OVERFLOW) != 0 || info.Length < FanotifyCalls.InfoSize || info[0] != FanotifyCalls.FAN_EVENT_INFO_TYPE_MNT)
        {
            Tell(new(TableChangeKind.Unclear, 0, null));
            return;
        }
        var id = BinaryPrimitives.ReadUInt64LittleEndian(info[FanotifyCalls.InfoMountIdOffset..]);
        if ((mask & FanotifyCalls.FAN_MNT_ATTACH) == 0)
        {
            Tell(new(TableChangeKind.Detached, id, null));
            return;
        }
        // Gone again already: its detach has been told or will be.
        if (MountQueryCalls.PointOf(id, _mount, out var point) != 0) return;
        var moved = (mask & FanotifyCalls.FAN_MNT_DETACH) != 0;
        if (moved || IsBelowRoot(point))
            Tell(new(moved ? TableChangeKind.Moved : TableChangeKind.Attached, id, Encoding.UTF8.GetString(point)));
    }

    private bool IsBelowRoot(ReadOnlySpan<byte> path)
    {
        foreach (var root in _roots)
        {
            if (path.StartsWith(root)) return true;
        }
        return false;
    }

    private void Tell(MountTableChange change)
    {
        if (!_changes.Writer.TryWrite(change)) _lost = true;
    }
}
