using System.Net.Sockets;
using Npgsql;

namespace MountLedger.Postgres;

/// <summary>
/// The connections to one ledger database, and the one place where failures of PostgreSQL and of the network are told
/// apart: the world is gone (<see cref="LedgerUnavailableException"/>) or we are wrong (<see cref="PostgresException"/>).
/// Everything else of this project is built on one of these and is safe to share between threads.
/// </summary>
public sealed class LedgerDatabase : IAsyncDisposable
{
    private const int ConnectTimeoutSeconds = 1;
    private const int CommandTimeoutSeconds = 5;
    private const int CancellationTimeoutMs = 500;
    private const int PoolSizeMax = 32;
    private const int PoolSizeMin = 2;
    private const int PreparedStatementsMax = 64;

    private readonly string connectionString;
    private long answers;
    private int losses;
    private Exception? appendFailure;

    private LedgerDatabase(string connectionString)
    {
        this.connectionString = connectionString;
        DataSource = new NpgsqlDataSourceBuilder(connectionString).Build();
        Appends = new AppendQueue(this, connectionString);
        var target = new NpgsqlConnectionStringBuilder(connectionString);
        Description = $"PostgreSQL database {target.Database} at {target.Host}";
    }

    internal NpgsqlDataSource DataSource { get; }

    /// <summary>Appends of which nobody knows yet whether they will still be committed.</summary>
    internal AppendDoubts Doubts { get; } = new();

    /// <summary>Why the last append could not be written; null when it could, or when a try since then has shown that the next one can.</summary>
    internal Exception? AppendFailure
    {
        get => Volatile.Read(ref appendFailure);
        set => Volatile.Write(ref appendFailure, value);
    }

    /// <summary>Grows with each time that the server was found to be away: connections from before are not to be trusted.</summary>
    internal int Losses => Volatile.Read(ref losses);

    internal void Lost() => Interlocked.Increment(ref losses);

    /// <summary>A try has gone well, and no other failure has come meanwhile.</summary>
    internal void Forget(Exception failure) => Interlocked.CompareExchange(ref appendFailure, null, failure);

    /// <summary>Grows with each answer of the server, whatever it was about.</summary>
    public long Answers => Interlocked.Read(ref answers);

    internal void Answered() => Interlocked.Increment(ref answers);

    /// <summary>The way of every append.</summary>
    internal AppendQueue Appends { get; }

    /// <summary>Database and server, without any secret, for messages.</summary>
    public string Description { get; }

    /// <summary>
    /// Opens nothing yet. What the connection string does not say is set for a ledger: one second to connect, five for a
    /// command, at most 32 connections (and two that append), statements prepared automatically.
    /// </summary>
    /// <exception cref="ArgumentException">The connection string is malformed.</exception>
    public static LedgerDatabase Open(string connectionString)
    {
        // Not ContainsKey, which is true of every keyword that Npgsql knows.
        var given = new NpgsqlConnectionStringBuilder(connectionString).Keys;
        var complete = new NpgsqlConnectionStringBuilder(connectionString) { Multiplexing = false, Enlist = false };
        if (!given.Contains("Timeout")) complete.Timeout = ConnectTimeoutSeconds;
        if (!given.Contains("Command Timeout")) complete.CommandTimeout = CommandTimeoutSeconds;
        if (!given.Contains("Cancellation Timeout")) complete.CancellationTimeout = CancellationTimeoutMs;
        if (!given.Contains("Maximum Pool Size")) complete.MaxPoolSize = PoolSizeMax;
        if (!given.Contains("Application Name")) complete.ApplicationName = "mountledger";
        if (!given.Contains("Max Auto Prepare")) complete.MaxAutoPrepare = PreparedStatementsMax;
        // A start reads the host's mountpoints while it records itself.
        complete.MaxPoolSize = Math.Max(complete.MaxPoolSize, PoolSizeMin);
        complete.AutoPrepareMinUsages = 2;
        // A pooled connection never carries session state here (listeners and session locks have connections of their
        // own), so the reset that would precede each use is a waste.
        complete.NoResetOnClose = true;
        return new LedgerDatabase(complete.ConnectionString);
    }

    public async ValueTask DisposeAsync()
    {
        await Appends.DisposeAsync();
        await DataSource.DisposeAsync();
    }

    /// <summary>A connection outside the pool, for what has session state: LISTEN, session locks, long work. The token is one of a <see cref="CancellationShield"/>.</summary>
    internal async Task<NpgsqlConnection> OpenDedicatedAsync(int commandTimeoutSeconds, CancellationToken cancellationToken)
    {
        var settings = new NpgsqlConnectionStringBuilder(connectionString)
        {
            Pooling = false,
            NoResetOnClose = false,
            MaxAutoPrepare = 0,
            KeepAlive = 10,
            CommandTimeout = commandTimeoutSeconds,
        };
        var connection = new NpgsqlConnection(settings.ConnectionString);
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

    /// <summary>
    /// Runs <paramref name="work"/> on a pooled connection. <paramref name="repeatable"/>: it only reads, so it is tried once more when a
    /// pooled connection turns out to be dead (the server was restarted).
    /// </summary>
    /// <exception cref="LedgerUnavailableException">No connection, no answer in time, or the server is going down.</exception>
    internal async ValueTask<T> RunAsync<T>(
        string what, bool repeatable, Func<NpgsqlConnection, CancellationToken, ValueTask<T>> work, CancellationToken cancellationToken)
    {
        using var shield = new CancellationShield(cancellationToken);
        for (var attempt = 1; ; attempt++)
        {
            var connected = false;
            try
            {
                await using var connection = await DataSource.OpenConnectionAsync(shield.Token);
                connected = true;
                await Doubts.SettleAsync(connection, shield.Token);
                var result = await work(connection, shield.Token);
                Answered();
                return result;
            }
            catch (Exception failure) when (IsUnavailable(failure, cancellationToken))
            {
                // The other idle connections lead to the same dead server.
                if (failure is not PostgresException || IsShutdown(failure)) DataSource.Clear();
                if (repeatable && connected && attempt == 1 && failure is NpgsqlException { InnerException: IOException }) continue;
                throw Unavailable(what, failure);
            }
        }
    }

    /// <summary>The exception for a failure that <see cref="IsUnavailable"/> accepts.</summary>
    internal LedgerUnavailableException Unavailable(string what, Exception failure) =>
        new($"{Description} is unavailable ({what}): {failure.Message}", failure);

    /// <summary>Whether a failure is the world's fault. By SQLSTATE class, see appendix A of PostgreSQL's manual.</summary>
    internal static bool IsUnavailable(Exception failure, CancellationToken cancellationToken) => failure switch
    {
        OperationCanceledException => !cancellationToken.IsCancellationRequested,
        PostgresException { SqlState: "57014" } => !cancellationToken.IsCancellationRequested,
        // 08 connection, 25006 read-only, 28 authentication, 3D000 no such database, 40 rollback, 42501 not permitted,
        // 53 resources, 55 locks, 57 shutdown, 58 I/O, F0 configuration, XX corruption.
        PostgresException { SqlState: var state } =>
            state is "25006" or "3D000" or "42501" || state[..2] is "08" or "28" or "40" or "53" or "55" or "57" or "58" or "F0" or "XX",
        NpgsqlException or SocketException or IOException or TimeoutException => true,
        _ => false,
    };

    internal static bool IsShutdown(Exception failure) => failure is PostgresException { SqlState: "57P01" or "57P02" or "57P03" };
}
