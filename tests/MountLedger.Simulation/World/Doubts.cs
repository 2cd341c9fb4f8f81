namespace MountLedger.Simulation;

/// <summary>
/// What may still happen to a consumer's attachments although nobody is at it any more: a request that was given up and may yet be committed,
/// a synchronisation by an operator. While it may, and for whoever asked something in that time, an answer says nothing of the time after it.
/// </summary>
internal sealed class Doubts(Scheduler scheduler)
{
    private readonly Dictionary<(string Mountpoint, string Consumer), (int Open, TimeSpan LastEnd)> _doubts = [];

    public const string Everywhere = "*";

    public int Open => _doubts.Values.Sum(doubt => doubt.Open);

    /// <returns>To be called when it has happened.</returns>
    public Action Begin(string mountpoint, string consumer)
    {
        var key = (mountpoint, consumer);
        _doubts[key] = (_doubts.GetValueOrDefault(key).Open + 1, TimeSpan.Zero);
        return () => _doubts[key] = (_doubts[key].Open - 1, scheduler.Now);
    }

    /// <summary>Whether anything of the kind was possible since a time.</summary>
    public bool AnySince(TimeSpan since, string mountpoint, string consumer) => Is((mountpoint, consumer), since) || Is((Everywhere, consumer), since);

    private bool Is((string, string) key, TimeSpan since) => _doubts.TryGetValue(key, out var doubt) && (doubt.Open > 0 || doubt.LastEnd >= since);
}
