using System.Globalization;
using MountLedger.Postgres;

namespace MountLedger.Bench;

/// <summary>
/// The smallest durable write that PostgreSQL can do, by its own program: one row into a table with one index, prepared, each with its own commit.
/// </summary>
internal sealed class Pgbench
{
    private readonly string program;
    private readonly string[] connection;
    private readonly string script;

    private Pgbench(string program, string[] connection, string script) => (this.program, this.connection, this.script) = (program, connection, script);

    public static Pgbench Prepare(MeasureContext context, string socketDirectory)
    {
        string[] connection = ["-h", socketDirectory, "-U", ClusterSetup.Ledger];
        Programs.Must(
            Path.Combine(context.Options.PostgresBin, "psql"),
            [.. connection, "-d", ClusterSetup.Ledger, "-qc", "create table plain (id bigint generated always as identity primary key, body text not null)"]);
        var script = Path.Combine(context.Workplace.NewDirectory("s"), "insert.sql");
        File.WriteAllText(script, "insert into plain (body) values ('one row, as small as the data of an event');\n");
        return new Pgbench(Path.Combine(context.Options.PostgresBin, "pgbench"), connection, script);
    }

    public double InsertsPerSecond(int clients, int seconds)
    {
        var output = Programs.Must(
            program,
            [
                .. connection, "-n", "-M", "prepared", "-c", clients.ToString(CultureInfo.InvariantCulture), "-j", clients > 1 ? "2" : "1",
                "-T", seconds.ToString(CultureInfo.InvariantCulture), "-f", script, ClusterSetup.Ledger,
            ]);
        var line = output.Split('\n').First(line => line.StartsWith("tps = ", StringComparison.Ordinal));
        return double.Parse(line.Split(' ')[2], CultureInfo.InvariantCulture);
    }
}
