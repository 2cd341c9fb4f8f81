using System.Globalization;
using MountLedger.Linux;
using MountLedger.Postgres;

namespace MountLedger.Agent;

/// <summary>
/// The agent's own PostgreSQL as the agent uses it. Starting and stopping it takes another account, so an agent without capabilities has that done by a program that its
/// launcher starts (<c>mountledgerd own-postgres start|stop STATEDIR</c>), which ends when it is done; an agent with capabilities does it itself.
/// </summary>
internal sealed class OwnPostgres : IAsyncDisposable
{
    public const string Program = "own-postgres";
    public const string StartWord = "start";
    public const string StopWord = "stop";

    private const string Done = "done";
    private static readonly TimeSpan StartMax = TimeSpan.FromMinutes(5);
    private static readonly TimeSpan StopMax = TimeSpan.FromSeconds(15);

    private readonly EmbeddedPostgres? ours;
    private readonly Launcher? launcher;
    private readonly EmbeddedPostgresLogs? logs;

    private OwnPostgres(EmbeddedPostgres ours) => (this.ours, ConnectionString, WasRunning) = (ours, ours.ConnectionString, ours.WasRunning);

    private OwnPostgres(Launcher launcher, string connectionString, bool wasRunning, EmbeddedPostgresLogs logs) =>
        (this.launcher, ConnectionString, WasRunning, this.logs) = (launcher, connectionString, wasRunning, logs);

    public string ConnectionString { get; }

    /// <summary>The server was running already (an earlier agent died and left it).</summary>
    public bool WasRunning { get; }

    /// <summary>
    /// Looks for one that an earlier agent left: what a start can do while the program makes itself ready. The runtime compiles a good part of the database's driver
    /// meanwhile.
    /// </summary>
    public static Task<RunningPostgres?> SearchAsync(string stateDirectory) =>
        Task.Run(() => EmbeddedPostgres.FindAnsweringAsync(stateDirectory, CancellationToken.None));

    /// <summary>Returns when the server answers; <see cref="EmbeddedPostgres.StartAsync"/>.</summary>
    /// <param name="stateDirectory">Where its data are, or will be.</param>
    /// <param name="launcher">What starts it; null: the agent itself.</param>
    /// <param name="search">A search that was begun already; null: none was.</param>
    /// <param name="cancellationToken">Gives up waiting.</param>
    /// <exception cref="EmbeddedPostgresException">It does not start; the message says why.</exception>
    public static async Task<OwnPostgres> StartAsync(
        string stateDirectory, Launcher? launcher, Task<RunningPostgres?>? search, CancellationToken cancellationToken)
    {
        if (launcher is null) return new OwnPostgres(await EmbeddedPostgres.StartAsync(stateDirectory, cancellationToken));
        // The program that starts it would cost a large part of this agent's start, to find the same.
        if (await (search ?? SearchAsync(stateDirectory)).WaitAsync(cancellationToken) is { } running)
            return new OwnPostgres(launcher, running.ConnectionString, wasRunning: true, new EmbeddedPostgresLogs(running.LogDirectory));
        var said = await AskAsync(launcher, LaunchVerb.StartPostgres, StartMax, cancellationToken);
        if (said is not [Done, var connectionString, var wasRunning, var logDirectory]) throw new EmbeddedPostgresException(string.Join('\n', said));
        return new OwnPostgres(launcher, connectionString, wasRunning == bool.TrueString, new EmbeddedPostgresLogs(logDirectory));
    }

    /// <summary>Stops the server within about <see cref="StopMax"/>.</summary>
    /// <returns>Whether it ended within that by itself.</returns>
    public async Task<bool> StopAsync(CancellationToken cancellationToken)
    {
        if (ours is not null) return await ours.StopAsync(StopMax, cancellationToken);
        try
        {
            return await AskAsync(launcher!, LaunchVerb.StopPostgres, StopMax + TimeSpan.FromSeconds(15), cancellationToken) is [Done];
        }
        catch (EmbeddedPostgresException)
        {
            return false;
        }
    }

    /// <summary>Lets go of the server without stopping it.</summary>
    public async ValueTask DisposeAsync()
    {
        if (ours is not null) await ours.DisposeAsync();
        if (logs is not null) await logs.DisposeAsync();
    }

    /// <summary>The program that the launcher starts; says in its channel what became of it.</summary>
    public static async Task<int> RunProgramAsync(string[] args)
    {
        ProgramStart.KeepChannel();
        try
        {
            switch (args)
            {
                case [StartWord, var stateDirectory]:
                    await using (var server = await EmbeddedPostgres.StartAsync(stateDirectory, CancellationToken.None))
                        ProgramStart.Say(string.Join('\n', Done, server.ConnectionString, server.WasRunning.ToString(CultureInfo.InvariantCulture), server.LogDirectory));
                    return 0;
                case [StopWord, var stateDirectory]:
                    await using (var server = await EmbeddedPostgres.OfAsync(stateDirectory, CancellationToken.None))
                        ProgramStart.Say(await server.StopAsync(StopMax, CancellationToken.None) ? Done : "it did not stop in time");
                    return 0;
                default:
                    await Console.Error.WriteLineAsync($"{Program}: it is started by the agent, not by hand");
                    return 2;
            }
        }
        catch (Exception e) when (e is EmbeddedPostgresException or LedgerUnavailableException or IOException or UnauthorizedAccessException)
        {
            ProgramStart.Say(e.Message);
            return 1;
        }
    }

    private static async Task<string[]> AskAsync(Launcher launcher, LaunchVerb verb, TimeSpan deadline, CancellationToken cancellationToken)
    {
        try
        {
            var said = await launcher.RunAsync(verb, deadline, cancellationToken);
            return said.Length > 0 ? said.Split('\n') : ["the program that starts and stops PostgreSQL ended without a word: see its messages in the agent's log"];
        }
        catch (IOException e)
        {
            throw new EmbeddedPostgresException(e.Message, e);
        }
    }
}
