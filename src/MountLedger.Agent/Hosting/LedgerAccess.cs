using MountLedger.Postgres;

namespace MountLedger.Agent;

/// <summary>The ledger's database, once the agent knows where it is.</summary>
public sealed class LedgerAccess
{
    private LedgerDatabase? _database;

    public LedgerDatabase? Database => _database;

    /// <exception cref="LedgerUnavailableException">The agent has not got so far yet.</exception>
    public PostgresEventStore Store => new(Open());

    /// <exception cref="LedgerUnavailableException">The agent has not got so far yet.</exception>
    public LedgerQueries Queries => new(Open());

    /// <exception cref="LedgerUnavailableException">The agent has not got so far yet.</exception>
    public PastReading Past => new(Open());

    public LedgerDatabase Open(string connectionString) => _database = LedgerDatabase.Open(connectionString);

    public async Task CloseAsync()
    {
        if (Interlocked.Exchange(ref _database, null) is { } database) await database.DisposeAsync();
    }

    private LedgerDatabase Open() =>
        _database ?? throw new LedgerUnavailableException("the agent is starting and has no ledger yet");
}
