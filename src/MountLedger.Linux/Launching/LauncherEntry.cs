using System.Runtime.InteropServices;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// The launcher process: keeps the capabilities, starts what the agent asks for out of a fixed list, hands back its channel, reaps it, and ends
/// when the agent does. It listens to nobody else, parses nothing, and touches no filesystem.
/// </summary>
public static class LauncherEntry
{
    /// <summary>More than the agent has use for: workers of all kinds, those that are stuck included.</summary>
    private const int ChildrenMax = 96;

    /// <summary>
    /// Serves until the agent's end of the channel is closed; then the process ends without returning. Workers notice the same by
    /// themselves.
    /// </summary>
    /// <param name="channel">The launcher's end.</param>
    /// <param name="workers">How workers are started.</param>
    /// <param name="programs">Arguments of this program for the other verbs that start one.</param>
    public static void Run(int channel, WorkerOptions workers, IReadOnlyDictionary<LaunchVerb, IReadOnlyList<string>> programs)
    {
        // A signal to the terminal's group or the service is meant for the agent, which still has operations to finish.
        PosixSignal[] ignored = [PosixSignal.SIGTERM, PosixSignal.SIGINT, PosixSignal.SIGHUP, PosixSignal.SIGQUIT];
        var registrations = ignored.Select(signal => PosixSignalRegistration.Create(signal, context => context.Cancel = true)).ToArray();
        if (ProcessCalls.ForbidNewPrivileges() is var errno and not 0)
            Console.Error.WriteLine($"launcher: PR_SET_NO_NEW_PRIVS: {Errno.Name(errno)}");

        var children = new List<Descriptor>();
        var request = new byte[LaunchMessages.RequestSize];
        while (true)
        {
            if (!WaitForRequest(channel, children)) continue;
            var descriptors = new List<Descriptor>();
            var length = PacketCalls.Receive(channel, request, descriptors);
            foreach (var unasked in descriptors) unasked.Dispose();
            if (length == 0) break;
            if (length != LaunchMessages.RequestSize) continue;
            var (number, verb) = LaunchMessages.ReadRequest(request);
            if (Answer(channel, number, verb, workers, programs, children) != 0) break;
        }
        ProcessCalls.ExitNow(0);
        GC.KeepAlive(registrations);
    }

    /// <summary>Reaps who has ended meanwhile.</summary>
    /// <returns>True: there is a request, or the end of them.</returns>
    private static bool WaitForRequest(int channel, List<Descriptor> children)
    {
        var descriptors = new int[children.Count + 1];
        var events = new short[descriptors.Length];
        var came = new short[descriptors.Length];
        descriptors[0] = channel;
        for (var i = 0; i < children.Count; i++) descriptors[i + 1] = children[i].Number;
        events.AsSpan().Fill(SocketCalls.POLLIN);
        SocketCalls.Poll(descriptors, events, came, -1);
        for (var i = children.Count - 1; i >= 0; i--)
        {
            if (came[i + 1] == 0) continue;
            ProcessCalls.Reap(children[i].Number);
            children[i].Dispose();
            children.RemoveAt(i);
        }
        return came[0] != 0;
    }

    private static int Answer(
        int channel, int number, LaunchVerb verb, WorkerOptions workers, IReadOnlyDictionary<LaunchVerb, IReadOnlyList<string>> programs,
        List<Descriptor> children)
    {
        if (verb == LaunchVerb.Nothing) return PacketCalls.Send(channel, LaunchMessages.Answer(number, 0, 0), []);
        if (verb == LaunchVerb.MountEvents)
        {
            using var group = OpenMountEvents(out var why);
            return group is null
                ? PacketCalls.Send(channel, LaunchMessages.Answer(number, why, 0), [])
                : PacketCalls.Send(channel, LaunchMessages.Answer(number, 0, 0), [group.Number]);
        }
        Launched? started = null;
        var errno = children.Count >= ChildrenMax ? Errno.EAGAIN
            : verb == LaunchVerb.Worker ? ProgramStart.Run(workers.FileName, workers.Arguments(), out started)
            : programs.TryGetValue(verb, out var arguments) ? ProgramStart.Run(workers.FileName, arguments, out started)
            : Errno.EINVAL;
        if (started is null) return PacketCalls.Send(channel, LaunchMessages.Answer(number, errno, 0), []);
        children.Add(started.Process);
        using (started.Channel)
            return PacketCalls.Send(channel, LaunchMessages.Answer(number, 0, started.Pid), [started.Channel.Number, started.Process.Number]);
    }

    private static Descriptor? OpenMountEvents(out int errno)
    {
        var number = PathCalls.OpenAt(PathCalls.AT_FDCWD, "/proc/self/ns/mnt", PathCalls.O_RDONLY, 0, out errno);
        if (number < 0) return null;
        using var ns = new Descriptor(number);
        return FanotifyCalls.WatchMounts(ns.Number, out errno);
    }
}
