using System.Collections.Concurrent;
using Npgsql;
using NpgsqlTypes;

namespace MountLedger.Postgres;

/// <summary>A server process: a pid alone may be given to another one. <paramref name="Start"/>: its time of start, as the server writes it.</summary>
internal sealed record ServerProcess(int Pid, string Start)
{
    /// <summary>The process at the other end of this connection.</summary>
    public static ServerProcess Of(NpgsqlConnection connection)
    {
        using var command = new NpgsqlCommand(
            "select pid, backend_start::text from pg_stat_activity where pid = pg_backend_pid()", connection);
        using var row = command.ExecuteReader();
        row.Read();
        return new ServerProcess(row.GetInt32(0), row.GetString(1));
    }
}

/// <summary>
/// When the connection is lost while an append is under way, it is not only unknown whether it was committed: it may still be. The request may lie in a buffer
/// of the network, or its process may wait for a lock or the disk. A reader that finds the stream unchanged would then answer something that is not so a
/// moment later. So whoever comes next, to read or to write, first ends the process that it was sent to: what is read after that is final.
/// </summary>
internal sealed class AppendDoubts
{
    private const int TerminateMaxMs = 400;
    private const int AttemptsMax = 2;

    // In one statement, so that nobody who got the same pid is meant; materialized, because the condition of a join may be asked last, and then everybody
    // would be ended. What cannot be ended in time is counted.
    private static readonly string Statement =
        $"""
        with doubtful as materialized (
          select a.pid from unnest($1, $2) as d (pid, started)
          join pg_stat_activity a on a.pid = d.pid and a.backend_start::text = d.started)
        select count(*) from doubtful where not pg_terminate_backend(pid, {TerminateMaxMs})
        """;

    private readonly ConcurrentDictionary<ServerProcess, bool> processes = new();

    public void Add(ServerProcess process) => processes.TryAdd(process, true);

    /// <summary>Returns when nothing of what is in doubt can be committed any more.</summary>
    /// <exception cref="NpgsqlException">The server would not end a process in time: it is tried again by who comes next.</exception>
    public async ValueTask SettleAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        if (processes.IsEmpty) return;
        ServerProcess[] doubtful = [.. processes.Keys];
        await using var command = Command(connection, doubtful);
        for (var attempt = 1; (long)(await command.ExecuteScalarAsync(cancellationToken))! > 0; attempt++) GiveUpAfter(attempt);
        Settled(doubtful);
    }

    /// <inheritdoc cref="SettleAsync"/>
    public void Settle(NpgsqlConnection connection)
    {
        if (processes.IsEmpty) return;
        ServerProcess[] doubtful = [.. processes.Keys];
        using var command = Command(connection, doubtful);
        for (var attempt = 1; (long)command.ExecuteScalar()! > 0; attempt++) GiveUpAfter(attempt);
        Settled(doubtful);
    }

    private static NpgsqlCommand Command(NpgsqlConnection connection, ServerProcess[] doubtful) => new(Statement, connection)
    {
        Parameters =
        {
            new() { Value = doubtful.Select(process => process.Pid).ToArray(), NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Integer },
            new() { Value = doubtful.Select(process => process.Start).ToArray(), NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Text },
        },
    };

    private static void GiveUpAfter(int attempt)
    {
        if (attempt == AttemptsMax) throw new NpgsqlException("an append whose answer was lost is still under way, and may be committed yet");
    }

    private void Settled(ServerProcess[] doubtful)
    {
        foreach (var process in doubtful) processes.TryRemove(process, out _);
    }
}
