using System.Collections.Concurrent;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>How a call to a worker ended.</summary>
internal enum CallEnd
{
    /// <summary>There is an answer.</summary>
    Answered,

    /// <summary>The request was never sent: nothing can have happened.</summary>
    NotSent,

    /// <summary>The worker died, or the channel broke, before it answered.</summary>
    Gone,

    /// <summary>The deadline passed; the worker may still be at it.</summary>
    TimedOut,
}

/// <summary>
/// The agent's end of one worker process: its pid, its channel, and the calls in flight. A thread of its own waits for the
/// answers.
/// </summary>
internal sealed class WorkerLink : IDisposable
{
    private static readonly TimeSpan SendTimeMax = TimeSpan.FromSeconds(2);

    private readonly WorkerChannel channel;
    private readonly Descriptor process;
    private readonly ConcurrentDictionary<long, Call> calls = new();
    private readonly SemaphoreSlim slots = new(WorkerEntry.ThreadsMax, WorkerEntry.ThreadsMax);
    private readonly TaskCompletionSource<bool> ready = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Action<WorkerLink, string?> onEnd;
    private long lastId;
    private long lastToken;
    private volatile bool ended;

    /// <summary>A request in flight. It stays listed after its deadline, because the worker may still be at it.</summary>
    private sealed class Call(WorkerRequest request)
    {
        public readonly TaskCompletionSource<WorkerAnswer?> Answer = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public WorkerVerb Verb => request.Verb;

        /// <summary>It changes what can be seen, so that its outcome must not be lost.</summary>
        public bool Changes => Verb is WorkerVerb.Attach or WorkerVerb.Unmount or WorkerVerb.Remount;

        public long Token => request.Token;

        /// <summary>Of a probe: which mount is meant.</summary>
        public long Mark => request.Token;

        public string? Mountpoint => request.Prepared?.Mountpoint ?? request.Order?.Mountpoint ?? request.Mountpoint;

        public volatile bool Abandoned;

        private int finished;

        /// <summary>True for the first caller only: a slot is given back once.</summary>
        public bool TryFinish() => Interlocked.Exchange(ref finished, 1) == 0;
    }

    /// <param name="kind">What it is for.</param>
    /// <param name="number">Counts this agent's workers from 1; the upper half of every token it gives out.</param>
    /// <param name="pid">The child.</param>
    /// <param name="process">A pidfd of it.</param>
    /// <param name="socket">Our end of the channel.</param>
    /// <param name="onEnd">Called once, on the reading thread, when the channel has ended; with what was wrong in it, if anything.</param>
    public WorkerLink(WorkerKind kind, int number, int pid, Descriptor process, Descriptor socket, Action<WorkerLink, string?> onEnd)
    {
        (Kind, Number, Pid, this.process, this.onEnd) = (kind, number, pid, process, onEnd);
        SocketCalls.LimitSendTime(socket.Number, SendTimeMax);
        channel = new WorkerChannel(socket);
        new Thread(ReadAnswers) { IsBackground = true, Name = $"worker-{number}-answers" }.Start();
    }

    public WorkerKind Kind { get; }

    public int Number { get; }

    public int Pid { get; }

    public long StartedAtMs { get; } = Environment.TickCount64;

    /// <summary>Takes new requests.</summary>
    public bool IsUsable => !ended && !IsWrittenOff;

    public bool IsWrittenOff { get; private set; }

    /// <summary>Every thread of the process is dead.</summary>
    public bool HasExited => process.Use(0, static (number, _) => ProcessCalls.HasExited(number), true);

    /// <summary>True once the worker has said hello, false when it ended before.</summary>
    public Task<bool> Ready => ready.Task;

    /// <summary>Calls that somebody still waits for.</summary>
    public bool HasWaitingCalls => calls.Values.Any(call => !call.Abandoned && !call.Answer.Task.IsCompleted);

    public long NextToken() => ((long)Number << 32) | (Interlocked.Increment(ref lastToken) & 0xFFFF_FFFF);

    public static int NumberOf(long token) => (int)(token >> 32);

    /// <summary>A mount or an unmount of this mountpoint was sent and not answered.</summary>
    public bool IsActingOn(string mountpoint) =>
        calls.Values.Any(call => call.Changes && call.Mountpoint == mountpoint);

    /// <summary>A probe of this mountpoint, and of the mount that the mark stands for, was sent and not answered.</summary>
    public bool IsProbing(string mountpoint, long mark) =>
        calls.Values.Any(call => call.Verb is WorkerVerb.Probe && call.Mountpoint == mountpoint && call.Mark == mark);

    /// <summary>Probes that were sent and not answered.</summary>
    public int Probes => calls.Values.Count(call => call.Verb is WorkerVerb.Probe);

    /// <summary>Returns when every thread of the process is dead, however long the kernel takes.</summary>
    public void WaitForExit()
    {
        const int LookAgainMs = 10_000;
        while (!HasExited) process.Use(0, static (number, _) => SocketCalls.Poll(number, SocketCalls.POLLIN, LookAgainMs), (short)0);
    }

    /// <summary>Sends a request and waits for its answer.</summary>
    /// <param name="request">Its id is set here.</param>
    /// <param name="deadline">For all of it, the wait for a free thread included.</param>
    /// <param name="cancellationToken">
    /// Ends the wait (<see cref="OperationCanceledException"/>), not the operation; it does not end the wait for the outcome
    /// of an attach or an unmount, which somebody has to record.
    /// </param>
    /// <param name="hurry">Ends the wait as the deadline does: the agent stops.</param>
    public async ValueTask<(CallEnd End, WorkerAnswer? Answer)> CallAsync(
        WorkerRequest request, TimeSpan deadline, CancellationToken cancellationToken, CancellationToken hurry = default)
    {
        var began = Environment.TickCount64;
        if (!slots.Wait(0, CancellationToken.None) && !await slots.WaitAsync(deadline, cancellationToken)) return (CallEnd.NotSent, null);

        var call = new Call(request);
        var id = Interlocked.Increment(ref lastId);
        if (!IsUsable)
        {
            slots.Release();
            return (CallEnd.NotSent, null);
        }
        calls[id] = call;
        int errno;
        try
        {
            errno = channel.Send(request with { Id = id }, WorkerJson.Default.WorkerRequest);
        }
        catch (ArgumentException)
        {
            Finish(id, null);
            return (CallEnd.NotSent, null);
        }
        // Half a request may be on its way: the stream is of no use any more.
        if (errno != 0) channel.Shutdown();
        // The reader may have emptied the list for good just before the call was put into it.
        if (ended) Finish(id, null);

        var left = deadline - TimeSpan.FromMilliseconds(Environment.TickCount64 - began);
        try
        {
            var wait = call.Changes ? CancellationToken.None : cancellationToken;
            using var either = hurry.CanBeCanceled ? CancellationTokenSource.CreateLinkedTokenSource(wait, hurry) : null;
            if (either is not null) wait = either.Token;
            var answer = await call.Answer.Task.WaitAsync(left > TimeSpan.Zero ? left : TimeSpan.Zero, wait);
            return (answer is null ? CallEnd.Gone : CallEnd.Answered, answer);
        }
        catch (Exception e) when (e is TimeoutException || (e is OperationCanceledException && hurry.IsCancellationRequested))
        {
            Abandon(call);
            return (CallEnd.TimedOut, null);
        }
        catch (OperationCanceledException)
        {
            Abandon(call);
            throw;
        }
    }

    /// <summary>Sends a request that has no answer; what cannot be sent is dropped.</summary>
    public void Post(WorkerRequest request)
    {
        if (!ended && channel.Send(request, WorkerJson.Default.WorkerRequest) != 0) channel.Shutdown();
    }

    /// <summary>Takes no new requests from now on.</summary>
    public void WriteOff() => IsWrittenOff = true;

    /// <summary>SIGKILL, and the end of the channel, which the kernel may keep open with the process.</summary>
    public void Kill()
    {
        IsWrittenOff = true;
        process.Use(0, static (number, _) => ProcessCalls.Signal(number, ProcessCalls.SIGKILL), 0);
        channel.Shutdown();
    }

    /// <summary>Takes the dead child out of the process table.</summary>
    public void Reap() => ProcessCalls.Reap(process.Number);

    public void Dispose()
    {
        channel.Dispose();
        process.Dispose();
    }

    private void ReadAnswers()
    {
        string? problem = null;
        try
        {
            while (channel.Receive(WorkerJson.Default.WorkerAnswer) is { } answer)
            {
                if (answer.Outcome == WorkerOutcome.Hello) ready.TrySetResult(true);
                else Finish(answer.Id, answer);
            }
        }
        catch (InvalidDataException garbage)
        {
            problem = garbage.Message;
        }
        ended = true;
        ready.TrySetResult(false);
        foreach (var id in calls.Keys) Finish(id, null);
        onEnd(this, problem);
    }

    private void Finish(long id, WorkerAnswer? answer)
    {
        // After the end of the channel the worker may still be at an abandoned call until it is dead: keep that listed.
        if (!calls.TryGetValue(id, out var call)) return;
        call.Answer.TrySetResult(answer);
        var mayStillAct = answer is null && call.Changes;
        if (!mayStillAct) calls.TryRemove(id, out _);
        if (!call.TryFinish()) return;
        slots.Release();
        // A mount that nobody waits for any more must not stay prepared.
        if (call.Abandoned && answer?.Outcome == WorkerOutcome.Ready)
            Post(new WorkerRequest(0, WorkerVerb.Discard, call.Token, null, null, null, null));
    }

    /// <summary>The answer may have come in the same moment: then what it made is thrown away here.</summary>
    private void Abandon(Call call)
    {
        call.Abandoned = true;
        if (call.Answer.Task is { IsCompletedSuccessfully: true, Result.Outcome: WorkerOutcome.Ready })
            Post(new WorkerRequest(0, WorkerVerb.Discard, call.Token, null, null, null, null));
    }
}
