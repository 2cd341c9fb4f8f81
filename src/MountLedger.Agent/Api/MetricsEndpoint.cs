using System.Globalization;
using System.Text;
using MountLedger.Linux;

namespace MountLedger.Agent;

/// <summary>The agent's own figures in Prometheus' text format. None of them touches the ledger or a filesystem.</summary>
public static class MetricsEndpoint
{
    public static void MapMetrics(this IEndpointRouteBuilder routes) =>
        routes.MapGet("/metrics", (MountLedgerService service) => Results.Text(Render(service.Workers), "text/plain; version=0.0.4", Encoding.UTF8))
            .WithSummary("Figures of this agent, for Prometheus");

    private static string Render(WorkerCounters workers)
    {
        var text = new StringBuilder();
        void One(string name, string kind, string help, long value) => text.Append(
            CultureInfo.InvariantCulture, $"# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        One("mountledger_workers", "gauge", "Worker processes now.", workers.Running);
        One("mountledger_workers_stuck", "gauge", "Workers that were killed and that the kernel does not let go of.", workers.Stuck);
        One("mountledger_workers_started_total", "counter", "Workers that were started.", workers.Started);
        One("mountledger_workers_died_total", "counter", "Workers that ended without being asked to.", workers.Died);
        One("mountledger_workers_written_off_total", "counter", "Workers that were given up at a deadline.", workers.WrittenOff);
        return text.ToString();
    }
}
