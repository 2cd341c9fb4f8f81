namespace MountLedger;

/// <summary>
/// The way of every handler to the node, which is there once the agent has started and gone when it stops.
/// <paramref name="newCommandId"/> makes the id that becomes the events' correlation id.
/// </summary>
public sealed class NodeAccess(Func<string> newCommandId)
{
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

    /// <summary>Runs a command; an absent node or ledger is a value.</summary>
    public async Task<CommandResult> RunAsync(Func<HostNode, string, Task<CommandResult>> command)
    {
        if (_node is not { } node) return new CommandResult.Unavailable(_notServing);
        try
        {
            return await command(node, newCommandId());
        }
        catch (LedgerUnavailableException e)
        {
            return new CommandResult.Unavailable(e.Message);
        }
    }
}
