namespace MountLedger;

/// <summary>
/// Who serves a host: <paramref name="AgentId"/> is unique to one life of an agent, <paramref name="Epoch"/> fences it
/// against its predecessors. <see cref="Actor"/> is the actor of what it does of its own accord.
/// </summary>
public sealed record AgentIdentity(string Host, string AgentId, long Epoch)
{
    /// <summary>The actor of repairs, retries and recovery: nobody asked for those.</summary>
    public const string Actor = "mountledgerd";

    public AppendOrigin Own(string? causationId = null) => new(Actor, AgentId, causationId, Epoch, AgentId, LocalAgent: true);

    /// <summary>On behalf of a caller.</summary>
    public AppendOrigin For(string actor, string correlationId, string? causationId = null) =>
        new(actor, correlationId, causationId, Epoch, AgentId, LocalAgent: true);
}
