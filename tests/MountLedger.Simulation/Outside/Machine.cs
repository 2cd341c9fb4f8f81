namespace MountLedger.Simulation;

/// <summary>A mount as the kernel has it. <paramref name="Below"/>: the mount that it is attached to; null: the root.</summary>
internal sealed record SimMount(ulong Id, string Path, MountSpec Spec, SimMount? Below, bool Ours)
{
    /// <summary>A remount changes it.</summary>
    public MountSpec Spec { get; set; } = Spec;

    /// <summary>It was made by an agent of an earlier time of this machine, for a lease that another machine has had since.</summary>
    public bool IsForgotten { get; set; }

    public bool IsForeign => !Ours || IsForgotten;

    /// <summary>A process keeps it busy.</summary>
    public bool IsPinned { get; set; }
}

/// <summary>One machine: its kernel's mount table, its clock, what its agents keep on disk, and the lock that only one of them has.</summary>
internal sealed class Machine(World world, string name)
{
    private int _boots;

    public string Name => name;

    /// <summary>In mount order.</summary>
    public List<SimMount> Table { get; } = [];

    /// <summary>Every unique id that an agent's mount has ever had at a path here.</summary>
    public HashSet<ulong> EverAttached { get; } = [];

    public KernelIdentity Kernel { get; private set; } = new($"{name}-boot0", 1);

    public TimeSpan ClockOffset { get; set; }

    /// <summary>What the state directory keeps.</summary>
    public long LocalEpoch { get; set; }

    /// <summary>Who has the host-local lock.</summary>
    public Life? LockHolder { get; set; }

    public SimAgent? Agent { get; set; }

    /// <summary>Worker processes that may still act.</summary>
    public List<SimWorker> Workers { get; } = [];

    /// <summary>Who is told of changes of the mount table.</summary>
    public List<Action<MountTableChange>> Watchers { get; } = [];

    /// <summary>A mount has gone without the agent's doing, and nobody has compared since.</summary>
    public bool WasDisturbed { get; set; }

    /// <summary>Some have gone without the agent's doing, at any time.</summary>
    public bool HasLostMounts { get; set; }

    /// <summary>The mount that a path leads to: the topmost one at the path or at its nearest ancestor that is one.</summary>
    public SimMount? Resolve(string path)
    {
        SimMount? current = null;
        foreach (var prefix in MountPath.AncestorsOf(path).Reverse().Append(path))
        {
            while (Table.FindLast(mount => mount.Below == current && mount.Path == prefix) is { } next) current = next;
        }
        return current;
    }

    /// <summary>The mounts exactly at a path that can be seen there, the topmost first.</summary>
    public List<SimMount> At(string path)
    {
        var stack = new List<SimMount>();
        for (var top = Resolve(path); top is not null && top.Path == path; top = top.Below) stack.Add(top);
        return stack;
    }

    /// <summary>A mount of ours that the ledger can know, at a path.</summary>
    public IEnumerable<SimMount> OursAt(string path) => Table.Where(mount => mount.Path == path && !mount.IsForeign);

    public SimMount Attach(ulong id, string path, MountSpec spec, bool ours)
    {
        var mount = new SimMount(id, path, spec, Resolve(path), ours);
        Table.Add(mount);
        if (ours) EverAttached.Add(id);
        Tell(new MountTableChange(TableChangeKind.Attached, id, path));
        return mount;
    }

    /// <summary>Takes a mount away with all that is on it (a lazy unmount by a stranger).</summary>
    public void TakeAway(SimMount mount)
    {
        if (Table.Remove(mount)) Tell(new MountTableChange(TableChangeKind.Detached, mount.Id, null));
        foreach (var child in Table.FindAll(child => child.Below == mount)) TakeAway(child);
    }

    /// <summary>Late, or never; a kernel without unique ids says only that something is different.</summary>
    private void Tell(MountTableChange change)
    {
        foreach (var watcher in Watchers.ToArray())
        {
            if (world.Dice.Percent(world.Faults.LostTablePercent)) continue;
            var told = world.HasUniqueIds && !world.Dice.Percent(5) ? change : new MountTableChange(TableChangeKind.Unclear, 0, null);
            world.Scheduler.After(world.Outside, world.Dice.Latency(5), () => watcher(told));
        }
    }

    public void Reboot()
    {
        world.Trace($"{name}: reboots");
        Agent?.Life.Kill();
        foreach (var worker in Workers.ToArray()) worker.Kill();
        Table.Clear();
        Kernel = new KernelIdentity($"{name}-boot{++_boots}", 1);
        WasDisturbed = false;
    }
}
