using Npgsql;

namespace MountLedger.Postgres;

/// <summary>What a server on a unix socket answered.</summary>
/// <param name="DataDirectory">The data directory that it serves, when it is ready; else null.</param>
/// <param name="Starting">It is there and not ready yet (start, crash recovery), or it is going down.</param>
/// <param name="Problem">Why there was no useful answer.</param>
public sealed record ClusterAnswer(string? DataDirectory, bool Starting, string? Problem);

/// <summary>What the agent's own PostgreSQL needs from a client: is it there, and does it have the ledger's role and database.</summary>
public static class ClusterSetup
{
    public const string Superuser = "postgres";
    public const string Ledger = "mountledger";

    private const int TimeoutSeconds = 2;

    /// <summary>The connection string of the ledger's role and database on the server that listens in a directory.</summary>
    public static string ConnectionString(string socketDirectory) => new NpgsqlConnectionStringBuilder
    {
        Host = socketDirectory,
        Username = Ledger,
        Database = Ledger,
    }.ConnectionString;

    /// <summary>Asks the server in a directory which data directory it serves. Does not throw when nobody answers; takes two seconds at most.</summary>
    public static async Task<ClusterAnswer> AskAsync(string socketDirectory, CancellationToken cancellationToken)
    {
        using var shield = new CancellationShield(cancellationToken);
        cancellationToken = shield.Token;
        try
        {
            await using var connection = await ConnectAsync(socketDirectory, cancellationToken);
            await using var command = new NpgsqlCommand("show data_directory", connection);
            return new ClusterAnswer((string?)await command.ExecuteScalarAsync(cancellationToken), Starting: false, Problem: null);
        }
        catch (PostgresException failure) when (failure.SqlState is PostgresErrorCodes.CannotConnectNow)
        {
            return new ClusterAnswer(null, Starting: true, failure.MessageText);
        }
        catch (Exception failure) when (LedgerDatabase.IsUnavailable(failure, cancellationToken))
        {
            return new ClusterAnswer(null, Starting: false, failure.Message);
        }
    }

    /// <summary>Creates the role and the database that are missing.</summary>
    /// <exception cref="LedgerUnavailableException">The server went away.</exception>
    public static async Task EnsureLedgerAsync(string socketDirectory, CancellationToken cancellationToken)
    {
        using var shield = new CancellationShield(cancellationToken);
        cancellationToken = shield.Token;
        try
        {
            await using var connection = await ConnectAsync(socketDirectory, cancellationToken);
            await EnsureAsync(connection, "pg_roles", "rolname", $"create role {Ledger} login", cancellationToken);
            await EnsureAsync(
                connection, "pg_database", "datname", $"create database {Ledger} owner {Ledger} encoding 'UTF8' template template0",
                cancellationToken);
        }
        catch (Exception failure) when (LedgerDatabase.IsUnavailable(failure, cancellationToken))
        {
            throw new LedgerUnavailableException($"the own PostgreSQL in {socketDirectory} went away: {failure.Message}", failure);
        }
    }

    private static async Task EnsureAsync(
        NpgsqlConnection connection, string catalogue, string column, string create, CancellationToken cancellationToken)
    {
        await using var find = new NpgsqlCommand($"select exists (select from {catalogue} where {column} = '{Ledger}')", connection);
        if (await find.ExecuteScalarAsync(cancellationToken) is true) return;
        await using var command = new NpgsqlCommand(create, connection);
        await command.ExecuteNonQueryAsync(cancellationToken);
    }

    private static async Task<NpgsqlConnection> ConnectAsync(string socketDirectory, CancellationToken cancellationToken)
    {
        var connection = new NpgsqlConnection(new NpgsqlConnectionStringBuilder
        {
            Host = socketDirectory,
            Username = Superuser,
            Database = Superuser,
            Pooling = false,
            Timeout = TimeoutSeconds,
            CommandTimeout = 30,
        }.ConnectionString);
        try
        {
            await connection.OpenAsync(cancellationToken);
            return connection;
        }
        catch
        {
            await connection.DisposeAsync();
            throw;
        }
    }
}
