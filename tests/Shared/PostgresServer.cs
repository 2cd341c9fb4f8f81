using MountLedger.Agent;
using MountLedger.Postgres;
using Npgsql;
using Xunit;

namespace MountLedger.Testing;

/// <summary>
/// A real PostgreSQL for the tests of one assembly: of its own in a temporary directory, or the given one. Hands out a fresh, migrated database to
/// each test, and drops what it made.
/// </summary>
public sealed class PostgresServer : IAsyncLifetime
{
    private static int serial;

    private readonly List<string> created = [];
    private readonly string prefix = $"mltest_{Environment.ProcessId}_{Guid.NewGuid():N}"[..24];
    private DirectoryInfo? directory;
    private EmbeddedPostgres? own;
    private string administrator = "";

    public async Task InitializeAsync()
    {
        if (PostgresPresence.ReasonToSkip is not null) return;
        if (PostgresPresence.Given is { } given)
        {
            administrator = given;
        }
        else
        {
            directory = Directory.CreateTempSubdirectory("mountledger-test-");
            try
            {
                own = await EmbeddedPostgres.StartAsync(directory.FullName, CancellationToken.None);
            }
            catch
            {
                directory.Delete(recursive: true);
                throw;
            }
            administrator = $"Host={own.SocketDirectory};Username={ClusterSetup.Superuser};Database={ClusterSetup.Superuser}";
        }
        await using var template = LedgerDatabase.Open(await CreateAsync(Template, template: "template0"));
        await new Migrator(template).MigrateAsync(CancellationToken.None);
    }

    public async Task DisposeAsync()
    {
        if (own is not null)
        {
            await own.StopAsync(TimeSpan.FromSeconds(20), CancellationToken.None);
            await own.DisposeAsync();
            directory!.Delete(recursive: true);
            return;
        }
        foreach (var database in created) await ExecuteAsync(administrator, $"drop database if exists {database} with (force)");
    }

    /// <summary>The connection string of a new database with the ledger's schema.</summary>
    public Task<string> CreateLedgerAsync() => CreateAsync($"{prefix}_{Interlocked.Increment(ref serial)}", Template);

    /// <summary>The connection string of a new, empty database.</summary>
    public Task<string> CreateEmptyAsync(string encoding = "UTF8") =>
        CreateAsync($"{prefix}_{Interlocked.Increment(ref serial)}", "template0", encoding);

    /// <summary>A copy of a ledger as it is now; who is connected to it loses its connection for a moment.</summary>
    /// <returns>The copy's name, for <see cref="RestoreAsync"/>.</returns>
    public async Task<string> BackUpAsync(string ledger)
    {
        var name = new NpgsqlConnectionStringBuilder(ledger).Database!;
        var backup = $"{prefix}_{Interlocked.Increment(ref serial)}_backup";
        await CloseAsync(name);
        await ExecuteAsync(administrator, $"create database {backup} template {name}");
        await ExecuteAsync(administrator, $"alter database {name} with allow_connections true");
        lock (created) created.Add(backup);
        return backup;
    }

    /// <summary>Puts a copy in the place of a ledger; who is connected to it loses its connection for a moment.</summary>
    public async Task RestoreAsync(string ledger, string backup)
    {
        var name = new NpgsqlConnectionStringBuilder(ledger).Database!;
        await CloseAsync(name);
        await ExecuteAsync(administrator, $"drop database {name}");
        await ExecuteAsync(administrator, $"create database {name} owner {(own is null ? "current_user" : ClusterSetup.Ledger)} template {backup}");
    }

    private async Task CloseAsync(string database)
    {
        await ExecuteAsync(administrator, $"alter database {database} with allow_connections false");
        await ExecuteAsync(administrator, $"select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '{database}'");
    }

    private string Template => $"{prefix}_template";

    private async Task<string> CreateAsync(string name, string template, string encoding = "UTF8")
    {
        var role = own is null ? "current_user" : ClusterSetup.Ledger;
        await ExecuteAsync(administrator, $"create database {name} owner {role} encoding '{encoding}' locale 'C' template {template}");
        lock (created) created.Add(name);
        var settings = new NpgsqlConnectionStringBuilder(administrator) { Database = name };
        if (own is not null) settings.Username = ClusterSetup.Ledger;
        // A server has a hundred connections, and those of the test before may not have ended yet.
        settings.MaxPoolSize = 12;
        // Callers who are more than these wait for one, on a loaded machine longer than the second that a ledger sets.
        settings.Timeout = 30;
        return settings.ConnectionString;
    }

    private static async Task ExecuteAsync(string connectionString, string sql)
    {
        await using var connection = new NpgsqlConnection($"{connectionString};Pooling=false");
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand(sql, connection);
        await command.ExecuteNonQueryAsync();
    }
}
