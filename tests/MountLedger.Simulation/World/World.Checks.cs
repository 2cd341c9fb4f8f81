using System.Collections.Immutable;

namespace MountLedger.Simulation;

/// <summary>What must hold in every run. Ledger and kernel change only here, so that each of their steps is looked at.</summary>
internal sealed partial class World
{
    private readonly Dictionary<string, RuleModel> _models = new(StringComparer.Ordinal);
    private readonly HashSet<(string Mountpoint, AttachmentKey Key)> _acknowledged = [];
    private readonly Dictionary<(string Mountpoint, AttachmentKey Key), DateTimeOffset> _since = [];
    private readonly Dictionary<string, DateTimeOffset> _syncedAsOf = new(StringComparer.Ordinal);
    private readonly Dictionary<string, (string? Agent, bool IsKnown)> _underWay = new(StringComparer.Ordinal);

    /// <summary>A caller was told that its mount holds: from now on it must, until that caller detaches.</summary>
    public void Acknowledge(string mountpoint, AttachmentKey key)
    {
        var state = Ledger.StateOf(mountpoint);
        if (!state.Attachments.TryGetValue(key, out var attachment)) Fail($"{mountpoint}: {key} was told that it is attached, and is not");
        else if (!attachment.Confirmed) Fail($"{mountpoint}: {key} was told that its mount holds, and is not confirmed");
        _acknowledged.Add((mountpoint, key));
    }

    public void Release(string mountpoint, AttachmentKey key) => _acknowledged.Remove((mountpoint, key));

    /// <summary>From now on a consumer may lose what it has held since before <paramref name="asOf"/>, and nothing younger.</summary>
    public void SyncBegins(string consumer, DateTimeOffset asOf) =>
        _syncedAsOf[consumer] = _syncedAsOf.TryGetValue(consumer, out var before) && before > asOf ? before : asOf;

    /// <summary>The kernel has told an agent what became of the operation that it started.</summary>
    public void OutcomeKnown(Life agent, string mountpoint)
    {
        if (_underWay.TryGetValue(mountpoint, out var started) && started.Agent == agent.Name) _underWay[mountpoint] = (started.Agent, true);
    }

    /// <summary>Of each commit, in the instant that it happens.</summary>
    public void Appended(AppendBatch batch, ImmutableArray<RecordedEvent> events)
    {
        _commits++;
        var mountpoint = batch.Stream.Id;
        if (!_models.TryGetValue(mountpoint, out var model)) _models.Add(mountpoint, model = new RuleModel(mountpoint));
        if (IsTraced)
        {
            Trace($"ledger: {mountpoint} v{events[^1].Version} by {batch.Origin.Agent ?? "elsewhere"}: {string.Join("; ", events.Select(recorded => Describe((MountEvent)recorded.Event)))}");
        }
        foreach (var recorded in events)
        {
            if (model.Apply((MountEvent)recorded.Event) is { } broken) Fail($"{mountpoint} v{recorded.Version}: {broken}");
            CheckAgainstKernel(mountpoint, (MountEvent)recorded.Event, batch.Origin);
            CheckAgainstHistory(mountpoint, (MountEvent)recorded.Event, recorded.At, batch.Origin.Agent);
        }
        if (events[^1].Event is MountEvent.MountStarted or MountEvent.UnmountStarted) _nemesis.MaybeStop(batch.Origin.Agent);
        var state = Ledger.StateOf(mountpoint);
        if (model.Differs(state, Ledger.EventsOf(batch.Stream)) is { } difference) Fail($"{mountpoint} v{state.Version}: {difference}");
        foreach (var (path, key) in _acknowledged)
        {
            if (path != mountpoint) continue;
            if (!state.Attachments.TryGetValue(key, out var attachment)) Fail($"{path}: the acknowledged attachment of {key} is lost");
            else if (!attachment.Confirmed) Fail($"{path}: the acknowledged attachment of {key} is not confirmed any more");
        }
    }

    private static string Describe(MountEvent change) => change switch
    {
        MountEvent.AttachmentAdded e => $"+{e.Consumer}",
        MountEvent.AttachmentRemoved e => $"-{e.Consumer} ({e.Reason})",
        MountEvent.MountStarted e => $"MountStarted {e.MountId}",
        MountEvent.MountRequested e => $"MountRequested {e.Fstype} g{e.Generation}",
        MountEvent.Mounted e => $"Mounted {e.MountId}",
        MountEvent.MountFailed e => $"MountFailed {e.Errno} {e.Message}",
        MountEvent.UnmountFailed e => $"UnmountFailed {e.Errno} {e.Message}",
        MountEvent.DriftDetected e => $"DriftDetected {e.Kind} {e.Detail}",
        MountEvent.OperationSettled e => $"OperationSettled {e.Operation} {e.Found}",
        _ => change.GetType().Name,
    };

    /// <summary>The machine whose agent has the lease: the one whose kernel the ledger speaks of.</summary>
    private Machine? Serving => Machines.FirstOrDefault(machine => machine.Name == Ledger.Holder.Machine);

    private void CheckAgainstKernel(string mountpoint, MountEvent change, AppendOrigin origin)
    {
        if (Serving is not { } machine || !HasUniqueIds) return;
        var state = _models[mountpoint].Before;
        switch (change)
        {
            case MountEvent.Mounted { MountId: { } id } e when e.BootId == machine.Kernel.BootId && !machine.EverAttached.Contains(id):
                Fail($"{mountpoint}: recorded as mounted, and {id} has never been there");
                break;
            case MountEvent.Unmounted { Released: false } when Known(state) is { } left:
                Fail($"{mountpoint}: recorded as unmounted, and {left} is still there");
                break;
            case MountEvent.DriftDetected { Kind: DriftKind.Missing } when Known(state) is { } there:
                Fail($"{mountpoint}: recorded as missing, and {there} is there");
                break;
        }

        ulong? Known((string? BootId, ulong? MountId) kernel) =>
            kernel.BootId == machine.Kernel.BootId && machine.Table.Exists(mount => mount.Id == kernel.MountId) ? kernel.MountId : null;
    }

    /// <summary>Against what came before it, where the state does not tell.</summary>
    private void CheckAgainstHistory(string mountpoint, MountEvent change, DateTimeOffset at, string? agent)
    {
        switch (change)
        {
            case MountEvent.AttachmentAdded e:
                _since[(mountpoint, new AttachmentKey(e.Volume, e.Consumer))] = at;
                break;
            case MountEvent.AttachmentRemoved { Reason: RemovalReason.Synced } e:
                if (_since[(mountpoint, new AttachmentKey(e.Volume, e.Consumer))] is var since && since >= _syncedAsOf[e.Consumer])
                    Fail($"{mountpoint}: {e.Consumer} lost what it has held since {since:O} to a synchronisation as of {_syncedAsOf[e.Consumer]:O}");
                break;
            case MountEvent.MountStarted or MountEvent.UnmountStarted or MountEvent.RemountStarted:
                _underWay[mountpoint] = (agent, false);
                break;
            case MountEvent.OperationUncertain when agent is not null && _underWay.GetValueOrDefault(mountpoint) == (agent, true):
                Fail($"{mountpoint}: {agent} was told by the kernel what became of its operation, and has recorded that nobody knows");
                break;
        }
    }

    // ---- what agents do to the kernel ----

    /// <summary>An agent is about to ask the kernel for something: nobody else may have been given the host by now.</summary>
    public void BeginsToAct(Life agent, Machine machine, string what)
    {
        Trace($"{agent.Name}: {what}");
        if (Ledger.Holder.Agent != agent.Name)
            Fail($"{what} by {agent.Name} on {machine.Name}, when {Ledger.Holder.Agent} (epoch {Ledger.Holder.Epoch}) has the lease");
    }

    public void Attached(Life agent, Machine machine, SimMount mount)
    {
        Trace($"kernel: {mount.Id} {mount.Spec.FsType} is mounted at {mount.Path} on {machine.Name}, by {agent.Name}");
        if (Ledger.Holder.Agent != agent.Name)
        {
            // It was told to while it had the lease, and took long: the lease promises no more.
            mount.IsForgotten = true;
            return;
        }
        if (machine.OursAt(mount.Path).Count() > 1) Fail($"two mounts are stacked at {mount.Path}");
        if (machine.Table.Find(below => !below.IsForeign && below.Below == mount.Below && MountPath.IsBelow(below.Path, mount.Path)) is { } hidden)
            Fail($"the mount at {mount.Path} hides the one at {hidden.Path}");
    }

    public void AttachedOver(Machine machine, SimMount top)
    {
        if (!top.IsForeign) Fail($"the agent would have mounted over its own mount {top.Id} at {top.Path} on {machine.Name}");
    }

    public void UnmountedUnder(Machine machine, SimMount top)
    {
        if (!top.IsForeign && machine.Table.Find(child => child.Below == top && !child.IsForeign) is { } child)
            Fail($"{top.Path} was to be unmounted before {child.Path} below it");
    }

    public void Unmounted(Life agent, Machine machine, SimMount mount)
    {
        Trace($"kernel: {mount.Id} is unmounted from {mount.Path} on {machine.Name}, by {agent.Name}");
        if (!mount.Ours && HasUniqueIds) Fail($"the foreign mount {mount.Id} at {mount.Path} was unmounted");
        if (machine != Serving) return;
        foreach (var (path, key) in _acknowledged)
        {
            if (path == mount.Path) Fail($"{path} was unmounted under {key}, whose attachment is acknowledged");
        }
        if (Ledger.StateOf(mount.Path) is { } state && state.Attachments.FirstOrDefault(attachment => attachment.Confirmed) is { } holder)
            Fail($"{mount.Path} was unmounted under {holder.Key}, which is confirmed");
    }

    /// <summary>Another machine has the host now: nobody speaks any more of what this one has mounted.</summary>
    public void Forget(string? machineWithLease)
    {
        foreach (var machine in Machines)
        {
            if (machine.Name == machineWithLease) continue;
            foreach (var mount in machine.Table) mount.IsForgotten = true;
        }
    }

    // ---- at rest ----

    /// <summary>Why it is not at rest; null when it is.</summary>
    private string? Unrest()
    {
        if (Machines[0].Agent is not { IsOpen: true, Life.IsDead: false } agent || Ledger.Holder.Agent != agent.Life.Name) return "no agent serves";
        if (!Ledger.HostState.IsUp) return "the host is down";
        if (Doubts.Open > 0) return "an append has yet to arrive";
        if (Ledger.States.FirstOrDefault(state => state.RepairPaused) is { } paused) return $"the repair of {paused.Mountpoint} is paused";
        foreach (var state in Ledger.States)
        {
            if (MountFlow.NextAction(state).Kind is var next and not ActionKind.None && !IsBlocked(state)) return $"{state.Mountpoint} is {state.Phase}, next {next}";
        }
        if (agent.Node!.Executor.Running > 0) return $"{agent.Node.Executor.Running} turns are running";
        return agent.Node.Executor.Gate.Count > 0 ? "a mountpoint is held" : null;
    }

    /// <summary>
    /// What is mounted below it must go first, and is needed; or what is above it must come first, and waits in this way; or a stranger
    /// has mounted over it. By the rules it waits, and that is its rest.
    /// </summary>
    private bool IsBlocked(MountState state)
    {
        var next = MountFlow.NextAction(state).Kind;
        if (state.Operation is not null || next is not (ActionKind.Mount or ActionKind.Unmount)) return false;
        var below = new List<SimMount>();
        for (var mount = Machines[0].Table.Find(mount => mount.Id == state.Kernel?.MountId); mount is not null; mount = mount.Below) below.Add(mount);
        if (Machines[0].Table.Exists(mount => mount.IsForeign && !below.Contains(mount) && CannotLeave(mount)
            && (mount.Path == state.Mountpoint || (next == ActionKind.Unmount && MountPath.IsBelow(state.Mountpoint, mount.Path)))))
        {
            return true;
        }
        // Who has held once was there before whatever is below: it is mounted again first. Only a mount that vanishes in the moment in which
        // another one is put below it cannot be waited for.
        return ((next == ActionKind.Unmount || Machines[0].HasLostMounts || !state.Attachments.Any(attachment => attachment.Confirmed))
            && Ledger.States.Any(child => MountPath.IsBelow(child.Mountpoint, state.Mountpoint) && child.Kernel is not null && !child.Attachments.IsEmpty))
            || (next == ActionKind.Mount && Ledger.States.Any(above => MountPath.IsBelow(state.Mountpoint, above.Mountpoint) && IsBlocked(above)));
    }

    /// <summary>A stranger's mount that stays: it was adopted and is held, or something of ours is mounted on it.</summary>
    private bool CannotLeave(SimMount stranger) =>
        (Ledger.StateOf(stranger.Path) is { Attachments.IsEmpty: false, Kernel.MountId: var id } && id == stranger.Id)
        || Machines[0].Table.Exists(child => child.Below == stranger && (!child.IsForeign || CannotLeave(child)));

    private void CheckAtRest()
    {
        var machine = Machines[0];
        foreach (var state in Ledger.States)
        {
            var path = state.Mountpoint;
            // Whatever a stranger has mounted on top of it.
            var there = machine.Table.FindAll(mount => mount.Path == path && (!mount.IsForeign || mount.Id == state.Kernel?.MountId));
            if (IsBlocked(state)) continue;
            if (state.Operation is not null || state.Uncertain) Fail($"{path}: an operation has no outcome");
            if (state.Attachments.IsEmpty)
            {
                if (machine.OursAt(path).FirstOrDefault() is { } left && !IsReleased(state, left)) Fail($"{path}: {left.Id} is there, and nobody wants it");
            }
            else if (there.Count != 1 || there[0].Spec != state.Spec)
            {
                Fail($"{path}: wanted is {state.Spec}, and there is [{string.Join(", ", there.Select(mount => $"{mount.Id} {mount.Spec}"))}]");
            }
            else if (HasUniqueIds && state.Kernel!.MountId != there[0].Id)
            {
                Fail($"{path}: the ledger knows mount {state.Kernel.MountId}, and there is {there[0].Id}");
            }
            if (state.Attachments.FirstOrDefault(attachment => !attachment.Confirmed) is { } unconfirmed)
                Fail($"{path}: the mount holds, and {unconfirmed.Key} is not confirmed");
        }
        foreach (var mount in machine.Table.Where(mount => !mount.IsForeign))
        {
            if (Ledger.StateOf(mount.Path).Version == 0) Fail($"{mount.Path}: {mount.Id} is there, and the ledger has never heard of it");
        }
        foreach (var client in _clients) client.CheckAtRest();
        var agent = machine.Agent!;
        if (agent.Node!.Live.Count().Waiters is var waiters and > 0) Fail($"{waiters} waiters are left behind");
        if (agent.Host.PreparedCount is var prepared and > 0) Fail($"{prepared} prepared mounts are left behind");
    }

    /// <summary>A mount of ours that was adopted again (its record was lost to another machine) is let go, not unmounted.</summary>
    private static bool IsReleased(MountState state, SimMount mount) => state.Released || mount.IsForgotten;
}
