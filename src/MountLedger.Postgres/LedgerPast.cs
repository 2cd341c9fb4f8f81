using Npgsql;
using NpgsqlTypes;

namespace MountLedger.Postgres;

/// <summary>Questions whether the ledger still holds what was once seen in it: after a restore from a backup it does not.</summary>
public sealed class LedgerPast(LedgerDatabase database)
{
    private const int HeadsAtOnceMax = 1_000;

    /// <summary>The fencing number that the host's lease has reached; 0 when the host is unknown.</summary>
    public ValueTask<long> ReadEpochAsync(string host, CancellationToken cancellationToken) => database.RunAsync(
        $"read the epoch of {host}", repeatable: true,
        async (connection, token) =>
        {
            await using var command = new NpgsqlCommand("select epoch from mountledger.host where host = $1", connection)
            {
                Parameters = { LedgerRows.Text(host) },
            };
            return await command.ExecuteScalarAsync(token) is long epoch ? epoch : 0;
        },
        cancellationToken);

    /// <summary>Whether the host's event with this number is there and has this hash.</summary>
    public ValueTask<bool> HasEventAsync(string host, long seq, string hash, CancellationToken cancellationToken) => database.RunAsync(
        $"look for event {seq} of {host}", repeatable: true,
        async (connection, token) =>
        {
            await using var command = new NpgsqlCommand(
                "select exists (select from mountledger.mt_events where seq_id = $1 and tenant_id = $2 and headers ->> 'hash' = $3)", connection)
            {
                Parameters = { LedgerRows.Number(seq), LedgerRows.Text(host), LedgerRows.Text(hash) },
            };
            return (bool)(await command.ExecuteScalarAsync(token))!;
        },
        cancellationToken);

    /// <summary>Which of these heads the ledger does not hold: there is no event of that version, or it has another hash (null: any).</summary>
    public async Task<IReadOnlyCollection<string>> LostAsync(
        string host, IReadOnlyCollection<(string Mountpoint, long Version, string? Hash)> heads, CancellationToken cancellationToken)
    {
        var lost = new List<string>();
        foreach (var some in heads.Chunk(HeadsAtOnceMax))
        {
            lost.AddRange(await database.RunAsync(
                $"compare heads of {host}", repeatable: true,
                async (connection, token) =>
                {
                    await using var command = new NpgsqlCommand(
                        """
                        select h.stream from unnest($2, $3, $4) as h (stream, version, hash)
                        where not exists (
                          select from mountledger.mt_events e
                          where e.tenant_id = $1 and e.stream_id = h.stream and e.version = h.version
                            and (h.hash is null or e.headers ->> 'hash' = h.hash))
                        """,
                        connection)
                    {
                        Parameters =
                        {
                            LedgerRows.Text(host),
                            new() { Value = some.Select(head => head.Mountpoint).ToArray(), NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Text },
                            new() { Value = some.Select(head => head.Version).ToArray(), NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Bigint },
                            new() { Value = some.Select(head => head.Hash).ToArray(), NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Text },
                        },
                    };
                    await using var row = await command.ExecuteReaderAsync(token);
                    var missing = new List<string>();
                    while (await row.ReadAsync(token)) missing.Add(row.GetString(0));
                    return missing;
                },
                cancellationToken));
        }
        return lost;
    }
}
