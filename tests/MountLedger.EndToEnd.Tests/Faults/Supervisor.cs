using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;

namespace MountLedger.EndToEnd;

/// <summary>A system call of an operation: its number, and which one of that number it is, from 1.</summary>
public readonly record struct Call(int Number, int Ordinal);

/// <summary>
/// Stands between a program (started by tests/Shared/Programs/supervised.c) and the kernel: it sees the calls that the worker's
/// operations make, in their order over all threads, and can make exactly one of them fail. strace counts its
/// <c>when=N</c> for each thread by itself, and the worker's threads take turns, so it cannot say "once".
/// </summary>
public sealed unsafe partial class Supervisor : IDisposable
{
    private const int ListenerInTarget = 3;
    private const nuint NotifyReceive = 0xC0502100;
    private const nuint NotifySend = 0xC0182101;
    private const uint ContinueFlag = 1;
    private const short PollIn = 1;
    private const string OperationThread = "worker-";

    private readonly int listener;
    private readonly Thread thread;
    private readonly Lock gate = new();
    private readonly HashSet<uint> operationThreads = [];
    private readonly Dictionary<int, int> seen = [];
    private List<Call>? trace;
    private (Call Call, int Errno)? armed;
    private bool fired;
    private volatile bool stop;

    private Supervisor(int listener)
    {
        this.listener = listener;
        thread = new Thread(Run) { IsBackground = true, Name = "supervisor" };
        thread.Start();
    }

    /// <summary>Takes over a program that has just been started.</summary>
    public static Supervisor Of(int pid)
    {
        var started = Stopwatch.GetTimestamp();
        var link = $"/proc/{pid}/fd/{ListenerInTarget}";
        while (new FileInfo(link).LinkTarget?.Contains("seccomp", StringComparison.Ordinal) != true)
        {
            Assert.True(Stopwatch.GetElapsedTime(started) < TimeSpan.FromSeconds(10), "the program never came under its filter");
            Thread.Sleep(1);
        }
        var pidfd = (int)Syscall(434, pid, 0, 0);
        var listener = (int)Syscall(438, pidfd, ListenerInTarget, 0);
        _ = Close(pidfd);
        Assert.True(listener >= 0, "the filter's descriptor cannot be taken");
        return new Supervisor(listener);
    }

    /// <summary>Lists the calls that operations make until <see cref="Traced"/>.</summary>
    public void Trace()
    {
        lock (gate)
        {
            Clear();
            trace = [];
        }
    }

    public IReadOnlyList<Call> Traced()
    {
        lock (gate)
        {
            var calls = trace ?? [];
            Clear();
            return calls;
        }
    }

    /// <summary>From now on, exactly this call of the operations fails with this error number, and does not take place.</summary>
    public void Arm(Call call, int errno)
    {
        lock (gate)
        {
            Clear();
            armed = (call, errno);
        }
    }

    /// <returns>Whether the call took place, and so failed.</returns>
    public bool Disarm()
    {
        lock (gate)
        {
            var did = fired;
            Clear();
            return did;
        }
    }

    public void Dispose()
    {
        stop = true;
        thread.Join();
        _ = Close(listener);
    }

    private void Clear()
    {
        // Thread ids are given to others in time.
        operationThreads.Clear();
        seen.Clear();
        (trace, armed, fired) = (null, null, false);
    }

    private void Run()
    {
        while (!stop)
        {
            var entry = new PollEntry { Descriptor = listener, Events = PollIn };
            if (Poll(&entry, 1, 200) <= 0) continue;
            if ((entry.Returned & PollIn) == 0) return; // Nobody is left who could ask.
            var asked = default(Notification);
            if (Ioctl(listener, NotifyReceive, &asked) != 0) continue; // Killed meanwhile.
            var errno = Answer(asked.Pid, asked.Number);
            var answer = errno == 0 ? new Response { Id = asked.Id, Flags = ContinueFlag } : new Response { Id = asked.Id, Error = -errno };
            _ = Ioctl(listener, NotifySend, &answer);
        }
    }

    /// <returns>0: let it run.</returns>
    private int Answer(uint thread, int number)
    {
        lock (gate)
        {
            if ((trace is null && armed is null) || !IsOperation(thread)) return 0;
            var ordinal = seen[number] = seen.GetValueOrDefault(number) + 1;
            trace?.Add(new Call(number, ordinal));
            // A child of the worker is on its way to become a helper: from then on its calls are the helper's.
            if (CallNames.Of(number) == "execve") operationThreads.Remove(thread);
            if (fired || armed?.Call != new Call(number, ordinal)) return 0;
            fired = true;
            return armed.Value.Errno;
        }
    }

    /// <summary>A thread of the worker process that executes requests; what the runtime's other threads do is not asked for.</summary>
    private bool IsOperation(uint thread)
    {
        if (operationThreads.Contains(thread)) return true;
        try
        {
            var task = $"/proc/{thread}";
            if (!File.ReadAllText($"{task}/comm").StartsWith(OperationThread, StringComparison.Ordinal)) return false;
            if (!File.ReadAllText($"{task}/cmdline").Split('\0').Contains("worker", StringComparer.Ordinal)) return false;
        }
        catch (IOException)
        {
            return false;
        }
        return operationThreads.Add(thread);
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct Notification
    {
        public ulong Id;
        public uint Pid;
        public uint Flags;
        public int Number;
        public uint Architecture;
        public ulong Pointer;
        public fixed ulong Arguments[6];
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct Response
    {
        public ulong Id;
        public long Value;
        public int Error;
        public uint Flags;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct PollEntry
    {
        public int Descriptor;
        public short Events;
        public short Returned;
    }

    [LibraryImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    private static partial int Ioctl(int descriptor, nuint request, void* argument);

    [LibraryImport("libc", EntryPoint = "poll")]
    private static partial int Poll(PollEntry* entries, nuint count, int timeoutMs);

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial nint Syscall(nint number, nint a, nint b, nint c);

    [LibraryImport("libc", EntryPoint = "close")]
    private static partial int Close(int descriptor);
}
