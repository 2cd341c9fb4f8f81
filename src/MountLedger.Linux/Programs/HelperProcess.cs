using System.Diagnostics;
using System.Text;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>One run of a mount helper: started, listened to, waited for, and killed with its whole group when its time is up.</summary>
internal static class HelperProcess
{
    /// <summary>Of what it prints, the last 64 KiB are kept.</summary>
    public const int OutputMax = 64 * 1024;

    private static readonly TimeSpan DeathMax = TimeSpan.FromSeconds(2);

    /// <summary>
    /// How it ended. <paramref name="Status"/>: as the program set it, or minus the signal that killed it.
    /// <paramref name="Cut"/>: it printed more than was kept.
    /// </summary>
    public readonly record struct End(bool InTime, int Status, string Output, bool Cut);

    /// <exception cref="KernelFailure">It cannot be started.</exception>
    /// <param name="note">Told what <see cref="HelperSearch.KillNoted"/> finds it by: its output before it runs, its session once it does.</param>
    public static End Run(HelperCommand command, TimeSpan deadline, Action<string>? note = null)
    {
        var clock = Stopwatch.StartNew();
        KernelFailure.ThrowIf(ProcessCalls.Pipe(out var read, out var write), "pipe2");
        using var reading = read!;
        if (HelperSearch.NameOf(reading) is { } pipe) note?.Invoke(pipe);
        int pid;
        using (var input = InputOf(command))
        using (write)
        {
            KernelFailure.ThrowIf(
                ProcessCalls.SpawnSession(command.Program, command.Arguments, command.FullEnvironment, write!.Number, out pid, input?.Number),
                $"{command.Program} cannot be started");
        }

        // Nobody else reaps our children, so the pid is this child's until we do.
        var number = ProcessCalls.OpenProcess(pid, out var errno);
        if (number < 0)
        {
            ProcessCalls.KillGroup(pid);
            throw new KernelFailure(errno, $"pidfd_open of {command.Program}");
        }
        using var process = new Descriptor(number);
        KillPoint.Reached("worker-helper-spawned");
        if (HelperSearch.Identify(pid) is { } identity) note?.Invoke(identity);
        var output = new Tail();
        var open = true;
        var inTime = true;
        while (!ProcessCalls.HasExited(number))
        {
            var left = deadline - clock.Elapsed;
            if (left <= TimeSpan.Zero)
            {
                inTime = false;
                break;
            }
            // Its end wakes us; while its output is open, that is emptied meanwhile, so that it never waits for us long.
            SocketCalls.Poll(number, SocketCalls.POLLIN, (int)Math.Min(left.TotalMilliseconds + 1, open ? 20 : 1000));
            if (open) open = output.Take(reading.Number);
        }
        var status = inTime ? ProcessCalls.StatusOf(number) : 0;
        // What it started stays when it did its work: that is the filesystem.
        if (!inTime || status != 0) ProcessCalls.KillGroup(pid);
        if (!inTime)
        {
            var dying = Stopwatch.StartNew();
            while (!ProcessCalls.HasExited(number) && dying.Elapsed < DeathMax) SocketCalls.Poll(number, SocketCalls.POLLIN, 100);
        }
        if (open) output.Take(reading.Number);
        ProcessCalls.Reap(number);
        return new End(inTime, status, output.ToString(), output.IsCut);
    }

    /// <summary>A pipe that holds what the program shall read, with nobody at the other end.</summary>
    private static Descriptor? InputOf(HelperCommand command)
    {
        if (command.Input is not { } secret) return null;
        KernelFailure.ThrowIf(ProcessCalls.Pipe(out var read, out var write, blocking: true), "pipe2");
        using (write)
        {
            // A pipe takes more than a secret can have, so this does not wait.
            var errno = FileCalls.WriteAll(write!.Number, secret.Reveal());
            if (errno == 0) return read;
            read!.Dispose();
            throw new KernelFailure(errno, $"secret {secret.Name}: it cannot be written to a pipe");
        }
    }

    /// <summary>The last bytes of a stream.</summary>
    private sealed class Tail
    {
        private const int ReadsMax = 64;
        private readonly byte[] bytes = new byte[OutputMax];
        private readonly byte[] buffer = new byte[8192];
        private long total;

        public bool IsCut => total > OutputMax;

        /// <returns>False at the end of the stream.</returns>
        public bool Take(int descriptor)
        {
            for (var i = 0; i < ReadsMax; i++)
            {
                var count = ProcessCalls.ReadNow(descriptor, buffer);
                if (count <= 0) return count < 0;
                foreach (var value in buffer.AsSpan(0, count)) bytes[total++ % OutputMax] = value;
            }
            return true;
        }

        public override string ToString()
        {
            if (total <= OutputMax) return Encoding.UTF8.GetString(bytes, 0, (int)total);
            var start = (int)(total % OutputMax);
            return Encoding.UTF8.GetString([.. bytes[start..], .. bytes[..start]]);
        }
    }
}
