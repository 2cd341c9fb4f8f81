namespace MountLedger;

/// <summary>
/// The way of every handler to the node, which is there once the agent has started and gone when it stops.
/// <paramref name="newCommandId"/> makes the id that becomes the events' correlation id.
/// </summary>
public sealed class NodeAccess(Func<string> newCommandId) : IDisposable
{
    private readonly CancellationTokenSource _waits = new();
    private volatile HostNode? _node;
    private volatile string _notServing = "the agent is starting";

    /// <summary>Null while no commands are taken; <see cref="NotServing"/> then says why.</summary>
    public HostNode? Node => _node;

    public string NotServing => _notServing;

    public string NewCommandId() => newCommandId();

    /// <summary>From now on commands are taken.</summary>
    public void Open(HostNode node) => _node = node;

    /// <summary>From now on commands are refused, for this reason.</summary>
    public void Close(string reason)
    {
        _notServing = reason;
        _node = null;
    }

    /// <summary>
    /// After this time no caller waits any longer for an outcome: what is recorded stays recorded, and is answered as pending.
    /// </summary>
    public void EndWaitsAfter(TimeSpan delay) => _waits.CancelAfter(delay);

    public void Dispose() => _waits.Dispose();

    /// <summary>Whether the ledger answers.</summary>
    public LedgerPresence Ledger { get; } = new();

    /// <summary>
    /// Runs a command; an absent node or ledger is a value, at once also when the ledger goes away meanwhile. The token that the command gets ends its
    /// waiting, nothing else.
    /// </summary>
    public async Task<CommandResult> RunAsync(
        Func<HostNode, string, CancellationToken, Task<CommandResult>> command, CancellationToken cancellationToken)
    {
        var either = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, _waits.Token);
        return await RunAsync<CommandResult>(
            async node =>
            {
                using (either) return await command(node, newCommandId(), either.Token);
            },
            static why => new CommandResult.Unavailable(why));
    }

    /// <summary>The same for any kind of result.</summary>
    public async Task<T> RunAsync<T>(Func<HostNode, Task<T>> command, Func<string, T> unavailable)
    {
        if (_node is not { } node) return unavailable(_notServing);
        try
        {
            return await Ledger.RecordAsync(() => command(node));
        }
        catch (LedgerUnavailableException e)
        {
            return unavailable(e.Message);
        }
    }
}
