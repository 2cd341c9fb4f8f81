namespace MountLedger;

/// <summary>What a command came to, by value.</summary>
public abstract record CommandResult
{
    private CommandResult() { }

    /// <summary>Settled, as it was asked.</summary>
    public sealed record Done(Outcome Outcome, MountState State) : CommandResult;

    /// <summary>Recorded, but not settled within the caller's wait.</summary>
    public sealed record Pending(MountState State) : CommandResult;

    /// <summary>Refused by the rules; nothing was recorded.</summary>
    public sealed record Rejected(Rejection Rejection, MountState State) : CommandResult;

    /// <summary>The kernel or a helper failed; recorded.</summary>
    public sealed record Failed(OperationError Error, MountState State) : CommandResult;

    /// <summary>The idempotency key was used for another request.</summary>
    public sealed record KeyReused(string Key) : CommandResult;

    /// <summary>Bad input; nothing was recorded.</summary>
    public sealed record Invalid(IReadOnlyList<InputError> Errors) : CommandResult;

    /// <summary>
    /// The agent or its ledger is not available. When it went away in the middle, it is unknown whether anything was
    /// recorded: give the same command again, with the same idempotency key if it had one.
    /// </summary>
    public sealed record Unavailable(string Reason) : CommandResult;

    /// <summary>The answer that was given to the same request before.</summary>
    public sealed record Replayed(int Status, string Answer) : CommandResult;
}

/// <summary>The word that a settled command is answered with.</summary>
public enum Outcome { Mounted, Attached, Unmounted, Detached, Remounted, Noop, Pending }
