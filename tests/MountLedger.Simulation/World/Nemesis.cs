namespace MountLedger.Simulation;

/// <summary>Strikes between two steps, where the dice say so, and makes good again what would not end by itself.</summary>
internal sealed class Nemesis(World world)
{
    private int _strikes;

    public void Maybe()
    {
        var faults = world.Faults;
        if (_strikes >= faults.StrikesMax || world.Dice.Below(faults.StepsBetween) != 0) return;
        _strikes++;
        var strike = world.Dice.Pick(faults.Strikes);
        var machine = world.Dice.Pick(world.Machines);
        world.Trace($"!! {strike} ({machine.Name})");
        Act(strike, machine);
    }

    /// <summary>
    /// Stops an agent between the record of an operation's start and the operation, until another machine may have the host: seldom met by chance, and
    /// what the lease is looked at for.
    /// </summary>
    public void MaybeStop(string? name)
    {
        if (world.Machines.Count < 2 || _strikes >= world.Faults.StrikesMax || !world.Dice.Percent(5)) return;
        if (world.Machines.Select(machine => machine.Agent).FirstOrDefault(agent => agent?.Life.Name == name) is not { Life: var life }) return;
        _strikes++;
        world.Trace($"!! {name} is stopped in the middle of an operation");
        world.Scheduler.After(world.Outside, world.Dice.Micros(0, 900), life.Pause);
        world.Scheduler.After(world.Outside, world.Dice.Millis(16_000, 40_000), life.Resume);
    }

    private void Act(Strike strike, Machine machine)
    {
        var dice = world.Dice;
        var agent = machine.Agent;
        switch (strike)
        {
            case Strike.KillAgent:
                agent?.Life.Kill();
                break;
            case Strike.StopAgent when agent is { IsOpen: true }:
                agent.Stop();
                break;
            case Strike.PauseAgent when agent is { Life: { IsDead: false } life }:
                life.Pause();
                world.Scheduler.After(world.Outside, dice.Millis(10, 40_000), life.Resume);
                break;
            case Strike.KillWorker when machine.Workers.Count > 0:
                dice.Pick(machine.Workers).Kill();
                break;
            case Strike.Reboot:
                machine.Reboot();
                break;
            case Strike.LedgerAway:
                world.Ledger.IsAway = true;
                world.Scheduler.After(world.Outside, dice.Millis(1, 20_000), () => world.Ledger.IsAway = false);
                break;
            case Strike.LedgerReadOnly:
                world.Ledger.IsReadOnly = true;
                world.Scheduler.After(world.Outside, dice.Millis(1, 20_000), () => world.Ledger.IsReadOnly = false);
                break;
            case Strike.ClockJump:
                machine.ClockOffset += dice.Millis(-100_000, 100_000);
                break;
            case Strike.Pin when machine.Table.Count > 0:
                var pinned = dice.Pick(machine.Table);
                pinned.IsPinned = true;
                world.Scheduler.After(world.Outside, dice.Millis(1, 10_000), () => pinned.IsPinned = false);
                break;
            case Strike.Vanish when machine.Table.Count > 0:
                machine.TakeAway(dice.Pick(machine.Table));
                machine.WasDisturbed = machine.HasLostMounts = true;
                break;
            case Strike.ForeignMount:
                Stranger(machine, dice.Pick(world.Paths));
                break;
            case Strike.PauseRepair when agent is not null:
                var paused = dice.Pick(world.Paths);
                agent.Pause(paused, true, $"pause{_strikes}");
                world.Scheduler.After(world.Outside, dice.Millis(100, 60_000), () => machine.Agent?.Pause(paused, false, $"resume{_strikes}"));
                break;
            case Strike.SyncConsumers when agent is { IsOpen: true }:
                Sync(agent, dice.Pick(world.Clients));
                break;
            case Strike.HostDown:
                agent?.Handle(new HostCommand($"down{_strikes}", "operator", World.Host, Up: false, "work on it"));
                world.Scheduler.After(world.Outside, dice.Millis(100, 30_000), () => machine.Agent?.Handle(
                    new HostCommand($"up{_strikes}", "operator", World.Host, Up: true, null)));
                break;
        }
    }

    /// <summary>The orchestrator says that one of the consumers is dead: what it held until now is let go, and what it asks for from now on is another matter.</summary>
    private void Sync(SimAgent agent, SimClient dead)
    {
        var landed = world.Doubts.Begin(Doubts.Everywhere, dead.Name);
        foreach (var path in world.Paths)
        {
            world.Release(path, dead.Key);
            dead.Forget(path);
        }
        // The list may be old: what the consumer took since then is not meant.
        var asOf = world.Dice.Percent(50) ? world.Ledger.Clock : world.Ledger.Clock - world.Dice.Millis(1, 60_000);
        world.SyncBegins(dead.Name, asOf);
        agent.Sync(world.Clients.Where(client => client != dead).Select(client => client.Name).ToHashSet(StringComparer.Ordinal), asOf, $"sync{_strikes}", landed);
    }

    /// <summary>Somebody mounts something by hand; if it is what is wanted there, it is as good as ours and may be adopted.</summary>
    private void Stranger(Machine machine, string path)
    {
        var spec = world.Dice.Percent(40) ? World.SpecOf(path, 0) : new MountSpec("stranger", "ext4", []);
        var mount = machine.Attach(world.NextMountId(), path, spec, ours: false);
        world.Scheduler.After(world.Outside, world.Dice.Millis(1, 40_000), () =>
        {
            // Taking away what an agent has adopted meanwhile would be a mount that vanishes.
            if (world.Ledger.StateOf(path).Kernel?.MountId != mount.Id) Leave(machine, mount);
        });
    }

    /// <summary>A stranger unmounts like everybody else: not while something is mounted on it.</summary>
    public static void Leave(Machine machine, SimMount mount)
    {
        if (!machine.Table.Exists(child => child.Below == mount) && machine.Table.Contains(mount)) machine.TakeAway(mount);
    }
}
