namespace MountLedger.Simulation;

/// <summary>Every choice of a simulation comes from here, so that a seed is a whole run (SplitMix64: the same on every machine).</summary>
internal sealed class Dice(ulong seed)
{
    private ulong _state = seed * 0x9E3779B97F4A7C15 + 0x1234567;

    public ulong Next()
    {
        _state += 0x9E3779B97F4A7C15;
        var z = _state;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
        return z ^ (z >> 31);
    }

    /// <summary>From 0 to <paramref name="bound"/> - 1.</summary>
    public int Below(int bound) => (int)(Next() % (ulong)bound);

    public int Between(int least, int most) => least + Below(most - least + 1);

    public bool Percent(int percent) => Below(100) < percent;

    public T Pick<T>(IReadOnlyList<T> items) => items[Below(items.Count)];

    public TimeSpan Micros(int least, int most) => TimeSpan.FromMicroseconds(Between(least, most));

    public TimeSpan Millis(int least, int most) => TimeSpan.FromMilliseconds(Between(least, most));

    /// <summary>Mostly some hundred microseconds, seldom much longer: how long things take.</summary>
    public TimeSpan Latency(int slowPercent) => Below(100) < slowPercent ? Millis(5, 3_000) : Micros(50, 900);
}
