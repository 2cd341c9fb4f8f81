using System.Diagnostics;

namespace MountLedger;

/// <summary>
/// A named place between two steps, at which a test (<c>tests/MountLedger.Storm</c>) can hold this process and kill it, its workers or its
/// database. Calls exist only where KILL_POINTS is defined (Debug builds, or <c>-p:KillPoints=true</c>): a release build has neither the
/// calls nor the names.
/// </summary>
public static class KillPoint
{
#if KILL_POINTS
    /// <summary>What a process does at each point, with the point's name; null: nothing. Called on the thread that gets there.</summary>
    public static Action<string>? OnReached { get; set; }
#endif

    /// <summary>This point is reached: what comes before it in the code has happened, what comes after it has not.</summary>
    [Conditional("KILL_POINTS")]
    public static void Reached(string point)
    {
#if KILL_POINTS
        OnReached?.Invoke(point);
#else
        _ = point;
#endif
    }
}
