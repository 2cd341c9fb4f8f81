namespace MountLedger;

/// <summary>
/// What the agent keeps outside of its ledger about mountpoints where the ledger turned out to be older than that: until an operator has
/// decided, and over restarts. Without one (a test, the simulation) the ledger is believed.
/// </summary>
public interface IKeptHeads
{
    /// <summary>
    /// The mountpoints where the ledger is behind and that are not decided, with what was recorded of them last: null when that was nothing. Those that
    /// are <em>marked</em> have their drift in the ledger.
    /// </summary>
    IReadOnlyCollection<(string Mountpoint, MountState? Kept, bool Marked)> Behind();

    /// <summary>The drift has been recorded.</summary>
    void Marked(string mountpoint);

    /// <summary>The operator's decision has been recorded: what was kept is not needed any more.</summary>
    void Decided(string mountpoint);
}
