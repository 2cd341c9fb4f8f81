namespace MountLedger.Agent;

/// <summary>Every log message of the agent itself, in one place.</summary>
internal static partial class Log
{
    [LoggerMessage(1, LogLevel.Information, "agent {Agent} of host {Host} starts: version {Version}, roots {Roots}")]
    public static partial void Starting(this ILogger logger, string agent, string host, string version, string roots);

    [LoggerMessage(2, LogLevel.Information, "ledger: {Ledger}, epoch {Epoch}")]
    public static partial void LedgerReady(this ILogger logger, string ledger, long epoch);

    [LoggerMessage(3, LogLevel.Information, "open for commands on {Socket} after {ElapsedMs} ms")]
    public static partial void Open(this ILogger logger, string socket, long elapsedMs);

    [LoggerMessage(4, LogLevel.Critical, "the agent cannot start: {Reason}")]
    public static partial void CannotStart(this ILogger logger, string reason);

    [LoggerMessage(5, LogLevel.Warning, "the ledger is not available, trying again: {Reason}")]
    public static partial void LedgerAwaited(this ILogger logger, string reason);

    [LoggerMessage(6, LogLevel.Critical, "the lease of host {Host} was lost to another agent: this one stops acting on the kernel")]
    public static partial void LeaseLost(this ILogger logger, string host);

    [LoggerMessage(7, LogLevel.Information, "stopping: commands are refused, running operations finish, mounts stay in place")]
    public static partial void Stopping(this ILogger logger);

    [LoggerMessage(8, LogLevel.Warning, "keeping up failed: {Reason}")]
    public static partial void UpkeepFailed(this ILogger logger, string reason);

    [LoggerMessage(10, LogLevel.Error, "upkeep broke off by an error of the program and is begun again")]
    public static partial void UpkeepBroke(this ILogger logger, Exception exception);

    [LoggerMessage(11, LogLevel.Critical, "the launcher (pid {Pid}) is gone, and with it the capabilities: the agent ends; mounts stay in place, and the next start settles what is open")]
    public static partial void LauncherGone(this ILogger logger, int pid);

    [LoggerMessage(9, LogLevel.Error, "a request failed by an error of the program: {Method} {Path}")]
    public static partial void RequestFailed(this ILogger logger, string method, string path, Exception exception);

    [LoggerMessage(11, LogLevel.Error, "what the agent has seen of its ledger cannot be kept in {File}, it is tried again: {Reason}")]
    public static partial void HeadsUnwritable(this ILogger logger, string file, string reason);

    [LoggerMessage(12, LogLevel.Information, "what the agent has seen of its ledger is kept in {File} again")]
    public static partial void HeadsWritableAgain(this ILogger logger, string file);

    [LoggerMessage(13, LogLevel.Warning, "{File} has {Lines} torn or damaged lines, which are left out")]
    public static partial void HeadsDamaged(this ILogger logger, string file, int lines);

    [LoggerMessage(14, LogLevel.Critical, "the ledger is older than what this agent has recorded ({Sign}): was it restored from a backup?")]
    public static partial void LedgerOlder(this ILogger logger, string sign);

    [LoggerMessage(15, LogLevel.Critical, "host {Host} is served by {Holder} now: this agent stops acting on the kernel, and ends its worker")]
    public static partial void Superseded(this ILogger logger, string host, string holder);
}
