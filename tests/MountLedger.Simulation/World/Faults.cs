namespace MountLedger.Simulation;

/// <summary>What goes wrong in a run, and how often; a seed has some of it, so that each is met with few others too.</summary>
internal sealed record Faults
{
    public static readonly Faults None = new();

    public int SlowLedgerPercent { get; init; }
    public int LostCallPercent { get; init; }
    public int LostAnswerPercent { get; init; }

    /// <summary>An append that its caller has given up, and that commits all the same, before or after the caller's next read.</summary>
    public int LateCommitPercent { get; init; }

    public int LostNotifyPercent { get; init; }

    /// <summary>Changes of the mount table that the kernel does not tell of.</summary>
    public int LostTablePercent { get; init; }
    public int SlowKernelPercent { get; init; }
    public int HangPercent { get; init; }
    public int PrepareFailsPercent { get; init; }
    public int AttachFailsPercent { get; init; }

    /// <summary>What strikes between two steps.</summary>
    public IReadOnlyList<Strike> Strikes { get; init; } = [];

    /// <summary>How many strikes at most, and how many steps lie between two on average.</summary>
    public int StrikesMax { get; init; }

    public int StepsBetween { get; init; } = 100;

    public static Faults Roll(Dice dice, bool hasUniqueIds)
    {
        int Some(int most) => dice.Percent(35) ? dice.Between(1, most) : 0;
        var strikes = Enum.GetValues<Strike>()
            .Where(strike => hasUniqueIds || strike is not (Strike.Vanish or Strike.ForeignMount))
            .Where(_ => dice.Percent(40)).ToList();
        return new Faults
        {
            SlowLedgerPercent = Some(30),
            LostCallPercent = Some(15),
            LostAnswerPercent = Some(15),
            LateCommitPercent = Some(15),
            LostNotifyPercent = Some(100),
            LostTablePercent = Some(60),
            SlowKernelPercent = Some(40),
            HangPercent = dice.Percent(20) ? dice.Between(1, 10) : 0,
            PrepareFailsPercent = Some(30),
            AttachFailsPercent = Some(30),
            Strikes = strikes,
            StrikesMax = strikes.Count == 0 ? 0 : dice.Between(1, 10),
            StepsBetween = dice.Between(10, 150),
        };
    }
}

/// <summary>What can happen between any two steps of a run.</summary>
internal enum Strike
{
    KillAgent, StopAgent, PauseAgent, KillWorker, Reboot, LedgerAway, LedgerReadOnly, ClockJump, Pin, Vanish, ForeignMount, HostDown, PauseRepair, SyncConsumers,
}
