using Npgsql;

namespace MountLedger.Postgres;

/// <summary>What a rebuild went through.</summary>
public sealed record RebuildResult(int Hosts, long Streams, long Events);

/// <summary>
/// Makes the rows of <c>mountpoint</c>, <c>attachment</c> and of a host's own stream anew from the events. Appends to a host wait while it is
/// being rebuilt (its advisory lock is held exclusively); readers see the old rows until it is done. Leases and requests are no projections and stay. Clean
/// slates are forgotten: the host's agent finds them again.
/// </summary>
public sealed class ProjectionRebuild(LedgerDatabase database)
{
    private const int FetchRows = 2_000;
    private const int WriteStreams = 200;
    private const int HostMaxSeconds = 3_600;

    /// <summary>Rebuilds one host, or with null all of them, each in a transaction of its own.</summary>
    /// <exception cref="LedgerUnavailableException">The host that was being rebuilt has its old rows; run it again.</exception>
    public async Task<RebuildResult> RunAsync(string? host, CancellationToken cancellationToken)
    {
        using var shield = new CancellationShield(cancellationToken);
        cancellationToken = shield.Token;
        try
        {
            await using var connection = await database.OpenDedicatedAsync(HostMaxSeconds, cancellationToken);
            var hosts = host is null ? await ReadHostsAsync(connection, cancellationToken) : [host];
            var total = new RebuildResult(0, 0, 0);
            foreach (var one in hosts)
            {
                var (streams, events) = await RebuildHostAsync(connection, one, cancellationToken);
                total = new RebuildResult(total.Hosts + 1, total.Streams + streams, total.Events + events);
            }
            return total;
        }
        catch (Exception failure) when (LedgerDatabase.IsUnavailable(failure, cancellationToken))
        {
            throw database.Unavailable("rebuild the projections", failure);
        }
    }

    private static async Task<List<string>> ReadHostsAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(
            """
            select tenant_id from mountledger.mt_streams union select host from mountledger.mountpoint
            union select host from mountledger.attachment union select host from mountledger.host order by 1
            """,
            connection);
        await using var row = await command.ExecuteReaderAsync(cancellationToken);
        var hosts = new List<string>();
        while (await row.ReadAsync(cancellationToken)) hosts.Add(row.GetString(0));
        return hosts;
    }

    private static async Task<(long Streams, long Events)> RebuildHostAsync(
        NpgsqlConnection connection, string host, CancellationToken cancellationToken)
    {
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        // Statements after the lock see all that its former holders committed.
        await ExecuteAsync(connection, "select pg_advisory_xact_lock(1296844100, hashtext($1))", host, cancellationToken);
        await ExecuteAsync(connection, "delete from mountledger.mountpoint where host = $1", host, cancellationToken);
        await ExecuteAsync(connection, "delete from mountledger.attachment where host = $1", host, cancellationToken);
        // Its agent looks for them again.
        await ExecuteAsync(connection, "delete from mountledger.clean_slate where host = $1", host, cancellationToken);
        await ExecuteAsync(connection, "update mountledger.clean_slate_progress set seq_id = 0 where host = $1", host, cancellationToken);
        await ExecuteAsync(
            connection,
            """
            update mountledger.host set version = 0, up = true, down_reason = null, down_by = null, down_since = null,
              agent_epoch = null, agent_id = null, agent_machine_id = null, agent_boot_id = null, agent_kernel = null,
              agent_version = null, agent_started_at = null, head_hash = null, updated_at = null
            where host = $1
            """,
            host, cancellationToken);
        await ExecuteAsync(
            connection,
            $"""
            declare rebuild_events no scroll cursor for
            select {LedgerRows.EventColumns} from mountledger.mt_events e where e.tenant_id = $1 order by e.stream_id, e.version
            """,
            host, cancellationToken);

        var folding = new Folding(connection);
        while (await FetchAsync(connection, cancellationToken) is { Count: > 0 } portion)
            foreach (var recorded in portion) await folding.AddAsync(recorded, cancellationToken);
        await folding.FinishAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return (folding.Streams, folding.Events);
    }

    private static async Task<List<RecordedEvent>> FetchAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand($"fetch {FetchRows} from rebuild_events", connection);
        await using var row = await command.ExecuteReaderAsync(cancellationToken);
        var events = new List<RecordedEvent>(FetchRows);
        while (await row.ReadAsync(cancellationToken)) events.Add(LedgerRows.ReadEvent(row));
        return events;
    }

    private static async Task ExecuteAsync(NpgsqlConnection connection, string sql, string host, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(sql, connection) { Parameters = { LedgerRows.Text(host) } };
        await command.ExecuteNonQueryAsync(cancellationToken);
    }

    /// <summary>Folds one stream after the other, and writes the finished ones in portions.</summary>
    private sealed class Folding(NpgsqlConnection connection)
    {
        private readonly List<NpgsqlBatchCommand> finished = [];
        private MountState? mountpoint;
        private HostState? host;
        private string headHash = "";

        public long Streams { get; private set; }

        public long Events { get; private set; }

        public async Task AddAsync(RecordedEvent recorded, CancellationToken cancellationToken)
        {
            var stream = recorded.Stream;
            if (mountpoint?.Stream != stream && (host is null || stream != new StreamKey(host.Host, HostEvent.StreamId)))
            {
                CloseStream();
                if (finished.Count >= WriteStreams) await WriteAsync(cancellationToken);
                Streams++;
                if (stream.Id == HostEvent.StreamId) host = HostState.Initial(stream.Host);
                else mountpoint = MountState.Initial(stream);
            }
            Events++;
            headHash = recorded.Hash;
            if (host is not null)
            {
                host = recorded.Event is HostEvent change
                    ? host.Evolve(change, recorded.Version, recorded.At, recorded.Actor)
                    : host with { Version = recorded.Version, UpdatedAt = recorded.At };
            }
            else
            {
                mountpoint = mountpoint!.Evolve(recorded);
            }
        }

        public async Task FinishAsync(CancellationToken cancellationToken)
        {
            CloseStream();
            await WriteAsync(cancellationToken);
        }

        private void CloseStream()
        {
            if (mountpoint is { } state)
            {
                finished.Add(Put(
                    "select mountledger.ledger_put_mountpoints($1, array[$2], array[$3], array[$4], array[$5], array[$6])", LedgerRows.Text(state.Stream.Host),
                    LedgerRows.Text(state.Stream.Id), LedgerRows.Number(state.Version), LedgerRows.Time(state.UpdatedAt),
                    LedgerRows.Text(headHash), LedgerRows.Document(LedgerDocuments.EncodeMountpoint(state))));
                if (!state.Attachments.IsEmpty)
                {
                    finished.Add(Put(
                        "select mountledger.ledger_put_attachments($1, array[$2], array[$3], array[$4])", LedgerRows.Text(state.Stream.Host),
                        LedgerRows.Text(state.Stream.Id), LedgerRows.Time(state.UpdatedAt),
                        LedgerRows.Document(LedgerDocuments.EncodeAttachments(state))));
                }
            }
            if (host is { } hostState)
            {
                finished.Add(Put(
                    "select mountledger.ledger_put_host($1, $2, $3, $4, $5)", LedgerRows.Text(hostState.Host),
                    LedgerRows.Number(hostState.Version), LedgerRows.Time(hostState.UpdatedAt), LedgerRows.Text(headHash),
                    LedgerRows.Document(LedgerDocuments.EncodeHost(hostState))));
            }
            mountpoint = null;
            host = null;
        }

        private async Task WriteAsync(CancellationToken cancellationToken)
        {
            if (finished.Count == 0) return;
            await using var batch = new NpgsqlBatch(connection);
            foreach (var command in finished) batch.BatchCommands.Add(command);
            await batch.ExecuteNonQueryAsync(cancellationToken);
            finished.Clear();
        }

        private static NpgsqlBatchCommand Put(string sql, params ReadOnlySpan<NpgsqlParameter> parameters)
        {
            var command = new NpgsqlBatchCommand(sql);
            foreach (var parameter in parameters) command.Parameters.Add(parameter);
            return command;
        }
    }
}
