using System.Collections.Immutable;
using MountLedger.Wire;
using Npgsql;

namespace MountLedger.Postgres;

/// <summary>What <c>doctor</c> says of the server: its version, and the settings on which it depends whether what was acknowledged is kept.</summary>
public sealed class ServerExamination(LedgerDatabase database)
{
    private const string Area = "postgres";
    private const int VersionMin = 150_000;

    private const string Query = """
        select current_setting('server_version_num')::int, current_setting('server_version'),
               current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit'),
               current_setting('max_connections')::int, (select count(*)::int from pg_stat_activity where backend_type = 'client backend'),
               current_setting('data_checksums'), pg_is_in_recovery(),
               (select source from pg_settings where name = 'synchronous_commit'), current_user::text, current_database()::text
        """;

    /// <param name="own">The agent's own server, which root administers through its socket.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public async Task<ImmutableArray<DoctorFinding>> RunAsync(bool own, CancellationToken cancellationToken)
    {
        var whose = own ? "the agent's own" : "given";
        try
        {
            return await database.RunAsync(
                "doctor", repeatable: true, async (connection, token) => await ReadAsync(connection, whose, own, token), cancellationToken);
        }
        catch (LedgerUnavailableException e)
        {
            return [DoctorFinding.Shortfall(
                Area, "server", $"{e.Message} ({whose})",
                own ? "it is started again by itself; its log is in postgres/log below the state directory"
                    : "start it, or correct the connection string; the agent goes on by itself as soon as it answers")];
        }
    }

    private async Task<ImmutableArray<DoctorFinding>> ReadAsync(
        NpgsqlConnection connection, string whose, bool own, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(Query, connection);
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        await reader.ReadAsync(cancellationToken);
        var findings = ImmutableArray.CreateBuilder<DoctorFinding>();
        var version = reader.GetInt32(0);
        findings.Add(version >= VersionMin
            ? DoctorFinding.Ok(Area, "server", $"PostgreSQL {reader.GetString(1)}, {whose}, {database.Description}")
            : DoctorFinding.Shortfall(Area, "server", $"PostgreSQL {reader.GetString(1)} is too old", "use PostgreSQL 15 or newer"));
        if (reader.GetBoolean(8))
            findings.Add(DoctorFinding.Shortfall(Area, "recovery", "the server is a standby: it takes no writes", "connect to the primary"));

        var psql = Psql(connection, own);
        findings.Add(Setting("fsync", reader.GetString(2), "a crash of the machine can lose or ruin what was acknowledged"));
        findings.Add(Setting("full_page_writes", reader.GetString(3), "a crash of the machine can ruin pages, and what they held"));
        findings.Add(reader.GetString(4) == "off"
            ? SynchronousCommit(reader.GetString(9), reader.GetString(10), reader.GetString(11))
            : DoctorFinding.Ok(Area, "synchronous_commit", reader.GetString(4)));
        findings.Add(reader.GetString(7) == "on"
            ? DoctorFinding.Ok(Area, "data_checksums", "on")
            : DoctorFinding.Note(
                Area, "data_checksums", "off: a disk that returns other bytes than were written is not noticed",
                "stop the server and run pg_checksums --enable"));
        var (allowed, used) = (reader.GetInt32(5), reader.GetInt32(6));
        findings.Add(used <= allowed * 9 / 10
            ? DoctorFinding.Ok(Area, "connections", $"{used} of {allowed} are in use")
            : DoctorFinding.Shortfall(
                Area, "connections", $"{used} of {allowed} are in use",
                "raise max_connections, or lower Maximum Pool Size in the agents' connection strings"));
        return findings.ToImmutable();

        // Whatever set it for the role or the database counts for more than what the server says.
        DoctorFinding SynchronousCommit(string source, string role, string name)
        {
            var finding = Setting("synchronous_commit", "off", "a crash can lose what was acknowledged in the last moments");
            return source switch
            {
                "user" => finding with
                {
                    Remedy = "reset it for the agent's role, then restart the agent",
                    Command = $"{psql} -c 'alter role \"{role}\" reset synchronous_commit'",
                },
                "database" => finding with
                {
                    Remedy = "reset it for the ledger's database, then restart the agent",
                    Command = $"{psql} -c 'alter database \"{name}\" reset synchronous_commit'",
                },
                "client" => finding with { Remedy = "take it out of the connection string", Command = null },
                _ => finding,
            };
        }

        DoctorFinding Setting(string name, string value, string risk) => value == "on"
            ? DoctorFinding.Ok(Area, name, value)
            : DoctorFinding.Shortfall(
                Area, name, $"{value}: {risk}", "switch it on; a superuser of the server may", $"{psql} -c 'alter system set {name} = on' -c 'select pg_reload_conf()'");
    }

    /// <summary>How a superuser reaches the server; without a password, which psql asks for.</summary>
    private static string Psql(NpgsqlConnection connection, bool own)
    {
        var target = new NpgsqlConnectionStringBuilder(connection.ConnectionString);
        var database = own ? ClusterSetup.Superuser : target.Database ?? ClusterSetup.Superuser;
        return $"psql -X -q -h {DoctorFinding.Quoted(target.Host ?? "localhost")} -p {target.Port} -U {ClusterSetup.Superuser} -d {DoctorFinding.Quoted(database)}";
    }
}
