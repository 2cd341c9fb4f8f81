namespace MountLedger.Storm;

/// <summary>Who is killed.</summary>
internal enum Victim { Agent, Worker, Postgres, AgentAndWorkers, Everything }

/// <summary>What has to be going on for a point to be reached at all.</summary>
internal enum Occasion
{
    /// <summary>The clients do it all the time.</summary>
    Always,

    /// <summary>An agent has to start.</summary>
    Start,

    /// <summary>An operation has to be left without an outcome.</summary>
    Settling,
}

/// <summary>One blow: at a point (when it is reached for the <paramref name="Count"/>-th time), or, without one, at any time.</summary>
internal sealed record Blow(string? Point, Occasion Occasion, int Count, Victim Victim);

/// <summary>The named points of the path, and the order in which a storm strikes at them.</summary>
internal static class KillPlan
{
    private static readonly Victim[] AtPoints = [Victim.Agent, Victim.Worker, Victim.Postgres];

    /// <summary>Every point that the sources name (a test compares), those of an append by what is appended.</summary>
    public static readonly IReadOnlyList<(string Point, Occasion Occasion)> Points =
    [
        .. Of(Occasion.Always,
            "request-new", "request-looked", "request-prepared", "request-decided", "request-recorded",
            "before-attach", "after-attach", "before-unmount", "after-unmount", "before-remount", "after-remount",
            "before-answer-kept", "after-answer-kept", "drift-looked",
            "worker-before-make", "worker-made", "worker-directories-made", "worker-attached", "worker-read-back",
            "worker-before-unmount", "worker-unmounted", "worker-directories-removed", "worker-filesystem-told", "worker-remounted",
            "worker-before-helper", "worker-helper-spawned", "worker-helper-done", "worker-helper-taken", "before-prepare", "after-prepare"),
        .. Appends(Occasion.Always, "MountStarted", "Mounted", "AttachmentAdded", "AttachmentRemoved", "UnmountStarted", "Unmounted",
            "RemountStarted", "Remounted", "DriftDetected"),
        .. Of(Occasion.Start,
            "start-locked", "start-ledger-open", "start-lease-taken", "start-epoch-kept", "start-recorded", "start-workers-killed",
            "start-worker-ready", "start-loaded", "start-listed", "start-compared", "start-acting", "start-before-open"),
        .. Of(Occasion.Settling, "settle-before-quiesce", "settle-after-quiesce", "settle-looked"),
        .. Appends(Occasion.Settling, "OperationUncertain", "OperationSettled"),
    ];

    /// <summary>Blows without end: two of three at a point, each pair of point and victim once before any comes again, the others at random.</summary>
    public static IEnumerable<Blow> Blows(Random random)
    {
        while (true)
        {
            var pairs = (from point in Points from victim in AtPoints select (point, victim)).ToArray();
            random.Shuffle(pairs);
            foreach (var ((point, occasion), victim) in pairs)
            {
                // What goes on all the time is struck early and late; a start passes each point once.
                yield return new Blow(point, occasion, occasion == Occasion.Always ? random.Next(1, 4) : 1, victim);
                if (random.Next(2) == 0) yield return new Blow(null, Occasion.Always, 1, (Victim)random.Next(Enum.GetValues<Victim>().Length));
            }
        }
    }

    private static IEnumerable<(string, Occasion)> Of(Occasion occasion, params string[] points) => points.Select(point => (point, occasion));

    private static IEnumerable<(string, Occasion)> Appends(Occasion occasion, params string[] events) =>
        events.SelectMany(change => Of(occasion, $"before-append-{change}", $"after-append-{change}"));
}
