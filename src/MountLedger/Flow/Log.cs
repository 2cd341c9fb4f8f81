using Microsoft.Extensions.Logging;

namespace MountLedger;

/// <summary>Every log message of the core, in one place: what an operator may find in the agent's log.</summary>
internal static partial class Log
{
    [LoggerMessage(100, LogLevel.Warning, "mount {Mountpoint} ({Spec}) failed: {Errno}: {Message}")]
    public static partial void MountFailed(this ILogger logger, string mountpoint, MountSpec spec, string errno, string message);

    [LoggerMessage(101, LogLevel.Warning, "unmount {Mountpoint} failed: {Errno}: {Message}")]
    public static partial void UnmountFailed(this ILogger logger, string mountpoint, string errno, string message);

    [LoggerMessage(102, LogLevel.Warning, "{Operation} of {Mountpoint} has an unknown outcome: {Reason}")]
    public static partial void OutcomeUnknown(this ILogger logger, OperationKind operation, string mountpoint, string reason);

    [LoggerMessage(103, LogLevel.Information, "{Operation} of {Mountpoint} settled by looking: {Result}")]
    public static partial void Settled(this ILogger logger, OperationKind operation, string mountpoint, string result);

    [LoggerMessage(104, LogLevel.Warning, "the outcome of an operation on {Mountpoint} cannot be recorded yet, trying again: {Reason}")]
    public static partial void OutcomeKept(this ILogger logger, string mountpoint, string reason);

    [LoggerMessage(105, LogLevel.Critical, "host {Host} is served by epoch {Current}, this agent has {Mine}: it stops acting on the kernel")]
    public static partial void Fenced(this ILogger logger, string host, long current, long mine);

    [LoggerMessage(113, LogLevel.Critical, "the lease of host {Host} is another agent's, this one has epoch {Mine}: it stops acting on the kernel")]
    public static partial void LeaseGone(this ILogger logger, string host, long mine);

    [LoggerMessage(106, LogLevel.Error, "work on {Mountpoint} stopped with an error of the program; it is taken up again in a second")]
    public static partial void DriveFailed(this ILogger logger, string mountpoint, Exception exception);

    [LoggerMessage(107, LogLevel.Warning, "the ledger cannot be read for work on {Mountpoint}: {Reason}")]
    public static partial void WorkUnreadable(this ILogger logger, string mountpoint, string reason);

    [LoggerMessage(108, LogLevel.Warning, "the work list cannot be read: {Reason}")]
    public static partial void WorkListUnreadable(this ILogger logger, string reason);

    [LoggerMessage(110, LogLevel.Warning, "drift {Kind} at {Mountpoint}: {Detail}")]
    public static partial void Drift(this ILogger logger, DriftKind kind, string mountpoint, string? detail);

    [LoggerMessage(111, LogLevel.Information,
        "loaded {Mountpoints} mountpoints in {LoadMs} ms, compared them with {Mounts} mounts in {CompareMs} ms: {Missing} missing, {Foreign} foreign, {Unsettled} to settle")]
    public static partial void Reconciled(
        this ILogger logger, int mountpoints, long loadMs, int mounts, long compareMs, int missing, int foreign, int unsettled);

    [LoggerMessage(116, LogLevel.Warning, "remount {Mountpoint} failed: {Errno}: {Message}")]
    public static partial void RemountFailed(this ILogger logger, string mountpoint, string errno, string message);

    [LoggerMessage(113, LogLevel.Information, "drift {Kind} at {Mountpoint} is over: {Detail}")]
    public static partial void DriftOver(this ILogger logger, DriftKind kind, string mountpoint, string? detail);

    [LoggerMessage(114, LogLevel.Warning, "the audit of the mount table failed, it is tried again later: {Reason}")]
    public static partial void AuditFailed(this ILogger logger, string reason);

    [LoggerMessage(115, LogLevel.Warning, "the kernel does not tell changes of the mount table: they are found by comparing it every {Seconds} s")]
    public static partial void NotWatching(this ILogger logger, double seconds);

    [LoggerMessage(112, LogLevel.Warning, "{Running} operations still run after the shutdown deadline; the next start settles them")]
    public static partial void LeftRunning(this ILogger logger, int running);

    [LoggerMessage(117, LogLevel.Critical,
        "the ledger of host {Host} is older than what this agent has recorded: {Mountpoints} mountpoints are left alone until an operator decides (mountledger reconcile --ledger-behind)")]
    public static partial void LedgerBehind(this ILogger logger, string host, int mountpoints);
}
