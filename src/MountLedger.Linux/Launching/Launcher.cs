using System.Collections.Concurrent;
using System.Globalization;
using System.Text;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// The agent's end of its launcher: the small process that has kept the capabilities which the agent gave up
/// (<see cref="Capabilities.GiveUp"/>). Requests are numbered, so that an answer which comes too late is known as such and thrown away;
/// a launcher that does not answer costs one request its deadline, and those that follow nothing: they fail at once until it answers that one.
/// </summary>
public sealed class Launcher : IDisposable
{
    /// <summary>How the program that gave up its capabilities tells itself, after its exec, which descriptor and which process: <c>FD:PID</c>.</summary>
    internal const string Variable = "MOUNTLEDGER_LAUNCHER";

    private const int AnswerMax = 64 * 1024;
    private const int LookAgainMs = 200;
    private static readonly TimeSpan SendTimeMax = TimeSpan.FromSeconds(1);
    private static readonly Lazy<Launcher?> Inherited = new(TakeOver);

    private readonly Descriptor socket;
    private readonly ConcurrentDictionary<int, TaskCompletionSource<Answer>> waiting = new();
    private readonly TaskCompletionSource ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Thread answers;
    private int lastNumber;
    private volatile bool silent;

    private readonly record struct Answer(int Errno, int Pid, IReadOnlyList<Descriptor> Descriptors);

    private Launcher(Descriptor socket, int pid)
    {
        (this.socket, Pid) = (socket, pid);
        SocketCalls.LimitSendTime(socket.Number, SendTimeMax);
        answers = new Thread(ReadAnswers) { IsBackground = true, Name = "launcher-answers" };
        answers.Start();
    }

    /// <summary>The launcher of this process; null when it was started with what capabilities it has, and starts its programs itself.</summary>
    public static Launcher? OfThisProcess => Inherited.Value;

    public int Pid { get; }

    /// <summary>Completes when the launcher has ended: from then on nothing can be started any more.</summary>
    public Task Ended => ended.Task;

    /// <summary>Starts a program.</summary>
    /// <exception cref="IOException">It cannot be started, or the launcher does not answer within the deadline; the message says what to do.</exception>
    internal async Task<Launched> StartAsync(LaunchVerb verb, TimeSpan deadline, CancellationToken cancellationToken)
    {
        var answer = await AskAsync(verb, deadline, cancellationToken);
        if (answer is { Errno: 0, Descriptors: [var channel, var process] }) return new Launched(answer.Pid, process, channel);
        foreach (var descriptor in answer.Descriptors) descriptor.Dispose();
        throw new IOException($"the launcher (pid {Pid}) cannot start it: {Errno.Name(answer.Errno)}");
    }

    /// <summary>A fanotify group that is marked on this mount namespace already; null and the error number where there is none.</summary>
    /// <exception cref="IOException">The launcher does not answer within the deadline.</exception>
    internal async Task<(Descriptor? Group, int Errno)> MountEventsAsync(TimeSpan deadline)
    {
        var answer = await AskAsync(LaunchVerb.MountEvents, deadline, CancellationToken.None);
        return (answer.Descriptors.Count > 0 ? answer.Descriptors[0] : null, answer.Errno);
    }

    /// <summary>What is wrong with the launcher; null: it answers within the deadline.</summary>
    public async Task<string?> ProblemAsync(TimeSpan deadline, CancellationToken cancellationToken)
    {
        try
        {
            await AskAsync(LaunchVerb.Nothing, deadline, cancellationToken);
            return null;
        }
        catch (IOException e)
        {
            return e.Message;
        }
    }

    /// <summary>Starts a program that says something in its channel and ends; returns what it said, at most 64 KiB.</summary>
    /// <exception cref="IOException">It cannot be started, or it has not ended at the deadline.</exception>
    public async Task<string> RunAsync(LaunchVerb verb, TimeSpan deadline, CancellationToken cancellationToken)
    {
        var until = Environment.TickCount64 + (long)deadline.TotalMilliseconds;
        using var program = await StartAsync(verb, deadline, cancellationToken);
        return await Task.Run(
            () =>
            {
                var said = new byte[AnswerMax];
                var length = 0;
                while (length < said.Length)
                {
                    cancellationToken.ThrowIfCancellationRequested();
                    if (Environment.TickCount64 >= until) throw new IOException($"process {program.Pid} is not done after {deadline.TotalSeconds:0} s");
                    if (SocketCalls.Poll(program.Channel.Number, SocketCalls.POLLIN, LookAgainMs) == 0) continue;
                    var count = SocketCalls.Receive(program.Channel.Number, said.AsSpan(length));
                    if (count == 0) break;
                    length += count;
                }
                return Encoding.UTF8.GetString(said, 0, length);
            },
            cancellationToken);
    }

    /// <summary>Lets go of the launcher, which ends it; returns when it has ended, at the latest after a second.</summary>
    public void Dispose()
    {
        SocketCalls.Shutdown(socket.Number);
        answers.Join(SendTimeMax);
    }

    /// <exception cref="IOException">The variable is there and says something else.</exception>
    private static Launcher? TakeOver()
    {
        if (Environment.GetEnvironmentVariable(Variable) is not { Length: > 0 } given) return null;
        // Of no meaning for what this process starts.
        Environment.SetEnvironmentVariable(Variable, null);
        var parts = given.Split(':');
        if (parts.Length != 2 || !int.TryParse(parts[0], NumberStyles.None, CultureInfo.InvariantCulture, out var descriptor)
            || !int.TryParse(parts[1], NumberStyles.None, CultureInfo.InvariantCulture, out var pid) || !PacketCalls.IsOne(descriptor))
            throw new IOException($"{Variable}={given}: mountledgerd sets this itself when it gives up its capabilities; unset it");
        CapabilityCalls.Inherit(descriptor, inherited: false);
        return new Launcher(new Descriptor(descriptor), pid);
    }

    private async Task<Answer> AskAsync(LaunchVerb verb, TimeSpan deadline, CancellationToken cancellationToken)
    {
        if (silent) throw Silent(deadline);
        var number = Interlocked.Increment(ref lastNumber);
        var answer = waiting[number] = new(TaskCreationOptions.RunContinuationsAsynchronously);
        try
        {
            var errno = socket.Use(LaunchMessages.Request(number, verb), static (to, message) => PacketCalls.Send(to, message, []), Errno.EPIPE);
            if (errno != 0 || ended.Task.IsCompleted) throw Gone();
            return await answer.Task.WaitAsync(deadline, cancellationToken);
        }
        catch (Exception gaveUp) when (gaveUp is TimeoutException or OperationCanceledException)
        {
            // It came in the same moment: nobody else closes what came with it.
            if (!waiting.TryRemove(number, out _))
                foreach (var descriptor in (await answer.Task).Descriptors) descriptor.Dispose();
            if (gaveUp is OperationCanceledException) throw;
            silent = true;
            throw Silent(deadline);
        }
        finally
        {
            waiting.TryRemove(number, out _);
        }
    }

    private void ReadAnswers()
    {
        var message = new byte[LaunchMessages.AnswerSize];
        while (true)
        {
            var descriptors = new List<Descriptor>();
            if (PacketCalls.Receive(socket.Number, message, descriptors) != LaunchMessages.AnswerSize) break;
            var (number, errno, pid) = LaunchMessages.ReadAnswer(message);
            silent = false;
            // Too late: a worker whose channel is closed ends.
            if (waiting.TryRemove(number, out var asked)) asked.TrySetResult(new Answer(errno, pid, descriptors));
            else foreach (var descriptor in descriptors) descriptor.Dispose();
        }
        ended.TrySetResult();
        foreach (var number in waiting.Keys)
            if (waiting.TryRemove(number, out var asked)) asked.TrySetException(Gone());
        Reap();
    }

    /// <summary>It is our child, because an exec keeps the children: without this it would stay in the process table.</summary>
    private void Reap()
    {
        var number = ProcessCalls.OpenProcess(Pid, out _);
        if (number < 0) return;
        using var process = new Descriptor(number);
        SocketCalls.Poll(number, SocketCalls.POLLIN, (int)SendTimeMax.TotalMilliseconds);
        ProcessCalls.Reap(number);
    }

    private IOException Silent(TimeSpan deadline) => new(
        $"the launcher (pid {Pid}) does not answer within {deadline.TotalSeconds:0.###} s: if it is stopped, kill -CONT {Pid}; else restart mountledgerd");

    private IOException Gone() => new($"the launcher (pid {Pid}) has ended: restart mountledgerd");
}
