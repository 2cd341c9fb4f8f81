namespace MountLedger.Simulation;

/// <summary>
/// A worker process: it carries on with what it was told although its agent is dead, until it is killed. What it was at then has taken
/// effect or not.
/// </summary>
internal sealed class SimWorker(Machine machine, Life agent)
{
    private readonly List<Call> _running = [];

    public Life Agent => agent;

    public bool IsDead { get; private set; }

    /// <summary>It did not answer in time: it gets no new calls, and is killed before anything is settled that it was at.</summary>
    public bool IsWrittenOff { get; set; }

    /// <summary>Mounts that are made and attached nowhere.</summary>
    public Dictionary<long, ulong> Prepared { get; } = [];

    public sealed class Call(string mountpoint, Action unknown)
    {
        public string Mountpoint => mountpoint;

        public void End() => unknown();
    }

    public void Begin(Call call) => _running.Add(call);

    public void End(Call call) => _running.Remove(call);

    public bool IsAt(string mountpoint) => _running.Exists(call => call.Mountpoint == mountpoint);

    public void Kill()
    {
        if (IsDead) return;
        IsDead = true;
        machine.Workers.Remove(this);
        foreach (var call in _running.ToArray()) call.End();
        _running.Clear();
        Prepared.Clear();
    }
}
