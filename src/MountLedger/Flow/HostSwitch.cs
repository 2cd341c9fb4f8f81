namespace MountLedger;

/// <summary>The newest known state of the host: up, or taken down by an operator (rule 12).</summary>
public sealed class HostSwitch(HostState initial)
{
    private volatile HostState _state = initial;

    public HostState State => _state;

    public bool IsUp => _state.IsUp;

    /// <summary>Takes in a state unless a newer one is known.</summary>
    public void Publish(HostState state)
    {
        if (state.Version >= _state.Version) _state = state;
    }
}
