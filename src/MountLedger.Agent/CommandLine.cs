using System.Collections.Immutable;
using System.CommandLine;
using System.CommandLine.Parsing;
using MountLedger.Postgres;

namespace MountLedger.Agent;

/// <summary>The command line of <c>mountledgerd</c>: settings as flags, and what is done instead of serving.</summary>
public static class CommandLine
{
    private const int BadUsage = 2;
    private const int Unavailable = 5;

    /// <summary>The program as it is called by people and services.</summary>
    public static Task<int> RunAsync(string[] args) => RunAsync(args, settings => AgentServer.RunAsync(settings, args));

    /// <summary>The launcher of an agent that was called with these arguments: it reads the same settings, so that it need not be told anything.</summary>
    public static Task<int> LaunchAsync(string[] args) => RunAsync(args, LauncherProgram.RunAsync);

    private static async Task<int> RunAsync(string[] args, Func<AgentSettings, Task<int>> serve)
    {
        Option<string?> config = new("--config") { Description = $"Configuration file (JSON, comments allowed). Default: {AgentSettings.ConfigFileDefault}, if it exists", HelpName = "FILE" };
        Option<string?> stateDir = new("--state-dir") { Description = $"State: own PostgreSQL, epoch, worker records. Default: {AgentSettings.StateDirDefault}", HelpName = "DIR" };
        Option<string?> socket = new("--socket") { Description = $"Unix socket to serve on. Default: {AgentSettings.SocketDefault}", HelpName = "PATH" };
        Option<string?> postgres = new("--postgres") { Description = "Connection string of a PostgreSQL (15 or newer). Default: one of its own", HelpName = "CONNSTR" };
        Option<string?> host = new("--host") { Description = "Name of this host in the ledger. Default: the machine's", HelpName = "NAME" };
        Option<string[]> root = new("--root") { Description = $"Directory to mount below; may be given again. Default: {AgentSettings.RootDefault}", HelpName = "DIR" };

        Option[] settings = [config, stateDir, socket, postgres, host, root];
        var agent = new RootCommand("The agent: serves one host's mounts, in the foreground. SIGTERM stops it and leaves mounts in place.");
        var rebuild = new Command("rebuild", "Build the projections anew from the events: of one host with --host, else of the whole ledger. Stop the agents that use it first.");
        foreach (var option in settings)
        {
            option.Recursive = true;
            agent.Options.Add(option);
        }
        agent.Subcommands.Add(rebuild);

        AgentSettings Settings(ParseResult parsed) => AgentSettings.Load(
            parsed.GetValue(config), Environment.GetEnvironmentVariable, given => given with
            {
                StateDir = parsed.GetValue(stateDir) ?? given.StateDir,
                Socket = parsed.GetValue(socket) ?? given.Socket,
                Postgres = parsed.GetValue(postgres) ?? given.Postgres,
                Host = parsed.GetValue(host) ?? given.Host,
                Roots = parsed.GetValue(root) is { Length: > 0 } roots ? [.. roots] : given.Roots,
            });
        agent.SetAction((parsed, _) => GuardedAsync(() => serve(Settings(parsed))));
        rebuild.SetAction((parsed, token) => GuardedAsync(() => RebuildAsync(Settings(parsed), parsed.GetValue(host), token)));

        var result = agent.Parse(args);
        if (result.Errors.Count == 0)
        {
            // The agent ends by itself, within its own deadline: no parser's patience may cut that short.
            return await result.InvokeAsync(new InvocationConfiguration { ProcessTerminationTimeout = null });
        }
        await Console.Error.WriteLineAsync($"mountledgerd: {result.Errors[0].Message} — see mountledgerd --help");
        return BadUsage;
    }

    private static async Task<int> RebuildAsync(AgentSettings settings, string? host, CancellationToken cancellationToken)
    {
        await using var own = settings.Postgres is null ? await EmbeddedPostgres.StartAsync(settings.StateDir, cancellationToken) : null;
        try
        {
            await using var database = LedgerDatabase.Open(settings.Postgres ?? own!.ConnectionString);
            await new Migrator(database).MigrateAsync(cancellationToken);
            var result = await new ProjectionRebuild(database).RunAsync(host, cancellationToken);
            Console.WriteLine($"rebuilt {result.Streams} streams of {result.Hosts} host(s) from {result.Events} events");
            return 0;
        }
        finally
        {
            if (own is { WasRunning: false }) await own.StopAsync(TimeSpan.FromSeconds(15), CancellationToken.None);
        }
    }

    private static async Task<int> GuardedAsync(Func<Task<int>> action)
    {
        try
        {
            return await action();
        }
        catch (SettingException e)
        {
            await Console.Error.WriteLineAsync($"mountledgerd: {e.Message}");
            return BadUsage;
        }
        catch (Exception e) when (e is LedgerUnavailableException or SchemaException or EmbeddedPostgresException or IOException or UnauthorizedAccessException)
        {
            await Console.Error.WriteLineAsync($"mountledgerd: {e.Message}");
            return Unavailable;
        }
    }
}
