using System.Text.Json;
using MountLedger.Wire;

namespace MountLedger.Simulation;

/// <summary>
/// The rules of a mountpoint (section 4 of the contract) once more, as small as possible and on their own: what each event may follow.
/// It shares no code with the decider or the fold.
/// </summary>
internal sealed class RuleModel(string mountpoint)
{
    private readonly SortedDictionary<string, bool> _confirmed = new(StringComparer.Ordinal);
    private MountState _folded = MountState.Initial(new StreamKey(World.Host, mountpoint));
    private (string Source, string FsType, string Options)? _wanted;
    private (string Source, string FsType, string Options)? _making;
    private (string Source, string FsType, string Options)? _there;
    private (string? BootId, ulong? MountId) _operationOn;
    private (string? BootId, ulong? MountId) _kernel;
    private OperationKind? _operation;
    private (string Source, string FsType, string Options)? _change;
    private (string Source, string FsType, string Options)? _changing;
    private bool _isUncertain;
    private bool _isPaused;
    private bool _isMissing;
    private bool _isAdopted;
    private bool _unmountWanted;
    private bool _mayForget;
    private long _generation;

    /// <summary>The mount that the ledger knew before the last event.</summary>
    public (string? BootId, ulong? MountId) Before { get; private set; }

    private bool Holds => _there is not null && _there == _wanted && !_unmountWanted && _operation is null or OperationKind.Remount && !_isUncertain && _confirmed.Count > 0;

    /// <returns>What is wrong with this event here; null when nothing is.</returns>
    public string? Apply(MountEvent change)
    {
        Before = _kernel;
        if (change is not MountEvent.AttachmentRemoved) _mayForget = change is MountEvent.MountFailed;
        return change switch
        {
            MountEvent.MountRequested e => Requested(e),
            MountEvent.AttachmentAdded e => Added($"{e.Volume}/{e.Consumer}"),
            MountEvent.AttachmentRemoved e => Removed($"{e.Volume}/{e.Consumer}", e.Reason),
            MountEvent.MountStarted e => MountStarted(e),
            MountEvent.Mounted e => Mounted(e),
            MountEvent.MountFailed => Ended(OperationKind.Mount, "mount_failed"),
            MountEvent.MountAdopted e => Adopted(e),
            MountEvent.MountKept => Kept(),
            MountEvent.UnmountRequested => UnmountRequested(),
            MountEvent.UnmountStarted e => UnmountStarted(e),
            MountEvent.Unmounted e => Unmounted(e),
            MountEvent.UnmountFailed => _operation is null ? null : Ended(OperationKind.Unmount, "unmount_failed"),
            MountEvent.OperationUncertain => Uncertain(),
            MountEvent.OperationSettled e => Settled(e),
            MountEvent.RemountRequested e => RemountRequested(e),
            MountEvent.RemountStarted => RemountStarted(),
            MountEvent.Remounted e => Remounted(e),
            MountEvent.RemountFailed => RemountFailed(),
            MountEvent.DriftDetected { Kind: DriftKind.Missing } => Missing(),
            MountEvent.DriftResolved { Kind: DriftKind.Missing } => Seen(),
            MountEvent.RepairPaused => Paused(true),
            MountEvent.RepairResumed => Paused(false),
            _ => null,
        };
    }

    /// <summary>What the state at a time is folded from (<c>PastReading</c>): a mount that was requested right after an unmount.</summary>
    private static MountState FromCleanSlate(IReadOnlyList<RecordedEvent> events)
    {
        var first = events.Count - 1;
        while (first > 0 && !(events[first].Event is MountEvent.MountRequested && events[first - 1].Event is MountEvent.Unmounted)) first--;
        return events.Skip(first).Aggregate(MountState.Initial(events[0].Stream) with { Version = first }, static (state, recorded) => state.Evolve(recorded));
    }

    private static string ShownOf(MountState state) => JsonSerializer.Serialize(Views.Of(state), Answers.Json.MountpointView);

    /// <summary>Whether the projection row is what the events fold to, and both are what the model has.</summary>
    public string? Differs(MountState row, IReadOnlyList<RecordedEvent> events)
    {
        if (_folded.Version < events.Count)
        {
            while (_folded.Version < events.Count) _folded = _folded.Evolve(events[(int)_folded.Version]);
            if (ShownOf(FromCleanSlate(events)) is var shown && shown != ShownOf(_folded))
                return $"folded from the last clean slate on, {shown} would be shown instead of {ShownOf(_folded)}";
        }
        if (_folded.Version != row.Version || _folded.Generation != row.Generation || MountStateCodec.Encode(_folded) != MountStateCodec.Encode(row))
            return $"the row is not what the events fold to: {MountStateCodec.Encode(row)} instead of {MountStateCodec.Encode(_folded)}";
        if (!_folded.Attachments.SequenceEqual(row.Attachments)) return "the attachments are not what the events fold to";
        if (!row.Attachments.Select(one => ($"{one.Volume}/{one.Consumer}", one.Confirmed)).Order()
            .SequenceEqual(_confirmed.Select(pair => (pair.Key, pair.Value)).Order()))
        {
            return $"the attachments are {string.Join(' ', row.Attachments.Select(one => $"{one.Consumer}:{one.Confirmed}"))}, "
                + $"and by the rules {string.Join(' ', _confirmed)}";
        }
        if (row.Generation != _generation) return $"generation {row.Generation} instead of {_generation}";
        if (row.Holds != Holds) return $"holds: {row.Holds}, and by the rules {Holds}";
        return null;
    }

    private string? Requested(MountEvent.MountRequested e)
    {
        _wanted = (e.Source, e.Fstype, string.Join(',', e.Options));
        _change = null;
        _generation++;
        if (e.Generation != _generation) return $"generation {e.Generation} after {_generation - 1}";
        return _confirmed.Count > 0 ? "another spec although there are attachments (rule 4)" : null;
    }

    private string? Added(string key)
    {
        if (!_confirmed.TryAdd(key, false)) return $"{key} is added twice (rule 3)";
        if (_wanted is null) return $"{key} is added although nothing was asked for";
        if (Holds) _confirmed[key] = true;
        return null;
    }

    private string? Removed(string key, RemovalReason reason)
    {
        if (!_confirmed.Remove(key, out var confirmed)) return $"{key} is removed and was not there";
        if (reason != RemovalReason.MountFailed) return null;
        if (confirmed) return $"{key} is forgotten although it was confirmed (rule 9)";
        return _mayForget ? null : $"{key} is forgotten without a failure (rule 9)";
    }

    private string? MountStarted(MountEvent.MountStarted e)
    {
        var wrong = _operation is not null ? "a mount is started during another operation"
            : _there is not null ? "a mount is started although one is there (rule 8)"
            : _confirmed.Count == 0 ? "a mount is started that nobody wants"
            : _isPaused && _isMissing ? "a missing mount is made again although its repair is paused"
            : null;
        (_operation, _making, _operationOn) = (OperationKind.Mount, _wanted, (e.BootId, e.MountId));
        return wrong;
    }

    private string? Mounted(MountEvent.Mounted e)
    {
        var wrong = Ended(OperationKind.Mount, "mounted");
        if (_operationOn.MountId is { } id && e.MountId != id) wrong ??= $"mount {id} was started, and {e.MountId} is recorded";
        (_there, _kernel, _isAdopted) = (_making, (e.BootId, e.MountId), false);
        Confirm();
        return wrong;
    }

    private string? Adopted(MountEvent.MountAdopted e)
    {
        var wrong = _operation is not null || _there is not null ? "a mount is adopted beside another one" : _confirmed.Count == 0 ? "adopted for nobody" : null;
        (_there, _kernel, _isAdopted, _unmountWanted) = (_wanted, (e.BootId, e.MountId), true, false);
        Confirm();
        return wrong;
    }

    private string? Kept()
    {
        _unmountWanted = false;
        Confirm();
        return _there is null || _there != _wanted || _operation is not null || _confirmed.Count == 0 ? "a mount is kept that is not there (rule 8)" : null;
    }

    private string? UnmountRequested()
    {
        _unmountWanted = true;
        _change = null;
        return _confirmed.Count > 0 ? "an unmount is asked for although there are attachments" : null;
    }

    private string? UnmountStarted(MountEvent.UnmountStarted e)
    {
        var wrong = _operation is not null ? "an unmount is started during another operation"
            : _there is null ? "an unmount is started of nothing"
            : _isAdopted ? "an adopted mount is unmounted (rule 6)"
            : _confirmed.ContainsValue(true) ? "an unmount is started under a confirmed attachment (rule 8)"
            : _confirmed.Count > 0 && _there == _wanted ? "an unmount is started of what is wanted (rule 8)"
            : null;
        (_operation, _operationOn) = (OperationKind.Unmount, (e.BootId, e.MountId));
        if (e.MountId != _kernel.MountId) wrong ??= $"an unmount is started of {e.MountId}, and {_kernel.MountId} is there";
        return wrong;
    }

    private string? Unmounted(MountEvent.Unmounted e)
    {
        string? wrong;
        if (e.Released) wrong = !_isAdopted || _operation is not null ? "a mount of ours is released" : _confirmed.ContainsValue(true) ? "released under an attachment" : null;
        else wrong = Ended(OperationKind.Unmount, "unmounted");
        Gone();
        return wrong;
    }

    private string? Ended(OperationKind kind, string by)
    {
        var wrong = _operation == kind ? null : $"{by} ends {(_operation is { } other ? other.ToString() : "nothing")}";
        (_operation, _isUncertain) = (null, false);
        if (_there is null && by != "mounted") (_unmountWanted, _change) = (false, null);
        return wrong;
    }

    private string? Uncertain()
    {
        var wrong = _operation is null ? "nothing is uncertain" : _isUncertain ? "uncertain twice" : null;
        _isUncertain = true;
        return wrong;
    }

    private string? Settled(MountEvent.OperationSettled e)
    {
        // Also how the reconciler ends what nobody wants and what has gone by itself.
        var wrong = _operation is null && _confirmed.Count > 0 ? "nothing was to be settled" : null;
        (_operation, _isUncertain) = (null, false);
        if (e.Found != SettledAs.Mounted) Gone();
        return wrong;
    }

    private string? RemountRequested(MountEvent.RemountRequested e)
    {
        var wrong = _change is not null ? "a remount is asked for during another one" : !Holds || _operation is not null ? "a remount is asked for of what does not hold" : null;
        _change = _wanted is { } wanted ? wanted with { Options = string.Join(',', e.Options) } : null;
        return wrong;
    }

    private string? RemountStarted()
    {
        var wrong = _operation is not null ? "a remount is started during another operation" : _there is null ? "a remount is started of nothing"
            : _change is null ? "a remount is started that nobody asked for" : null;
        (_operation, _changing) = (OperationKind.Remount, _change);
        return wrong;
    }

    /// <summary>The new options become the wanted ones, unless everybody has left meanwhile.</summary>
    private string? Remounted(MountEvent.Remounted e)
    {
        var wrong = Ended(OperationKind.Remount, "remounted");
        if (_there is not null) _there = _changing;
        if (_change is not null) (_wanted, _generation, _change) = (_changing, e.Generation, null);
        return wrong;
    }

    private string? RemountFailed()
    {
        _change = null;
        return Ended(OperationKind.Remount, "remount_failed");
    }

    private string? Seen()
    {
        _isMissing = false;
        return null;
    }

    private string? Paused(bool paused)
    {
        var wrong = _isPaused == paused ? "it is paused, or not, already" : null;
        _isPaused = paused;
        return wrong;
    }

    private string? Missing()
    {
        _isMissing = true;
        if (_operation is null) Gone();
        return null;
    }

    private void Gone()
    {
        (_there, _kernel, _isAdopted) = (null, default, false);
        if (_operation is null) (_unmountWanted, _change) = (false, null);
    }

    private void Confirm()
    {
        if (!Holds) return;
        foreach (var key in _confirmed.Keys.ToArray()) _confirmed[key] = true;
    }
}
