using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using MountLedger.Wire;

namespace MountLedger.Cli.Verbs;

/// <summary><c>mountledger host</c>: the hosts of the ledger, and an operator's choice whether one takes new mounts.</summary>
internal static class HostVerb
{
    private const string Examples = """
          mountledger host ls
          mountledger host down --reason "disk replacement"
          mountledger host up
        """;

    private static readonly Query _all = new("/v1/hosts");

    public static Command Define(CommandLine line)
    {
        var command = line.Verb("host", "List hosts; take one down for new mounts, or up again.", Examples, action: null);
        command.Add(line.Verb("ls", "List the hosts of the ledger and their agents.", "  mountledger host ls\n  mountledger host ls --json", ListAsync));
        command.Add(Change(line, "up", "Let the host take new mounts again.", "  mountledger host up\n  mountledger host up --host node-2"));
        command.Add(Change(
            line, "down", "Refuse new mounts on the host, also after a restart. What is mounted stays; unmounts work.",
            "  mountledger host down --reason \"disk replacement\""));
        command.Add(HostSyncVerb.Define(line, OwnHostAsync));
        return command;
    }

    private static Command Change(CommandLine line, string direction, string description, string examples)
    {
        var reason = new Option<string?>("--reason") { Description = "Why; those who are refused read it", HelpName = "TEXT" };
        var command = line.Verb(direction, description, examples, ChangeAsync);
        command.Add(reason);
        return command;

        async Task<int> ChangeAsync(Run run, CancellationToken cancellationToken)
        {
            var host = run.Host ?? await OwnHostAsync(run, cancellationToken);
            var answer = await run.Agent.PostAsync(
                $"/v1/hosts/{Uri.EscapeDataString(host)}/{direction}", new HostChangeRequest(run.Value(reason)), TimeSpan.Zero,
                Preconditions.None, cancellationToken);
            if (run.Json)
                await run.Output.WriteDocumentAsync(answer.Body);
            else
                await run.Output.WriteLineAsync($"host {host} is {direction}");
            return ExitCode.Done;
        }
    }

    private static async Task<int> ListAsync(Run run, CancellationToken cancellationToken)
    {
        if (run.Json)
        {
            await run.Output.WriteDocumentAsync(await Pages.OneDocumentAsync(run.Agent, _all, cancellationToken, IsMeant));
            return ExitCode.Done;
        }

        var hosts = (await HostsAsync(run, cancellationToken)).FindAll(host => run.Host is null || host.Host == run.Host);
        if (hosts.Count == 0)
        {
            await run.Output.WriteLineAsync("no hosts");
            return ExitCode.Done;
        }

        var table = new Table("HOST", "STATE", "MOUNTPOINTS", "ATTACHMENTS", "EPOCH", "AGENT SINCE", "NOTE");
        foreach (var host in hosts)
        {
            table.Add(
                host.Host,
                host.Up ? "up" : "down",
                host.Mountpoints.ToString(CultureInfo.InvariantCulture),
                host.Attachments.ToString(CultureInfo.InvariantCulture),
                host.Agent?.Epoch.ToString(CultureInfo.InvariantCulture) ?? "",
                host.Agent is { } agent ? Text.Time(agent.StartedAt) : "",
                Note(host));
        }

        await run.Output.WriteTableAsync(table);
        return ExitCode.Done;

        bool IsMeant(JsonElement item) => run.Host is null || (item.TryGetProperty("host", out var host) && host.ValueEquals(run.Host));
    }

    /// <summary>What an operator should know of it: why it is down, what waits for a decision, how far a repair is.</summary>
    private static string Note(HostView host)
    {
        var notes = new List<string>();
        if (!host.Up)
            notes.Add($"down since {(host.DownSince is { } since ? Text.Time(since) : "?")} by {host.DownBy ?? "?"}: {host.DownReason ?? "no reason given"}");
        if (host.LedgerBehind > 0)
            notes.Add($"ledger-behind: {host.LedgerBehind} mountpoints wait for 'reconcile --ledger-behind'");
        if (host.Repair is { } repair && repair.Done < repair.ToRepair)
            notes.Add($"repairs since the start: {repair.Done} of {repair.ToRepair} done{(repair.Failed > 0 ? $", {repair.Failed} failed and tried again" : "")}");
        return string.Join("; ", notes);
    }

    /// <summary>The agent's own host goes by its name in the path, and the agent says which of the ledger's hosts that is.</summary>
    private static async Task<string> OwnHostAsync(Run run, CancellationToken cancellationToken) =>
        (await HostsAsync(run, cancellationToken)).Find(host => host.Own)?.Host
        ?? throw new ExitException(ExitCode.Unavailable, "the agent has no host in the ledger yet — try again");

    private static async Task<List<HostView>> HostsAsync(Run run, CancellationToken cancellationToken)
    {
        var hosts = new List<HostView>();
        await foreach (var page in Pages.ReadAsync(run.Agent, _all, cancellationToken))
        {
            using var _ = page;
            hosts.AddRange(Pages.Items(page, AnswerJson.Default.ListOfHostView));
        }

        return hosts;
    }
}
