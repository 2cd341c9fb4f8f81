using System.Globalization;
using System.Runtime.InteropServices;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// The worker process: executes the agent's requests on the kernel, and nothing else. It has one socket, the channel it was
/// started with, and ends when that does.
/// </summary>
public static class WorkerEntry
{
    internal const string ChannelFlag = "--channel-fd";
    internal const string RootFlag = "--root";
    internal const string DirectoryModeFlag = "--directory-mode";
    internal const string StagingFlag = "--staging";
    internal const string HelperDirectoryFlag = "--helper-dir";
    internal const string HelperDeadlineFlag = "--helper-ms";
    internal const string DirectoryOwnerFlag = "--directory-owner";

    /// <summary>Operations that can run at once; a request beyond that waits in the agent.</summary>
    internal const int ThreadsMax = 16;

    /// <summary>
    /// Runs the worker until its channel ends: <c>--channel-fd N --root DIR… [--directory-mode 0755] [--directory-owner UID:GID]
    /// [--staging DIR --helper-ms N --helper-dir DIR…]</c>.
    /// </summary>
    /// <returns>2 for bad arguments; otherwise the process ends without returning.</returns>
    public static Task<int> RunAsync(string[] args)
    {
        if (!TryParse(args, out var channelNumber, out var roots, out var directories, out var helpers))
        {
            Console.Error.WriteLine($"worker: expected {ChannelFlag} N {RootFlag} DIR… (it is started by the agent, not by hand)");
            return Task.FromResult(2);
        }

        // The agent alone decides when a worker ends: a signal to the terminal's group or the service must not tear an
        // operation apart.
        PosixSignal[] ignored = [PosixSignal.SIGTERM, PosixSignal.SIGINT, PosixSignal.SIGHUP, PosixSignal.SIGQUIT];
        var registrations = ignored.Select(signal => PosixSignalRegistration.Create(signal, context => context.Cancel = true)).ToArray();
        if (ProcessCalls.ForbidNewPrivileges() is var errno and not 0)
            Console.Error.WriteLine($"worker: PR_SET_NO_NEW_PRIVS: {Errno.Name(errno)}");
        PathCalls.ClearUmask();

        var channel = new WorkerChannel(new Descriptor(channelNumber));
        var service = new WorkerService(channel, new MountOperations(roots, directories, helpers), helpers?.StagingDirectory);
        service.Start(ThreadsMax);

        // The other end is gone: at once, whatever the threads are doing. What was in flight is unknown to the next agent,
        // which kills us anyhow.
        while ((SocketCalls.Poll(channelNumber, SocketCalls.POLLRDHUP, -1) & ~SocketCalls.POLLIN) == 0) { }
        ProcessCalls.ExitNow(0);
        GC.KeepAlive(registrations);
        return Task.FromResult(0);
    }

    private static bool TryParse(
        string[] args, out int channel, out List<string> roots, out DirectoryAttributes directories, out HelperOptions? helpers)
    {
        (channel, roots, directories, helpers) = (-1, [], DirectoryAttributes.Default, null);
        string? staging = null;
        var helperDirectories = new List<string>();
        var helperMs = 0;
        for (var i = 0; i + 1 < args.Length; i += 2)
        {
            var value = args[i + 1];
            switch (args[i])
            {
                case ChannelFlag when int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out channel): break;
                case RootFlag when value.StartsWith('/'): roots.Add(value); break;
                case DirectoryModeFlag when DirectoryAttributes.TryMode(value, out var mode): directories = directories with { Mode = mode }; break;
                case DirectoryOwnerFlag when DirectoryAttributes.TryOwner(value, out var owner): directories = directories with { Owner = owner }; break;
                case StagingFlag when value.StartsWith('/'): staging = value; break;
                case HelperDirectoryFlag when value.StartsWith('/'): helperDirectories.Add(value); break;
                case HelperDeadlineFlag when int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out helperMs): break;
                default: return false;
            }
        }
        if (staging is not null) helpers = new HelperOptions(staging, helperDirectories, TimeSpan.FromMilliseconds(helperMs));
        return args.Length % 2 == 0 && channel >= 0 && roots.Count > 0;
    }
}
