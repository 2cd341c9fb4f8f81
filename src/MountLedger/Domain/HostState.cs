namespace MountLedger;

/// <summary>The folded state of a host's own stream.</summary>
public sealed record HostState
{
    public required string Host { get; init; }

    public long Version { get; init; }

    /// <summary>An operator's choice, which survives restarts (rule 12).</summary>
    public bool IsUp { get; init; } = true;

    public string? DownReason { get; init; }

    public string? DownBy { get; init; }

    public DateTimeOffset? DownSince { get; init; }

    /// <summary>The newest agent that started here; null before the first.</summary>
    public HostEvent.AgentStarted? Agent { get; init; }

    public DateTimeOffset? AgentStartedAt { get; init; }

    public DateTimeOffset UpdatedAt { get; init; }

    public static HostState Initial(string host) => new() { Host = host };

    public HostState Evolve(HostEvent change, long version, DateTimeOffset at, string actor)
    {
        var next = change switch
        {
            HostEvent.AgentStarted started => this with { Agent = started, AgentStartedAt = at },
            HostEvent.HostUp => this with { IsUp = true, DownReason = null, DownBy = null, DownSince = null },
            HostEvent.HostDown down => this with { IsUp = false, DownReason = down.Reason, DownBy = actor, DownSince = at },
            _ => this,
        };
        return next with { Version = version, UpdatedAt = at };
    }
}
