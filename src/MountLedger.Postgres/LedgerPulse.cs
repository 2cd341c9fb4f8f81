using Npgsql;

namespace MountLedger.Postgres;

/// <summary>
/// Asks the server again and again, on a connection of its own, whether it answers and takes records; so that callers are told at once when it does not,
/// instead of each of them waiting for a timeout.
/// </summary>
public sealed class LedgerPulse(LedgerDatabase database, LedgerPresence presence, TimeProvider time)
{
    /// <summary>Between an answer and the next question.</summary>
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(200);

    /// <summary>A wait for an answer is counted in these: when this process itself gets no time, none of them passes.</summary>
    private static readonly TimeSpan Beat = TimeSpan.FromMilliseconds(50);

    /// <summary>So many beats without any answer, to this question or anybody's, and the server counts as away.</summary>
    private const int BeatsMax = 15;

    private const int CommandTimeoutSeconds = 2;

    /// <summary>For a connection of the pool that is free, when the server takes no further one.</summary>
    private const int PoolLooksMax = 3;

    /// <summary>More than a page of the table has room for beside another row, and it does not compress: a full disk shows.</summary>
    private const string TryToWrite =
        """
        begin;
        insert into mountledger.request (host, key, actor, body_hash, answer)
        select '', gen_random_uuid()::text, '', '', (select string_agg(gen_random_uuid()::text, '') from generate_series(1, 200) where g.n = g.n)
        from generate_series(1, 4) as g (n);
        rollback
        """;

    private Exception? told;

    /// <summary>Asks until it is cancelled.</summary>
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        using var shield = new CancellationShield(cancellationToken);
        NpgsqlConnection? connection = null;
        try
        {
            while (true)
            {
                var answers = database.Answers;
                var attempt = AskAsync(connection, shield.Token);
                for (var beat = 0; !attempt.IsCompleted && (beat < BeatsMax || database.Answers != answers); beat++)
                {
                    if (database.Answers != answers) (answers, beat) = (database.Answers, 0);
                    await Task.WhenAny(attempt, Task.Delay(Beat, time, cancellationToken));
                    cancellationToken.ThrowIfCancellationRequested();
                }
                if (!attempt.IsCompleted) presence.Gone($"{database.Description} is unavailable: it does not answer");
                var (next, failure) = await attempt;
                connection = next;
                if (failure is not null)
                {
                    database.Lost();
                    presence.Gone($"{database.Description} is unavailable: {failure.Message}");
                }
                await Task.Delay(Pause, time, cancellationToken);
            }
        }
        finally
        {
            if (connection is not null) await connection.DisposeAsync();
        }
    }

    /// <returns>The connection to ask on next, and why there was no answer.</returns>
    private async Task<(NpgsqlConnection? Connection, Exception? Failure)> AskAsync(NpgsqlConnection? connection, CancellationToken cancellationToken)
    {
        try
        {
            try
            {
                connection ??= await database.OpenDedicatedAsync(CommandTimeoutSeconds, cancellationToken);
            }
            catch (PostgresException full) when (full.SqlState == PostgresErrorCodes.TooManyConnections)
            {
                // A server that takes no further connection serves those that it has.
                var isServed = database.AppendFailure is null && await IsServedAsync(cancellationToken);
                presence.Answers(time.GetUtcNow(), isServed ? null : $"{database.Description} takes no records: {full.Message}");
                return (null, null);
            }
            await using var command = new NpgsqlCommand("select pg_is_in_recovery() or current_setting('transaction_read_only')::boolean", connection);
            var isReadOnly = (bool)(await command.ExecuteScalarAsync(cancellationToken))!;
            presence.Answers(time.GetUtcNow(), await UnwritableAsync(connection, isReadOnly, cancellationToken));
            return (connection, null);
        }
#pragma warning disable CA1031 // Whatever it is, it is told as the reason and asked again: without a pulse a ledger that is back would never be believed.
        catch (Exception failure) when (!cancellationToken.IsCancellationRequested)
#pragma warning restore CA1031
        {
            if (connection is not null) await connection.DisposeAsync();
            return (null, failure);
        }
    }

    /// <summary>Whether the pool still has a connection to work on. One that is busy comes back soon.</summary>
    private async Task<bool> IsServedAsync(CancellationToken cancellationToken)
    {
        for (var attempt = 1; ; attempt++)
        {
            try
            {
                return await database.RunAsync("look for a connection", repeatable: true, static async (connection, cancelled) =>
                {
                    await using var command = new NpgsqlCommand("select true", connection);
                    return (bool)(await command.ExecuteScalarAsync(cancelled))!;
                }, cancellationToken);
            }
            catch (LedgerUnavailableException) when (attempt < PoolLooksMax)
            {
                await Task.Delay(Beat, time, cancellationToken);
            }
            catch (LedgerUnavailableException)
            {
                return false;
            }
        }
    }

    private async Task<string?> UnwritableAsync(NpgsqlConnection connection, bool isReadOnly, CancellationToken cancellationToken)
    {
        if (isReadOnly) return $"{database.Description} is read-only";
        if (database.AppendFailure is not { } appendFailure) return null;
        // A lost connection says nothing of the server: the next try has another one.
        if (appendFailure is PostgresException { SqlState: ['5', '3' or '8', ..] or "25006" } && appendFailure != told)
        {
            // Who waits for an outcome that cannot be recorded is told, also when the next try would go well: a nearly full disk takes one thing and not another.
            told = appendFailure;
            return $"{database.Description} takes no records: {appendFailure.Message}";
        }
        try
        {
            // What it took is another connection.
            if (appendFailure is PostgresException { SqlState: PostgresErrorCodes.TooManyConnections })
                await (await database.OpenDedicatedAsync(CommandTimeoutSeconds, cancellationToken)).DisposeAsync();
            await using var command = new NpgsqlCommand(TryToWrite, connection);
            await command.ExecuteNonQueryAsync(cancellationToken);
            database.Forget(appendFailure);
            return null;
        }
        catch (PostgresException failure) when (failure.SqlState == PostgresErrorCodes.TooManyConnections)
        {
            return $"{database.Description} takes no records: {failure.Message}";
        }
        catch (PostgresException failure) when (failure.InvariantSeverity == "ERROR")
        {
            await using var undo = new NpgsqlCommand("rollback", connection);
            await undo.ExecuteNonQueryAsync(cancellationToken);
            return $"{database.Description} takes no records: {failure.Message}";
        }
    }
}
