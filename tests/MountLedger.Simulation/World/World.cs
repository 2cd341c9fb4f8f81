using System.Collections.Immutable;

namespace MountLedger.Simulation;

/// <summary>What came of a seed. <paramref name="Violation"/>: null when everything held.</summary>
internal sealed record RunResult(
    ulong Seed, string? Violation, long Steps, ulong Digest, int Answered, int Commits, IReadOnlyList<string> Trace);

/// <summary>
/// One run: machines, their agents, clients, a ledger, and what goes wrong, all from one seed. First everything happens at once; then
/// nothing goes wrong any more, and it must come to rest with kernel and ledger in agreement.
/// </summary>
internal sealed partial class World
{
    public const string Host = "host";
    public const string Root = "/m";

    /// <summary>How often an agent compares everything although nothing was told.</summary>
    public static readonly TimeSpan AuditInterval = TimeSpan.FromSeconds(20);

    private const int StepsMax = 60_000;
    private static readonly TimeSpan RestMax = TimeSpan.FromMinutes(20);
    private static readonly TimeSpan AuditMax = AuditInterval + TimeSpan.FromSeconds(45);
    private static readonly TimeSpan RestInterval = TimeSpan.FromSeconds(5);
    private static readonly string[] AllPaths = ["/m/a", "/m/a/b", "/m/a/b/c", "/m/d"];

    private readonly List<string> _trace = [];
    private readonly Nemesis _nemesis;
    private readonly List<SimClient> _clients = [];
    private readonly ulong _seed;
    private bool _isQuiet;
    private TimeSpan _restNotBefore;
    private int _agents;
    private int _answered;
    private int _commits;
    private ulong _mountId = 100;

    private World(ulong seed, bool isTraced)
    {
        (_seed, IsTraced) = (seed, isTraced);
        Dice = new Dice(seed);
        Scheduler = new Scheduler(Dice);
        Outside = new Life(Scheduler, "outside");
        HasUniqueIds = !Dice.Percent(8);
        IsWatched = Dice.Percent(70);
        Doubts = new Doubts(Scheduler);
        Faults = Faults.Roll(Dice, HasUniqueIds);
        Ledger = new SimLedger(this);
        Paths = [.. AllPaths.Take(Dice.Between(1, AllPaths.Length))];
        Machines = [.. Enumerable.Range(0, Dice.Percent(20) ? 2 : 1).Select(number => new Machine(this, $"machine{number}"))];
        _nemesis = new Nemesis(this);
    }

    public bool IsTraced { get; }
    public Dice Dice { get; }
    public Scheduler Scheduler { get; }

    /// <summary>Whatever is no agent: it never dies.</summary>
    public Life Outside { get; }

    public Faults Faults { get; private set; }
    public SimLedger Ledger { get; }
    public IReadOnlyList<Machine> Machines { get; }
    public ImmutableArray<string> Paths { get; }

    /// <summary>The kernel tells unique mount ids (6.8 and newer).</summary>
    public bool HasUniqueIds { get; }

    /// <summary>Agents watch the mount table while they run; in the other runs only their start compares.</summary>
    public bool IsWatched { get; }

    public Doubts Doubts { get; }

    public IReadOnlyList<SimClient> Clients => _clients;

    public string? Violation { get; private set; }

    public static RunResult Run(ulong seed, bool isTraced = false)
    {
        var world = new World(seed, isTraced);
        world.RunToTheEnd();
        world.Scheduler.IsOver = true;
        return new RunResult(
            seed, world.Violation, world.Scheduler.Steps, world.Scheduler.Digest, world._answered, world._commits, world._trace);
    }

    /// <summary>The specs that clients ask for: of each path a usual one, and a second one.</summary>
    public static MountSpec SpecOf(string path, int variant) => variant == 0
        ? new MountSpec("tmpfs", "tmpfs", ["nodev", "nosuid"])
        : new MountSpec($"/dev{path}", "ext4", ["nodev", "nosuid", "ro"]);

    public ulong NextMountId() => ++_mountId;

    public void Trace(string line)
    {
        if (IsTraced) _trace.Add($"{Scheduler.Now.TotalSeconds,11:0.000000} {line}");
    }

    /// <summary>Something that must never happen has happened. The first one counts; the run ends after this step.</summary>
    public void Fail(string violation)
    {
        if (Violation is not null) return;
        Violation = violation;
        Trace($"VIOLATED: {violation}");
    }

    public void Answered() => _answered++;

    /// <summary>An agent that takes commands, if any does; of two that believe so, either.</summary>
    public SimAgent? AnyAgent()
    {
        var open = Machines.Select(machine => machine.Agent).OfType<SimAgent>().Where(agent => agent is { IsOpen: true, Life.IsDead: false }).ToList();
        return open.Count == 0 ? null : Dice.Pick(open);
    }

    private void RunToTheEnd()
    {
        if (IsTraced) Trace($"seed {_seed}: {Machines.Count} machine(s), {string.Join(' ', Paths)}, ids {HasUniqueIds}, {Faults}, strikes {string.Join(' ', Faults.Strikes)}");
        foreach (var machine in Machines) Supervise(machine, Dice.Millis(0, 2_000));
        var clients = Dice.Between(1, 4);
        for (var number = 0; number < clients; number++) _clients.Add(new SimClient(this, $"c{number}"));
        if (Dice.Percent(30)) _clients.Add(new SimClient(this, "elsewhere", isElsewhere: true));
        foreach (var client in _clients) client.Start(Dice.Between(2, 8));

        while (Violation is null && !_clients.TrueForAll(client => client.IsDone))
        {
            if (!Go()) return;
            _nemesis.Maybe();
        }
        if (Violation is null) ComeToRest();
    }

    private bool Go()
    {
        var goesOn = Scheduler.Step();
        if (Scheduler.Broken is { } broken) Fail(broken);
        if (!goesOn) Fail("nothing happens any more, and there are clients that wait");
        else if (Scheduler.Steps > StepsMax) Fail($"no end after {StepsMax} steps: somebody wakes somebody for ever");
        return Violation is null;
    }

    /// <summary>Starts the agent of a machine, and starts it again whenever it has ended (the service manager).</summary>
    private void Supervise(Machine machine, TimeSpan delay) => Scheduler.After(Outside, delay, () =>
    {
        if (_isQuiet && machine != Machines[0]) return;
        var agent = machine.Agent = new SimAgent(this, machine, $"agent{++_agents}");
        agent.Life.OnDeath(() =>
        {
            Trace($"{agent.Life.Name}: is dead");
            EndOf(agent, machine);
            Supervise(machine, Dice.Millis(100, 5_000));
        });
        agent.Start();
    });

    /// <summary>A worker ends with its channel, but not before the call that it is at has returned from the kernel.</summary>
    private void EndOf(SimAgent agent, Machine machine)
    {
        foreach (var worker in machine.Workers.Where(worker => worker.Agent == agent.Life).ToArray())
            Scheduler.After(Outside, Dice.Latency(30), worker.Kill);
    }

    /// <summary>From here on nothing goes wrong: it must become true what everybody asked for.</summary>
    private void ComeToRest()
    {
        Trace("-- from here on nothing goes wrong");
        _isQuiet = true;
        Faults = Faults.None;
        Ledger.IsAway = Ledger.IsReadOnly = false;
        foreach (var machine in Machines)
        {
            machine.Agent?.Life.Resume();
            foreach (var mount in machine.Table) mount.IsPinned = false;
            if (machine != Machines[0]) machine.Agent?.Life.Kill();
        }
        var home = Machines[0];
        StrangersLeave();
        // When nobody watches the mount table, what went behind the agent's back is found when it starts.
        if (home.WasDisturbed && !IsWatched) home.Agent?.Life.Kill();
        // What the kernel did not tell of is found by the next comparison of everything.
        _restNotBefore = Scheduler.Now + (IsWatched ? AuditMax : TimeSpan.Zero);

        if (!Rest()) return;
        CheckAtRest();
        if (Violation is not null || Dice.Percent(50)) return;
        Trace("-- everybody leaves");
        foreach (var state in Ledger.States.ToList())
        {
            foreach (var holder in state.Attachments)
            {
                foreach (var client in _clients) client.Forget(state.Mountpoint);
                Release(state.Mountpoint, holder.Key);
                _ = AnyAgent()!.HandleAsync(new MountCommand.Unmount($"leave{++_answered}", holder.Consumer, state.Stream, holder.Key));
            }
        }
        if (!Rest()) return;
        CheckAtRest();
        if (Ledger.States.FirstOrDefault(state => state.Phase != Phase.Absent) is { } left) Fail($"{left.Mountpoint} is {left.Phase} although everybody left");
    }

    /// <returns>Whether it has come to rest in time.</returns>
    private bool Rest()
    {
        var deadline = Scheduler.Now + RestMax;
        var nextLook = Scheduler.Now + RestInterval;
        string? unrest = null;
        while (Scheduler.Now < deadline)
        {
            if (!Go()) return false;
            if (Scheduler.Now < nextLook) continue;
            nextLook = Scheduler.Now + RestInterval;
            StrangersLeave();
            HostUpAgain();
            ResumeRepairs();
            if ((unrest = Unrest()) is null && Scheduler.Now >= _restNotBefore) break;
        }
        if (unrest is not null) Fail($"no rest after {RestMax.TotalMinutes} quiet minutes: {unrest}");
        return Violation is null;
    }

    private void StrangersLeave()
    {
        if (IsTraced) Trace($"mounts: {string.Join("; ", Machines[0].Table.Select(mount => $"{mount.Id} {mount.Path} on {mount.Below?.Id} {(mount.IsForeign ? "foreign" : "ours")}"))}");
        foreach (var stranger in Machines[0].Table.Where(mount => mount.IsForeign).Reverse().ToArray())
        {
            if (Ledger.StateOf(stranger.Path).Kernel?.MountId != stranger.Id) Nemesis.Leave(Machines[0], stranger);
        }
    }

    private void ResumeRepairs()
    {
        foreach (var state in Ledger.States.Where(state => state.RepairPaused).ToList()) AnyAgent()?.Pause(state.Mountpoint, false, $"resume{Scheduler.Steps}");
    }

    private void HostUpAgain()
    {
        // An agent that was superseded says so, and waits for somebody to start it again.
        if (Machines[0].Agent is { Node.Journal.IsFenced: true } superseded) superseded.Life.Kill();
        if (Ledger.HostState.IsUp || AnyAgent() is not { } agent) return;
        agent.Handle(new HostCommand($"up{Scheduler.Steps}", "operator", Host, Up: true, null));
    }
}
