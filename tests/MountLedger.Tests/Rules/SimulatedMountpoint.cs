using System.Collections.Immutable;
using static MountLedger.Tests.Rules.Vocabulary;

namespace MountLedger.Tests.Rules;

/// <summary>
/// One mountpoint with a kernel of its own, driven at random as the command handler, the executor and the reconciler
/// drive it, beside a model that is too simple to be wrong: a set of attachments, the spec they asked for, who has been
/// answered, and a list of what is mounted. Every step checks one against the other.
/// </summary>
internal sealed partial class SimulatedMountpoint(int seed)
{
    private static readonly AttachmentKey[] Keys = [A, B, C];
    private static readonly MountSpec[] Specs = [Spec, OtherSpec];

#pragma warning disable CA5394 // Reproducible is what it has to be.
    private readonly Random _random = new(seed);
    private readonly bool _idsAreUnique = seed % 4 != 0;

    // The truth.
    private readonly Dictionary<AttachmentKey, OnFailure> _attached = [];
    private readonly HashSet<AttachmentKey> _answered = [];
    private readonly List<Mount> _kernel = [];
    private MountSpec? _spec;
    private KernelIdentity _identity = Kernel;
    private bool _hostIsUp = true;

    private MountState _state = MountState.Initial(Vocabulary.Stream);
    private DateTimeOffset _now = Start;
    private InFlight? _running;
    private ulong _lastId = 100;
    private long _events;

    public List<string> Log { get; } = [];

    private sealed record Mount(ulong? Id, MountSpec Spec, bool Foreign);

    private sealed record InFlight(Operation Operation, ulong? Id);

    public void Step()
    {
        _now += TimeSpan.FromMilliseconds(_random.Next(2_000));
        switch (_random.Next(24))
        {
            case < 6: Attach(); break;
            case < 11: Detach(); break;
            case 11: _hostIsUp = !_hostIsUp; Log.Add($"host up: {_hostIsUp}"); break;
            case 12: AppearOrVanish(); break;
            case 13: Crash(reboot: _random.Next(3) == 0); break;
            case 14: Record("pause or resume", _state.RepairPaused ? Resumed() : Paused()); break;
            case 15: Reconcile(); break;
            default:
                if (_running is { } running) Finish(running, _random.Next(5));
                else Act();
                break;
        }
        Check();
    }

    /// <summary>From here on everything works: every attachment gets its mount, and without one nothing of ours is left.</summary>
    public void EndWell()
    {
        Log.Add("-- from here on everything works");
        _hostIsUp = true;
        if (_state.RepairPaused) Record("resume", Resumed());
        for (var step = 0; step < 40; step++)
        {
            _kernel.RemoveAll(mount => mount.Foreign && _state.Kernel is not { Adopted: true });
            Reconcile();
            if (_running is { } running) Finish(running, 0);
            else if (MountFlow.NextAction(_state) is { Kind: not ActionKind.None } next)
            {
                if (next.DueAt > _now) _now = next.DueAt.Value;
                Act(mayFail: false);
            }
            Check();
        }
        Assert.Equal(ActionKind.None, MountFlow.NextAction(_state).Kind);
        Assert.Equal(_attached.Count == 0 ? Phase.Absent : Phase.Mounted, _state.Phase);
        Assert.All(_state.Attachments, attachment => Assert.True(attachment.Confirmed));
        Assert.DoesNotContain(DriftKind.Missing, _state.Drift.Keys);
        if (_attached.Count > 0) Assert.Equal(_spec, Assert.Single(_kernel).Spec);
        else Assert.DoesNotContain(_kernel, mount => !mount.Foreign);
    }

    private void Attach()
    {
        var command = Vocabulary.Attach(
            Keys[_random.Next(Keys.Length)], Specs[_random.Next(4) == 0 ? 1 : 0], (OnFailure)_random.Next(2));
        if (_random.Next(20) == 0) command = command with { ExpectedVersion = _state.Version + _random.Next(-1, 2) };
        var nothingIsKnown = _state is { Kernel: null, Operation: null };
        var occupant = nothingIsKnown ? Observe(command.Spec).Top : null;
        var hidden = _random.Next(20) == 0 ? Mountpoint + "/below" : null;
        var context = new DecisionContext(_identity, _hostIsUp, null, occupant, hidden);

        var expected = command switch
        {
            { ExpectedVersion: { } version } when version != _state.Version => "version-conflict",
            _ when _attached.Count > 0 && command.Spec != _spec => "spec-conflict",
            _ when _attached.ContainsKey(command.Attachment) => "nothing",
            _ when !_hostIsUp => "host-unavailable",
            _ when nothingIsKnown && _attached.Count == 0 && occupant is { Matches: false } => "foreign-mount",
            _ when nothingIsKnown && _attached.Count == 0 && occupant is null && hidden is not null => "would-hide",
            _ => "events",
        };
        var first = _attached.Count == 0;
        Decide(command, context, expected);
        if (expected != "events") return;
        _attached.Add(command.Attachment, command.OnFailure);
        if (first) _spec = command.Spec;
        Decide(command with { ExpectedVersion = null }, context, "nothing");
    }

    private void Detach()
    {
        var mode = _random.Next(4) == 0 ? (UnmountMode)_random.Next(1, 3) : UnmountMode.Normal;
        var command = Vocabulary.Detach(Keys[_random.Next(Keys.Length)], mode);
        var known = _attached.ContainsKey(command.Attachment);
        var others = _attached.Count - (known ? 1 : 0);
        var expected = mode != UnmountMode.Normal && others > 0 ? "in-use"
            : known ? "events"
            : mode == UnmountMode.Normal || others > 0 ? "nothing"
            : "nothing or unmount_requested";
        var context = new DecisionContext(_identity, _hostIsUp);
        Decide(command, context, expected);
        if (expected == "in-use") return;
        if (_attached.Remove(command.Attachment)) _answered.Remove(command.Attachment);
        // An adopted mount that is let go is nobody's of ours, and what nobody wanted is not asked for twice.
        Decide(command, context, "nothing");
    }

    private void Decide(MountCommand command, DecisionContext context, string expected)
    {
        var decision = MountDecider.Decide(command, _state, context);
        var events = decision is Decision.Accept accepted ? accepted.Events : [];
        var actual = decision switch
        {
            Decision.Reject rejected => rejected.Rejection.Name,
            _ when events.IsEmpty => "nothing",
            _ => "events",
        };
        if (expected == "nothing or unmount_requested")
            expected = events is [MountEvent.UnmountRequested] && _state.Phase != Phase.Absent ? "events" : "nothing";
        var text = command is MountCommand.Mount mount
            ? $"attach {mount.Attachment.Consumer}/{mount.Attachment.Volume} {mount.Spec} {mount.OnFailure}" : $"{command.GetType().Name} {((MountCommand.Unmount)command).Attachment} {((MountCommand.Unmount)command).Mode}";
        if (actual != expected) Log.Add($"{text} in {Describe()}");
        Assert.Equal(expected, actual);
        Record($"{text} -> {actual}", events);
    }

    private void Act(bool mayFail = true)
    {
        var next = MountFlow.NextAction(_state);
        if (!next.IsDue(_now)) return;
        switch (next.Kind)
        {
            case ActionKind.Mount when _hostIsUp: BeginMount(mayFail); break;
            case ActionKind.Unmount: BeginUnmount(); break;
            case ActionKind.Keep: Record("keep", Kept()); break;
            case ActionKind.Release: Record("release", Released()); break;
            case ActionKind.Settle when !_state.Uncertain: Record("find abandoned", Uncertain(_state.Operation!.Kind)); break;
            case ActionKind.Settle:
                var found = Observe(_state.Operation!.Spec ?? _state.Spec);
                var settled = OutcomeRules.Settled(_state, found, _identity, _now);
                // Uncertain again and again is a failure.
                if (settled.OfType<MountEvent.MountFailed>().Any()) FailMount("settle as failed", settled, _state.IsSuperseded);
                else Record($"settle, found {_kernel.Count}", settled);
                // Without unique ids, what looks the same is taken for ours.
                if (!_idsAreUnique && _state.Kernel is not null) _kernel[0] = _kernel[0] with { Foreign = false };
                break;
        }
    }

    private void BeginMount(bool mayFail)
    {
        Assert.Equal(_spec, _state.Spec);
        Assert.NotEmpty(_attached);
        if (Observe(_state.Spec).Top is { } occupant)
        {
            if (occupant.Matches) Record("adopt", OutcomeRules.Adopted(_state, _identity, occupant.MountId));
            else FailMount("occupied", [new MountEvent.MountStarted(_state.Generation, _identity.BootId, _identity.MountNamespaceId, null, [])], superseded: false);
            return;
        }
        if (mayFail && _random.Next(10) == 0)
        {
            FailMount("prepare failed", [new MountEvent.MountStarted(_state.Generation, _identity.BootId, _identity.MountNamespaceId, null, [])], superseded: false);
            return;
        }
        var id = ++_lastId;
        Record("start mount", new MountEvent.MountStarted(_state.Generation, _identity.BootId, _identity.MountNamespaceId, _idsAreUnique ? id : null, []));
        _running = new InFlight(_state.Operation!, _idsAreUnique ? id : null);
    }

    private void BeginUnmount()
    {
        Assert.Empty(_answered);
        Assert.False(_state.Kernel!.Adopted);
        Record("start unmount", new MountEvent.UnmountStarted(
            _state.UnmountWanted ?? UnmountMode.Normal, _state.Kernel.BootId, _state.Kernel.MountNamespaceId, _state.Kernel.MountId));
        _running = new InFlight(_state.Operation!, _state.Kernel.MountId);
    }

    /// <param name="running">What is in flight.</param>
    /// <param name="outcome">3: it failed; 4: nobody knows; else it took effect.</param>
    private void Finish(InFlight running, int outcome)
    {
        var kind = running.Operation.Kind;
        Assert.Equal(running.Operation.StartedAtVersion, _state.Operation?.StartedAtVersion);
        if (outcome == 4)
        {
            if (_random.Next(2) == 0) TakeEffect(running);
            _running = null;
            Record("outcome unknown", Uncertain(kind));
        }
        else if (outcome == 3 || !TakeEffect(running))
        {
            _running = null;
            if (kind == OperationKind.Mount) FailMount("mount failed", [], running.Operation.Spec != _spec);
            else Record("unmount failed", OutcomeRules.UnmountFailed(_state, Busy, _now));
        }
        else
        {
            _running = null;
            Record($"{kind} done", kind == OperationKind.Mount
                ? OutcomeRules.Mounted(_state, _identity, running.Id, [])
                : [Unmounted()]);
        }
    }

    private void FailMount(string what, ImmutableArray<MountEvent> before, bool superseded)
    {
        var isWhole = before.OfType<MountEvent.MountFailed>().Any();
        var forgotten = superseded ? [] : _attached.Where(pair => pair.Value == OnFailure.Forget && !_answered.Contains(pair.Key))
            .Select(pair => pair.Key).ToArray();
        var version = _state.Version;
        Record(what, isWhole ? before : [.. before, .. OutcomeRules.MountFailed(_state, Broken, _now)]);
        foreach (var key in forgotten)
        {
            _attached.Remove(key);
            Assert.IsType<CommandResult.Failed>(OutcomeOf.Command(Vocabulary.Attach(key), _state, version));
        }
    }
}
#pragma warning restore CA5394
