using Npgsql;

namespace MountLedger.Postgres;

/// <summary>What came of asking for a host's lease.</summary>
public abstract record LeaseResult
{
    private LeaseResult() { }

    /// <summary>The lease is ours until <paramref name="ExpiresAt"/> (the database's time), under this fencing number.</summary>
    public sealed record Taken(long Epoch, DateTimeOffset ExpiresAt) : LeaseResult;

    /// <summary>An agent on another machine, or in another mount namespace of this one, holds it, and its time has not run out.</summary>
    public sealed record HeldBy(string Agent, string MachineId, string BootId, long Epoch, DateTimeOffset ExpiresAt) : LeaseResult;
}

/// <summary>
/// The lease of a host: who serves it, under which epoch. All times are the database's. The host-local lock decides between
/// agents on one machine; the lease decides between machines, and its epoch fences off what an earlier agent still sends.
/// </summary>
public sealed class HostLease(LedgerDatabase database)
{
    /// <summary>
    /// Takes the lease with epoch = max(the ledger's, <paramref name="localEpoch"/>) + 1. <paramref name="bootId"/> is the boot, or
    /// <c>boot/namespace</c>. The same machine takes over at once in the same boot and mount namespace, as it has the host-local lock, and after a
    /// reboot; another mount namespace or machine only when the lease has expired or was released.
    /// </summary>
    /// <exception cref="LedgerUnavailableException">It is then unknown whether the lease was taken: take it again.</exception>
    public ValueTask<LeaseResult> TakeAsync(
        string host, string agentId, string machineId, string bootId, long localEpoch, TimeSpan ttl,
        CancellationToken cancellationToken) => database.RunAsync<LeaseResult>(
        $"take the lease of {host}", repeatable: true, // a second take-over by the same agent only costs an epoch
        async (connection, token) =>
        {
            await using var command = new NpgsqlCommand(
                """
                select taken, epoch, agent, machine_id, boot_id, expires_at
                from mountledger.ledger_take_lease($1, $2, $3, $4, $5, $6)
                """,
                connection)
            {
                Parameters =
                {
                    LedgerRows.Text(host), LedgerRows.Text(agentId), LedgerRows.Text(machineId), LedgerRows.Text(bootId),
                    LedgerRows.Number(localEpoch), new() { Value = ttl, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Interval },
                },
            };
            await using var row = await command.ExecuteReaderAsync(token);
            await row.ReadAsync(token);
            var epoch = row.GetInt64(1);
            var expiresAt = row.GetFieldValue<DateTimeOffset>(5);
            LeaseResult result = row.GetBoolean(0)
                ? new LeaseResult.Taken(epoch, expiresAt)
                : new LeaseResult.HeldBy(row.GetString(2), row.GetString(3), row.GetString(4), epoch, expiresAt);
            await row.ReadAsync(token);
            return result;
        },
        cancellationToken);

    /// <summary>Who holds the lease, or held it last; null before the first.</summary>
    public ValueTask<LeaseResult.HeldBy?> ReadAsync(string host, CancellationToken cancellationToken) => database.RunAsync(
        $"read the lease of {host}", repeatable: true,
        async (connection, token) =>
        {
            await using var command = new NpgsqlCommand(
                "select lease_agent, lease_machine_id, lease_boot_id, epoch, lease_expires_at from mountledger.host where host = $1 and lease_agent is not null",
                connection)
            {
                Parameters = { LedgerRows.Text(host) },
            };
            await using var row = await command.ExecuteReaderAsync(token);
            return await row.ReadAsync(token)
                ? new LeaseResult.HeldBy(row.GetString(0), row.GetString(1), row.GetString(2), row.GetInt64(3), row.GetFieldValue<DateTimeOffset>(4))
                : null;
        },
        cancellationToken);

    /// <summary>Prolongs the lease to <paramref name="ttl"/> from now, also when it had run out and nobody took it.</summary>
    /// <returns>False when it is lost: another epoch serves the host, and this agent must stop acting.</returns>
    public ValueTask<bool> RenewAsync(string host, long epoch, string agentId, TimeSpan ttl, CancellationToken cancellationToken) =>
        ChangeAsync(
            $"renew the lease of {host}",
            """
            update mountledger.host set lease_expires_at = clock_timestamp() + $4
            where host = $1 and epoch = $2 and lease_agent = $3
            """,
            host, epoch, agentId, ttl, cancellationToken);

    /// <summary>Lets the lease run out now (a clean stop), so that another machine need not wait for it.</summary>
    /// <returns>False when it was lost already.</returns>
    public ValueTask<bool> ReleaseAsync(string host, long epoch, string agentId, CancellationToken cancellationToken) =>
        ChangeAsync(
            $"release the lease of {host}",
            """
            update mountledger.host set lease_expires_at = clock_timestamp() - $4
            where host = $1 and epoch = $2 and lease_agent = $3
            """,
            host, epoch, agentId, TimeSpan.Zero, cancellationToken);

    private ValueTask<bool> ChangeAsync(
        string what, string sql, string host, long epoch, string agentId, TimeSpan span, CancellationToken cancellationToken) =>
        database.RunAsync(
            what, repeatable: true,
            async (connection, token) =>
            {
                await using var command = new NpgsqlCommand(sql, connection)
                {
                    Parameters =
                    {
                        LedgerRows.Text(host), LedgerRows.Number(epoch), LedgerRows.Text(agentId),
                        new() { Value = span, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Interval },
                    },
                };
                return await command.ExecuteNonQueryAsync(token) == 1;
            },
            cancellationToken);
}
