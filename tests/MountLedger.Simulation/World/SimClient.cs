using System.Text;

namespace MountLedger.Simulation;

/// <summary>
/// A consumer with attachments of its own, which it alone makes and ends; so it knows, of each of its answers, what must be so.
/// One that is <em>elsewhere</em> writes to the ledger without the host's agent, which hears of it by notification alone.
/// </summary>
internal sealed class SimClient(World world, string name, bool isElsewhere = false)
{
    private readonly Dictionary<string, Belief> _beliefs = new(StringComparer.Ordinal);
    private readonly SimTime _time = new(world.Scheduler, world.Outside, () => TimeSpan.Zero);
    private long _commands;

    private const int LooksMax = 100;
    private static readonly TimeSpan LookInterval = TimeSpan.FromMilliseconds(300);

    private enum Belief { Detached, Attached, Unknown }

    /// <summary>It has done all that it wanted.</summary>
    public bool IsDone { get; private set; }

    public string Name => name;

    public AttachmentKey Key => new("v", name);

    public void Start(int operations) => world.Outside.Do(async () =>
    {
        for (var operation = 0; operation < operations; operation++)
        {
            for (var look = 0; look < LooksMax && world.AnyAgent() is null; look++) await Task.Delay(LookInterval, _time);
            await Task.Delay(world.Dice.Percent(60) ? world.Dice.Micros(0, 3_000) : world.Dice.Millis(0, 2_000), _time);
            var path = world.Dice.Pick(world.Paths);
            if (isElsewhere) await WriteAsync(path);
            else if (world.Dice.Percent(12)) await ChangeAsync(path);
            else await OperateAsync(path);
        }
        IsDone = true;
    });

    /// <summary>Somebody else detaches it.</summary>
    public void Forget(string path) => _beliefs[path] = Belief.Unknown;

    public void CheckAtRest()
    {
        foreach (var (path, belief) in _beliefs)
        {
            var isAttached = world.Ledger.StateOf(path).Attachments.ContainsKey(Key);
            if (belief == Belief.Attached && !isAttached) world.Fail($"{path}: {name} was attached, and is not");
            if (belief == Belief.Detached && isAttached) world.Fail($"{path}: {name} was detached, and is not");
        }
    }

    private async Task OperateAsync(string path)
    {
        var belief = _beliefs.GetValueOrDefault(path);
        var wait = world.Dice.Percent(80) ? MountCommand.DefaultWait : world.Dice.Percent(50) ? TimeSpan.Zero : TimeSpan.FromSeconds(2);
        var id = $"{name}-{++_commands}";
        var stream = new StreamKey(World.Host, path);
        var request = world.Dice.Percent(30) ? new RequestKey(id, "body" + id) : null;
        MountCommand command = world.Dice.Percent(belief == Belief.Attached ? 20 : 80)
            ? new MountCommand.Mount(
                id, name, stream, World.SpecOf(path, world.Dice.Percent(10) ? 1 : 0), Key, world.Dice.Percent(30) ? OnFailure.Retry : OnFailure.Forget)
            : new MountCommand.Unmount(id, name, stream, Key, world.Dice.Percent(10) ? UnmountMode.Lazy : UnmountMode.Normal);
        command = command with { Request = request, Wait = wait };

        var result = await AskAsync(command);
        if (request is not null && world.Dice.Percent(50)) await RepeatAsync(command, result);
    }

    /// <summary>Other options for a live mount; nobody's attachment depends on what comes of it.</summary>
    private async Task ChangeAsync(string path)
    {
        var command = new MountCommand.Remount(
            $"{name}-{++_commands}", name, new StreamKey(World.Host, path), [$"size={world.Dice.Between(1, 3)}M"], ByAdmin: world.Dice.Percent(50),
            new InputPolicy(World.Host, [World.Root]))
        {
            Wait = world.Dice.Percent(80) ? MountCommand.DefaultWait : TimeSpan.Zero,
        };
        if (world.IsTraced) world.Trace($"{name}: asks for {Describe(command)}");
        var asked = world.Scheduler.Now;
        var result = world.AnyAgent() is { } agent ? await agent.HandleAsync(command) : new CommandResult.Unavailable("there is no agent");
        if (world.IsTraced) world.Trace($"{name}: is answered {Describe(result)}");
        world.Answered();
        if (result is CommandResult.Done { Outcome: not (Outcome.Remounted or Outcome.Noop) }) world.Fail($"{path}: a remount of {name} was answered {Describe(result)}");
        if (result is not CommandResult.Unavailable) CheckTime(command, asked);
    }

    /// <summary>Asks an agent, and draws from its answer what must be so from now on.</summary>
    private async Task<CommandResult> AskAsync(MountCommand command)
    {
        var path = command.Stream.Id;
        var belief = _beliefs.GetValueOrDefault(path);
        if (command is MountCommand.Unmount) world.Release(path, Key);
        if (world.IsTraced) world.Trace($"{name}: asks for {Describe(command)}");
        var asked = world.Scheduler.Now;
        var result = world.AnyAgent() is { } agent ? await agent.HandleAsync(command) : new CommandResult.Unavailable("there is no agent");
        if (world.IsTraced) world.Trace($"{name}: is answered {Describe(result)}");
        world.Answered();

        _beliefs[path] = world.Doubts.AnySince(asked, path, name) ? Belief.Unknown
            : command is MountCommand.Mount ? AfterMount(path, belief, result) : AfterUnmount(path, belief, result);
        if (_beliefs[path] == Belief.Unknown) world.Release(path, Key);
        if (result is not CommandResult.Unavailable) CheckTime(command, asked);
        return result;
    }

    private Belief AfterMount(string path, Belief before, CommandResult result)
    {
        switch (result)
        {
            case CommandResult.Done { Outcome: Outcome.Mounted or Outcome.Attached }:
            case CommandResult.Replayed { Status: 200 } when before == Belief.Attached:
                world.Acknowledge(path, Key);
                return Belief.Attached;
            case CommandResult.Done other:
                world.Fail($"{path}: a mount of {name} was answered {other.Outcome}");
                return Belief.Unknown;
            case CommandResult.Rejected { Rejection: var rejection }:
                if (before == Belief.Attached && rejection is Rejection.HostUnavailable or Rejection.WouldHide)
                    world.Fail($"{path}: {name} is attached, and is refused as {rejection.Name}");
                return before;
            case CommandResult.Failed when before == Belief.Attached:
                return before;
            case CommandResult.KeyReused:
                world.Fail($"{path}: the key of {name} was taken for another's");
                return Belief.Unknown;
            default:
                return before == Belief.Attached ? before : Belief.Unknown;
        }
    }

    private Belief AfterUnmount(string path, Belief before, CommandResult result)
    {
        switch (result)
        {
            case CommandResult.Done { Outcome: Outcome.Noop } when before == Belief.Attached:
                world.Fail($"{path}: {name} was attached, and its detach found nothing");
                return Belief.Detached;
            case CommandResult.Done or CommandResult.Pending or CommandResult.Failed:
                if (world.Ledger.StateOf(path).Attachments.ContainsKey(Key)) world.Fail($"{path}: {name} was detached, and is still attached");
                return Belief.Detached;
            case CommandResult.Rejected { Rejection: Rejection.InUse }:
                if (before == Belief.Attached) world.Acknowledge(path, Key);
                return before;
            case CommandResult.Rejected { Rejection: var rejection }:
                world.Fail($"{path}: the detach of {name} was refused as {rejection.Name}");
                return Belief.Unknown;
            default:
                return Belief.Unknown;
        }
    }

    /// <summary>The same request once more: the same answer, and nothing more recorded for it than before.</summary>
    private async Task RepeatAsync(MountCommand command, CommandResult first)
    {
        var again = await AskAgainAsync(command);
        if (first is CommandResult.Unavailable or CommandResult.Pending or CommandResult.Replayed) return;
        if (again is CommandResult.Unavailable or CommandResult.Pending) return;
        var (status, json) = Wire.Answers.Render(first);
        var (statusAgain, jsonAgain) = Wire.Answers.Render(again);
        // An answer that could not be kept is worked out again, from the history.
        if (status != statusAgain) world.Fail($"{command.Stream.Id}: {name} was answered {status} {Encoding.UTF8.GetString(json)}, and the same request later {statusAgain} {Encoding.UTF8.GetString(jsonAgain)}");
    }

    private async Task<CommandResult> AskAgainAsync(MountCommand command)
    {
        var path = command.Stream.Id;
        if (world.IsTraced) world.Trace($"{name}: asks once more for {Describe(command)}");
        var asked = world.Scheduler.Now;
        var result = world.AnyAgent() is { } agent ? await agent.HandleAsync(command) : new CommandResult.Unavailable("there is no agent");
        if (world.IsTraced) world.Trace($"{name}: is answered {Describe(result)}");
        world.Answered();
        if (world.Doubts.AnySince(asked, path, name)) return result;
        // When the first answer was none, this one is it; whatever it says, it is the truth of that time, not of now.
        if (_beliefs[path] == Belief.Unknown && result is CommandResult.Done)
            _beliefs[path] = command is MountCommand.Mount ? AfterMount(path, Belief.Unknown, result) : AfterUnmount(path, Belief.Unknown, result);
        return result;
    }

    private void CheckTime(MountCommand command, TimeSpan asked)
    {
        var took = world.Scheduler.Now - asked;
        if (took > command.Wait + TimeSpan.FromMinutes(5)) world.Fail($"{command.Stream.Id}: {name} waited {took} although it asked for {command.Wait}");
    }

    /// <summary>Decides and appends by itself: correct, but without the agent's knowledge.</summary>
    private async Task WriteAsync(string path)
    {
        var store = new SimStore(world, world.Outside);
        var journal = new MountJournal(
            store, new LiveStates(), new AgentIdentity(World.Host, name, 0), _time, Microsoft.Extensions.Logging.Abstractions.NullLogger.Instance);
        var id = $"{name}-{++_commands}";
        try
        {
            var state = await journal.StateAsync(path, fresh: true, CancellationToken.None);
            MountCommand command = state.Attachments.ContainsKey(Key)
                ? new MountCommand.Unmount(id, name, state.Stream, Key)
                : new MountCommand.Mount(id, name, state.Stream, World.SpecOf(path, 0), Key, OnFailure.Retry);
            if (MountDecider.Decide(command, state, new DecisionContext(new KernelIdentity("elsewhere", 0), world.Ledger.HostState.IsUp, HiddenDescendant: Hidden(path))) is not Decision.Accept { Events: { IsEmpty: false } events }) return;
            await journal.AppendAsync(
                state, events, new AppendOrigin(name, id, null, Epoch: null, Agent: null, LocalAgent: false),
                requireHostUp: command is MountCommand.Mount, request: null, CancellationToken.None);
        }
        catch (LedgerUnavailableException)
        {
            // It may have been recorded or not; nobody was told.
        }
    }

    private string? Hidden(string path) => world.Ledger.States
        .FirstOrDefault(state => MountPath.IsBelow(state.Mountpoint, path) && state.Phase != Phase.Absent)?.Mountpoint;

    private static string Describe(MountCommand command) => command switch
    {
        MountCommand.Mount mount => $"mount {mount.Stream.Id} {mount.Spec.FsType} {mount.OnFailure} ({mount.Id}{(mount.Request is null ? "" : ", with key")}, wait {mount.Wait.TotalSeconds})",
        MountCommand.Unmount unmount => $"unmount {unmount.Stream.Id} {unmount.Mode} ({unmount.Id}{(unmount.Request is null ? "" : ", with key")}, wait {unmount.Wait.TotalSeconds})",
        MountCommand.Remount remount => $"remount {remount.Stream.Id} {string.Join(',', remount.Options)} ({remount.Id})",
        _ => command.ToString()!,
    };

    private static string Describe(CommandResult result) => result switch
    {
        CommandResult.Done done => done.Outcome.ToString(),
        CommandResult.Rejected rejected => $"refused: {rejected.Rejection.Message}",
        CommandResult.Failed failed => $"failed: {failed.Error.Message}",
        CommandResult.Unavailable unavailable => $"unavailable: {unavailable.Reason}",
        CommandResult.Replayed replayed => $"as before: {replayed.Status}",
        _ => result.GetType().Name,
    };
}
