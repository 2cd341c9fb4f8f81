using System.Globalization;
using System.Reflection;
using System.Security.Cryptography;
using System.Text;
using Npgsql;

namespace MountLedger.Postgres;

/// <summary>One numbered SQL file. <paramref name="Checksum"/>: SHA-256 of its bytes, lower-case hex.</summary>
public sealed record Migration(int Number, string Name, string Sql, string Checksum);

/// <summary>
/// Brings the schema <c>mountledger</c> to what this program needs: the embedded files of <c>migrations/</c>, in the order of
/// their numbers, each in a transaction of its own and recorded in <c>schema_migration</c>. Agents that start together
/// wait for each other on a session lock.
/// </summary>
public sealed class Migrator
{
    private const int VersionMin = 15;
    private const int LockWaitMaxSeconds = 60;
    private const int MigrationMaxSeconds = 3600;
    private const long LockKey = 0x4D4C_4544_4D49_4752; // "MLEDMIGR"

    private readonly LedgerDatabase database;
    private readonly IReadOnlyList<Migration> migrations;

    public Migrator(LedgerDatabase database) : this(database, Embedded()) { }

    /// <summary>For the tests: a program with other files.</summary>
    internal Migrator(LedgerDatabase database, IReadOnlyList<Migration> migrations)
    {
        this.database = database;
        this.migrations = migrations;
    }

    /// <summary>Applies what is missing. The role needs to own the database, or the right to create schemas in it.</summary>
    /// <returns>The migrations that were applied by this call.</returns>
    /// <exception cref="SchemaException">Server too old, an applied file was changed, or the database is newer.</exception>
    /// <exception cref="LedgerUnavailableException">The database cannot be reached, or another migration does not end.</exception>
    public async Task<IReadOnlyList<Migration>> MigrateAsync(CancellationToken cancellationToken)
    {
        using var shield = new CancellationShield(cancellationToken);
        cancellationToken = shield.Token;
        try
        {
            await using var connection = await database.OpenDedicatedAsync(MigrationMaxSeconds, cancellationToken);
            await RefuseServerAsync(connection, cancellationToken);
            // Ends with the connection, however this ends.
            await ExecuteAsync(connection, $"set lock_timeout = '{LockWaitMaxSeconds}s'", cancellationToken);
            await ExecuteAsync(connection, $"select pg_advisory_lock({LockKey})", cancellationToken);
            await PrepareAsync(connection, cancellationToken);
            var applied = await ReadAppliedAsync(connection, cancellationToken);
            RefuseForeign(applied);
            var missing = migrations.Where(migration => !applied.ContainsKey(migration.Number)).ToList();
            foreach (var migration in missing) await ApplyAsync(connection, migration, cancellationToken);
            return missing;
        }
        catch (PostgresException failure) when (failure.SqlState == PostgresErrorCodes.InsufficientPrivilege)
        {
            throw new SchemaException(
                $"{database.Description}: the role is not permitted to create or change the schema mountledger ({failure.MessageText}): "
                + "make it the owner of the database (ALTER DATABASE … OWNER TO …) and of the schema", failure);
        }
        catch (Exception failure) when (LedgerDatabase.IsUnavailable(failure, cancellationToken))
        {
            throw database.Unavailable("migrate the schema", failure);
        }
    }

    private static async Task RefuseServerAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        if (connection.PostgreSqlVersion.Major < VersionMin)
        {
            throw new SchemaException(
                $"PostgreSQL {connection.PostgreSqlVersion} is too old: MountLedger needs {VersionMin} or newer; upgrade the server");
        }
        await using var command = new NpgsqlCommand("show server_encoding", connection);
        var encoding = (string?)await command.ExecuteScalarAsync(cancellationToken);
        if (encoding != "UTF8")
        {
            throw new SchemaException(
                $"the database {connection.Database} is encoded in {encoding}, MountLedger needs UTF8: "
                + "create it anew with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0");
        }
    }

    private static async Task PrepareAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(
            "select to_regclass('mountledger.schema_migration') is not null", connection);
        // Asked first, because `create schema if not exists` needs the right to create one even when it exists.
        if (await command.ExecuteScalarAsync(cancellationToken) is true) return;
        await ExecuteAsync(
            connection,
            """
            create schema if not exists mountledger;
            create table mountledger.schema_migration (
              number integer not null constraint schema_migration_key primary key,
              name text not null,
              checksum text not null,
              applied_at timestamptz not null default clock_timestamp()
            )
            """,
            cancellationToken);
    }

    private static async Task<Dictionary<int, (string Name, string Checksum)>> ReadAppliedAsync(
        NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand("select number, name, checksum from mountledger.schema_migration", connection);
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        var applied = new Dictionary<int, (string, string)>();
        while (await reader.ReadAsync(cancellationToken))
            applied.Add(reader.GetInt32(0), (reader.GetString(1), reader.GetString(2)));
        return applied;
    }

    private void RefuseForeign(Dictionary<int, (string Name, string Checksum)> applied)
    {
        var known = migrations.ToDictionary(migration => migration.Number);
        foreach (var (number, (name, checksum)) in applied.OrderBy(pair => pair.Key))
        {
            if (!known.TryGetValue(number, out var migration))
            {
                throw new SchemaException(
                    $"{database.Description} is newer than this program: it has migration {number:0000} ({name}), this program ends at "
                    + $"{known.Keys.DefaultIfEmpty().Max():0000}; run the MountLedger that made it, or a newer one");
            }
            if (migration.Checksum != checksum)
            {
                throw new SchemaException(
                    $"migration {number:0000} ({name}) was applied to {database.Description} with other content: checksum {checksum} there, "
                    + $"{migration.Checksum} ({migration.Name}) in this program; an applied file must not be edited: restore it and put "
                    + "the change into a new one, or run the program that the database was made with");
            }
        }
    }

    private async Task ApplyAsync(NpgsqlConnection connection, Migration migration, CancellationToken cancellationToken)
    {
        try
        {
            await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
            await ExecuteAsync(connection, migration.Sql, cancellationToken);
            await using (var record = new NpgsqlCommand(
                "insert into mountledger.schema_migration (number, name, checksum) values ($1, $2, $3)", connection))
            {
                record.Parameters.Add(new NpgsqlParameter<int> { TypedValue = migration.Number });
                record.Parameters.Add(new NpgsqlParameter<string> { TypedValue = migration.Name });
                record.Parameters.Add(new NpgsqlParameter<string> { TypedValue = migration.Checksum });
                await record.ExecuteNonQueryAsync(cancellationToken);
            }
            await transaction.CommitAsync(cancellationToken);
        }
        catch (PostgresException failure) when (
            failure.SqlState != PostgresErrorCodes.InsufficientPrivilege && !LedgerDatabase.IsUnavailable(failure, cancellationToken))
        {
            throw new SchemaException(
                $"migration {migration.Number:0000} ({migration.Name}) failed on {database.Description} and was rolled back: "
                + $"{failure.SqlState} {failure.MessageText}", failure);
        }
    }

    private static async Task ExecuteAsync(NpgsqlConnection connection, string sql, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(sql, connection);
        await command.ExecuteNonQueryAsync(cancellationToken);
    }

    /// <summary>The files that this program carries, by number.</summary>
    internal static IReadOnlyList<Migration> Embedded()
    {
        const string prefix = "migrations/";
        var assembly = Assembly.GetExecutingAssembly();
        return
        [
            .. assembly.GetManifestResourceNames()
                .Where(resource => resource.StartsWith(prefix, StringComparison.Ordinal))
                .Select(resource => Read(assembly, resource, Path.GetFileNameWithoutExtension(resource[prefix.Length..])))
                .OrderBy(migration => migration.Number),
        ];
    }

    private static Migration Read(Assembly assembly, string resource, string name)
    {
        using var stream = assembly.GetManifestResourceStream(resource)!;
        var bytes = new byte[stream.Length];
        stream.ReadExactly(bytes);
        var number = int.Parse(name.AsSpan(0, name.IndexOf('_', StringComparison.Ordinal)), CultureInfo.InvariantCulture);
        return new Migration(number, name, Encoding.UTF8.GetString(bytes), Convert.ToHexStringLower(SHA256.HashData(bytes)));
    }
}
