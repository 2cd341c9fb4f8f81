using System.Collections.Immutable;
using static MountLedger.Tests.Rules.Vocabulary;

namespace MountLedger.Tests.Rules;

/// <summary>The kernel's side of the simulation, what befalls it, and what has to be true after every step.</summary>
internal sealed partial class SimulatedMountpoint
{
#pragma warning disable CA5394 // Reproducible is what it has to be.
    /// <returns>Whether it could: nothing is ever mounted on top of something else.</returns>
    private bool TakeEffect(InFlight running)
    {
        if (running.Operation.Kind == OperationKind.Mount)
        {
            if (_kernel.Count > 0) return false;
            _kernel.Add(new Mount(running.Id, running.Operation.Spec!, Foreign: false));
            return true;
        }
        var gone = running.Id is { } id ? _kernel.FindIndex(mount => mount.Id == id) : _kernel.Count - 1;
        if (gone < 0) return true;
        if (_idsAreUnique) Assert.False(_kernel[gone].Foreign, "a foreign mount was unmounted");
        _kernel.RemoveAt(gone);
        return true;
    }

    private Observation Observe(MountSpec? wanted) => Found([.. _kernel.Select(mount => new ObservedMount(
        mount.Id, 30, 20, Mountpoint, mount.Spec.FsType, mount.Spec.Source, "/", [], [],
        wanted is null ? null : mount.Spec == wanted ? ImmutableArray<string>.Empty : ["options"]))]);

    /// <summary>Somebody mounts or unmounts by hand.</summary>
    private void AppearOrVanish()
    {
        if (_kernel.Count > 0)
        {
            Log.Add("somebody unmounts");
            _kernel.Clear();
            if (_random.Next(2) == 0) Reconcile();
        }
        // Without unique ids nobody could tell it from the mount that the ledger knows.
        else if (_running is null && (_idsAreUnique || _state.Kernel is null))
        {
            Log.Add("somebody mounts");
            _kernel.Add(new Mount(_idsAreUnique ? ++_lastId : null, Specs[_random.Next(2)], Foreign: true));
        }
    }

    private void Crash(bool reboot)
    {
        Log.Add($"crash, reboot: {reboot}");
        if (_running is { } running && _random.Next(2) == 0) TakeEffect(running);
        _running = null;
        if (reboot)
        {
            _kernel.Clear();
            // Another boot, or the agent came back in another mount namespace: neither id ever comes back.
            _identity = _random.Next(2) == 0
                ? _identity with { BootId = "boot-" + ++_lastId }
                : _identity with { MountNamespaceId = Namespace + ++_lastId };
        }
        Reconcile();
    }

    /// <summary>What the reconciler makes of a mount that the ledger knows and the kernel does not have.</summary>
    private void Reconcile()
    {
        if (_state is not { Kernel: { } kernel, Operation: null, Uncertain: false }) return;
        var there = kernel.IsOf(_identity)
            && (kernel.MountId is { } id ? _kernel.Exists(mount => mount.Id == id) : _kernel.Count > 0);
        if (there) return;
        Record("reconcile", _attached.Count == 0 ? Unmounted() : Drift(DriftKind.Missing));
    }

    private void Record(string what, params ImmutableArray<MountEvent> events)
    {
        foreach (var change in events)
        {
            _state = _state.Evolve(change, ++_events, Start.AddSeconds(_events), "root");
        }
        Log.Add($"{what}: {string.Join("; ", events.Select(EventCatalog.StoredName))}   => {Describe()}");
    }

    private void Check()
    {
        Assert.Equal(_events, _state.Version);
        Assert.Equal(_attached.Keys.Order(AttachmentKey.Order), _state.Attachments.Keys);
        if (_attached.Count > 0) Assert.Equal(_spec, _state.Spec);
        Assert.True(_kernel.Count <= 1, "two mounts are stacked");

        CheckAnswers();
        CheckPhase();
        if (_random.Next(5) == 0) ComeBackFromTheRow();
    }

    /// <summary>Who is answered that its mount holds has it, and nothing is about to take it away.</summary>
    private void CheckAnswers()
    {
        foreach (var attachment in _state.Attachments)
        {
            var key = attachment.Key;
            var answer = OutcomeOf.Command(Vocabulary.Attach(key), _state, _state.Version);
            if (answer is CommandResult.Done)
            {
                if (_answered.Add(key)) Assert.Equal(_spec, _state.Kernel?.Spec);
                Assert.Null(_state.UnmountWanted);
            }
            Assert.Equal(_answered.Contains(key), attachment.Confirmed);
        }
        if (MountFlow.NextAction(_state).Kind is ActionKind.Unmount or ActionKind.Release) Assert.Empty(_answered);
        if (_state.Operation?.Kind == OperationKind.Unmount) Assert.Empty(_answered);
    }

    private void CheckPhase()
    {
        var next = MountFlow.NextAction(_state).Kind;
        var paused = _state.RepairPaused && _state.Drift.ContainsKey(DriftKind.Missing);
        var fits = _state.Phase switch
        {
            Phase.Absent => next == ActionKind.None && _attached.Count == 0 && _state.Kernel is null,
            Phase.Mounted => next == ActionKind.None && _attached.Count > 0 && _state.Kernel is not null,
            Phase.Mounting => next == (_state.Operation is not null ? ActionKind.Settle : paused ? ActionKind.None : ActionKind.Mount),
            Phase.Failed => next == (paused ? ActionKind.None : ActionKind.Mount) && _state.Error is not null,
            Phase.Unmounting => next is ActionKind.Unmount or ActionKind.Keep or ActionKind.Release
                || (next == ActionKind.Settle && _state.Operation?.Kind == OperationKind.Unmount),
            _ => next == ActionKind.Settle && _state.Uncertain,
        };
        Assert.True(fits, $"phase {_state.Phase} with next action {next}");
        if (_state.Phase == Phase.Absent) Assert.Null(_state.UnmountWanted);
    }

    private void ComeBackFromTheRow()
    {
        var row = MountStateCodec.Encode(_state);
        var back = MountStateCodec.Decode(
            _state.Stream, _state.Version, _state.Generation, row, _state.UpdatedAt, _state.Attachments);
        Assert.Equal(row, MountStateCodec.Encode(back));
        Assert.Equal((_state.Phase, MountFlow.NextAction(_state)), (back.Phase, MountFlow.NextAction(back)));
        Assert.Equal(_state.Attachments.AsEnumerable(), back.Attachments.AsEnumerable());
        _state = back;
    }

    private string Describe() =>
        $"v{_state.Version} {_state.Phase}, next {MountFlow.NextAction(_state).Kind}, held by {string.Join('+', _state.Attachments
            .Select(attachment => $"{attachment.Consumer}/{attachment.Volume}{(attachment.Confirmed ? "!" : "")}"))}, wants {_state.Spec}, knows {_state.Kernel?.Spec}, kernel [{string.Join(' ', _kernel)}]";
#pragma warning restore CA5394
}
