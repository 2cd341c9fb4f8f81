using MountLedger.Postgres;

namespace MountLedger.Agent;

/// <summary>
/// The present of the agent's own host: from the ledger, and from memory when that is away. <see cref="AsOf"/> then says until when the two were known to
/// agree; null when the ledger was asked.
/// </summary>
public sealed record Present<T>(T Value, DateTimeOffset? AsOf);

/// <summary>Queries about the present, answered whether or not the ledger is there.</summary>
public sealed class PresentQueries(NodeAccess access, LedgerAccess ledger)
{
    /// <exception cref="LedgerUnavailableException">The ledger is away, and this is not about the agent's own host, or not remembered.</exception>
    public Task<Present<Page<MountState>>> ListAsync(MountpointFilter filter, CancellationToken cancellationToken) => AskAsync(
        () => ledger.Queries.ListMountpointsAsync(filter, cancellationToken),
        // Of what is absent only the latest is remembered.
        node => filter.Host == node.Agent.Host && filter.Phase != Phase.Absent ? LedgerQueries.PageOf(node.Live.Present(), filter) : null);

    /// <inheritdoc cref="ListAsync"/>
    public Task<Present<MountState>> StatusAsync(StreamKey stream, CancellationToken cancellationToken) => AskAsync(
        async () => await ledger.Store.LoadAsync(stream, cancellationToken),
        node => stream.Host != node.Agent.Host ? null : node.Live.PresentAt(stream.Id) ?? (node.Live.TryGet(stream.Id, out var absent) ? absent : null));

    /// <summary>All hosts; from memory the own one alone.</summary>
    /// <exception cref="LedgerUnavailableException">The ledger is away, and the agent has not got so far yet.</exception>
    public Task<Present<IReadOnlyList<HostSummary>>> HostsAsync(CancellationToken cancellationToken) => AskAsync<IReadOnlyList<HostSummary>>(
        () => ledger.Queries.ListHostsAsync(cancellationToken),
        node =>
        {
            var mounted = node.Live.Present().Where(state => state.Phase != Phase.Absent).ToList();
            return [new HostSummary(node.Host.State, Lease: null, mounted.Count, mounted.Sum(state => state.Attachments.Count))];
        });

    private async Task<Present<T>> AskAsync<T>(Func<Task<T>> ask, Func<HostNode, T?> remember) where T : class
    {
        try
        {
            return new Present<T>(await access.Ledger.AskAsync(ask), null);
        }
        catch (LedgerUnavailableException) when (access.Node is { } node && access.Ledger.AnsweredAt is { } asOf && remember(node) is { } known)
        {
            return new Present<T>(known, asOf);
        }
    }
}
