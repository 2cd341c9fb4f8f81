using System.Diagnostics;
using System.Text.Json;
using MountLedger.Linux;

namespace MountLedger.Agent;

/// <summary><c>GET /metrics</c>: how the agent is, in the text format of Prometheus. It asks neither the database nor the worker, so it answers also when those do not.</summary>
public static class MetricsEndpoint
{
    public static void MapMetrics(this IEndpointRouteBuilder routes)
    {
        // From the start, not from the first question: what happens before counts too.
        var readings = routes.ServiceProvider.GetRequiredService<MeterReadings>();
        routes.MapGet("/metrics", (AgentSettings settings, NodeAccess access, MountLedgerService service) =>
        {
            var text = new MetricsText();
            Agent(text, settings, access, service);
            if (access.Node is { } node) Mountpoints(text, node);
            if (service.MountHost is { } host) Workers(text, host.Counters);
            readings.WriteTo(text);
            Process(text);
            return Results.Text(text.ToString(), MetricsText.ContentType);
        }).WithSummary("Counters and durations, in the text format of Prometheus");
    }

    private static void Agent(MetricsText text, AgentSettings settings, NodeAccess access, MountLedgerService service)
    {
        var version = typeof(MetricsEndpoint).Assembly.GetName().Version?.ToString(3) ?? "0";
        text.Family("mountledger_info", "gauge", "1, with the host's name and the agent's version").Sample("mountledger_info", 1, ("host", settings.Host!), ("version", version));
        text.One("mountledger_ready", "gauge", "1: commands are taken", access.Node is { Journal.IsFenced: false } ? 1 : 0);
        text.One("mountledger_fenced", "gauge", "1: another agent serves the host now", service.IsSuperseded || access.Node is { Journal.IsFenced: true } ? 1 : 0);
        text.One("mountledger_ledger_away", "gauge", "1: the ledger does not answer, or takes no records", access.Ledger.Unwritable is null ? 0 : 1);
        if (access.Node is not { } node) return;
        text.One("mountledger_epoch", "gauge", "The agent's epoch", node.Agent.Epoch);
        text.One("mountledger_host_up", "gauge", "0: an operator took the host down", node.Host.IsUp ? 1 : 0);
    }

    private static void Mountpoints(MetricsText text, HostNode node)
    {
        var present = node.Live.Present();
        text.Family("mountledger_mountpoints", "gauge", "Mountpoints by phase; absent ones are not counted");
        foreach (var phase in Enum.GetValues<Phase>().Where(phase => phase != Phase.Absent))
            text.Sample("mountledger_mountpoints", present.Count(state => state.Phase == phase), ("phase", Kebab(phase)));
        text.One("mountledger_attachments", "gauge", "Attachments of all mountpoints", present.Sum(state => state.Attachments.Count));
        text.One("mountledger_operations_running", "gauge", "Operations that have begun and have no outcome", present.Count(state => state.Operation is not null));
        text.Family("mountledger_drift", "gauge", "Mountpoints that show drift, by its kind");
        foreach (var kind in Enum.GetValues<DriftKind>())
            text.Sample("mountledger_drift", present.Count(state => state.Drift.ContainsKey(kind)), ("kind", Kebab(kind)));
    }

    private static void Workers(MetricsText text, WorkerCounters counters)
    {
        text.One("mountledger_workers", "gauge", "Worker processes now", counters.Running);
        text.One("mountledger_workers_started_total", "counter", "Workers that were started", counters.Started);
        text.One("mountledger_workers_died_total", "counter", "Workers that ended without being asked to", counters.Died);
        text.One("mountledger_workers_written_off_total", "counter", "Workers that did not answer in time", counters.WrittenOff);
        text.One("mountledger_workers_stuck", "gauge", "Workers that were killed and that the kernel does not let go of", counters.Stuck);
    }

    private static void Process(MetricsText text)
    {
        using var process = System.Diagnostics.Process.GetCurrentProcess();
        text.One("process_resident_memory_bytes", "gauge", "Memory of the agent, without its worker and its PostgreSQL", process.WorkingSet64);
        text.One("process_managed_heap_bytes", "gauge", "What .NET's collector had kept when it ran last", GC.GetGCMemoryInfo().HeapSizeBytes);
        text.One("process_cpu_seconds_total", "counter", "Processor time of the agent", process.TotalProcessorTime.TotalSeconds);
        text.One("process_threads", "gauge", "Threads of the agent", process.Threads.Count);
        text.One("process_open_fds", "gauge", "Open descriptors of the agent", Directory.GetFileSystemEntries("/proc/self/fd").Length);
        text.One(
            "process_start_time_seconds", "gauge", "When the agent started, in seconds since 1970",
            new DateTimeOffset(process.StartTime).ToUnixTimeMilliseconds() / 1000.0);
    }

    private static string Kebab<T>(T value) where T : struct, Enum => JsonNamingPolicy.KebabCaseLower.ConvertName(value.ToString());
}
