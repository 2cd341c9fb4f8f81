using Npgsql;

namespace MountLedger.Postgres;

/// <summary>
/// Gathers the appends of many callers into few commits. Up to two transactions are under way, each on a connection of its own: while one
/// waits for the disk, the other one is filled. Whoever finds nobody writing writes at once and alone, on his own thread, so a caller without
/// company waits for nobody and for no change of threads; whoever finds somebody waits for company (<see cref="IsTimeToWrite"/>).
/// </summary>
/// <remarks>
/// A transaction is one call of <c>ledger_append</c>. An append that it refuses (a conflict, an older epoch) it returns as a value and has not written,
/// so that one fails alone. If one raises an error, all of them are rolled back, and each is tried again by itself. Nobody gets his answer before
/// the commit.
/// </remarks>
internal sealed class AppendQueue : IAsyncDisposable
{
    private const int WritersMax = 2;
    private const int EventsPerSecondMin = 500;

    private static readonly TimeSpan WaitForCompanyMax = TimeSpan.FromMilliseconds(20);

    private static int roomMade;

    private readonly LedgerDatabase database;
    private readonly NpgsqlDataSource connections;
    private readonly Lock turn = new();
    private readonly Queue<PendingAppend> waiting = new();
    private readonly Stack<Writer> free = new();
    private readonly Timer patience;
    private bool isPatient;
    private int underWay;
    private int enough;
    private bool disposed;

    /// <param name="database">Says which failures mean that the ledger is away.</param>
    /// <param name="settings">The ledger's connection string. The writers' connections are not of its pool, which may be as small as one.</param>
    public AppendQueue(LedgerDatabase database, string settings)
    {
        this.database = database;
        connections = NpgsqlDataSource.Create(new NpgsqlConnectionStringBuilder(settings) { MinPoolSize = 0, MaxPoolSize = WritersMax });
        for (var i = 0; i < WritersMax; i++) free.Push(new Writer());
        patience = new Timer(_ => EndOfPatience());
        MakeRoom();
    }

    /// <summary>Appends, alone or in company.</summary>
    /// <param name="append">What to append.</param>
    /// <param name="cancellationToken">Ends the wait. What waits its turn is then not written; what is being written may be committed all the same.</param>
    /// <exception cref="LedgerUnavailableException">It is unknown whether the append took place.</exception>
    public async ValueTask<AppendResult> AppendAsync(PendingAppend append, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        Writer? writer = null;
        GatheredAppends? gathered = null;
        lock (turn)
        {
            ObjectDisposedException.ThrowIf(disposed, this);
            waiting.Enqueue(append);
            if (IsTimeToWrite) gathered = free.TryPop(out writer) ? Take() : null;
            else BePatient();
        }
        if (writer is not null) WriteAndGoOn(writer, gathered!);
        try
        {
            return await append.Result.WaitAsync(cancellationToken);
        }
        catch (OperationCanceledException)
        {
            append.TryBegin(); // If it had not begun, it never will.
            throw;
        }
    }

    public async ValueTask DisposeAsync()
    {
        lock (turn)
        {
            disposed = true;
            while (free.TryPop(out var writer)) writer.Close();
        }
        await patience.DisposeAsync();
        await connections.DisposeAsync();
    }

    /// <summary>
    /// Whether those who wait are to be written by a writer who is free. When nobody writes, one is enough. While the other writer is at it they wait for
    /// him, who takes them all when he is done, unless they are half of those who append at the time: few large transactions cost less than many small
    /// ones. They do not wait for long, though: he may be held up, or write ten thousand events.
    /// </summary>
    private bool IsTimeToWrite => free.Count == WritersMax || waiting.Count >= enough;

    private void BePatient()
    {
        if (!isPatient && !disposed) isPatient = patience.Change(WaitForCompanyMax, Timeout.InfiniteTimeSpan);
    }

    private void EndOfPatience()
    {
        Writer? writer;
        GatheredAppends gathered;
        lock (turn)
        {
            isPatient = false;
            if (waiting.Count == 0 || !free.TryPop(out writer)) return;
            gathered = Take();
        }
        WriteAndGoOn(writer, gathered);
    }

    private void WriteAndGoOn(Writer writer, GatheredAppends gathered)
    {
        try
        {
            if (gathered.Count > 0) Write(writer, gathered);
        }
        finally
        {
            GoOn(writer, gathered);
        }
    }

    /// <summary>
    /// A writer is done: those who wait are next, on another thread, because this one's caller has his answer. After a gathered transaction that thread
    /// looks even when nobody waits yet: those who just got their answers are about to come back together, and the first of them would go alone.
    /// </summary>
    private void GoOn(Writer writer, GatheredAppends written)
    {
        lock (turn)
        {
            underWay -= written.Count;
            // Who looked and found nobody learns nothing of how many there are.
            if (written.Count > 0) enough = Math.Max(1, (waiting.Count + underWay + written.Count) / 2);
            // Who ended the queue took the free ones: nobody knows of another one then, and those who wait are still written.
            var isOtherAtIt = !disposed && free.Count < WritersMax - 1;
            if (isOtherAtIt ? waiting.Count < enough : waiting.Count == 0 && written.Count <= 1)
            {
                if (disposed) writer.Close();
                else free.Push(writer);
                if (waiting.Count > 0) BePatient();
                return;
            }
        }
        ThreadPool.UnsafeQueueUserWorkItem(static work => work.Queue.WriteWaiting(work.Writer), (Queue: this, Writer: writer), preferLocal: false);
    }

    private void WriteWaiting(Writer writer)
    {
        GatheredAppends gathered;
        lock (turn) gathered = Take();
        WriteAndGoOn(writer, gathered);
    }

    /// <summary>The next ones to be written, as they came, up to the first that cannot come along.</summary>
    private GatheredAppends Take()
    {
        var gathered = new GatheredAppends();
        while (waiting.TryPeek(out var next) && gathered.HasRoomFor(next))
        {
            waiting.Dequeue();
            if (next.TryBegin()) gathered.Add(next);
        }
        gathered.Sort();
        underWay += gathered.Count;
        return gathered;
    }

    private static GatheredAppends Alone(PendingAppend append)
    {
        var alone = new GatheredAppends();
        alone.Add(append);
        return alone;
    }

    private void Write(Writer writer, GatheredAppends gathered)
    {
        try
        {
            var results = Commit(writer, gathered);
            database.Answered();
            database.AppendFailure = null;
            for (var i = 0; i < results.Length; i++) gathered.Appends[i].Complete(results[i]);
        }
        catch (PostgresException error) when (gathered.Count > 1 && IsOfOne(error))
        {
            foreach (var append in gathered.Appends) Write(writer, Alone(append));
        }
#pragma warning disable CA1031 // Whatever it is, it belongs to those who wait for these appends.
        catch (Exception failure)
#pragma warning restore CA1031
        {
            if (LedgerDatabase.IsUnavailable(failure, CancellationToken.None)) Unavailable(writer, gathered.Appends, failure);
            else foreach (var append in gathered.Appends) append.Fail(failure);
        }
    }

    /// <summary>One transaction: it is committed when this returns.</summary>
    private AppendResult[] Commit(Writer writer, GatheredAppends gathered)
    {
        using var command = gathered.Command(writer.Connect(connections, database));
        // Ten thousand consumers that leave at once are ten thousand events: a long time is no sign then that the ledger is away.
        command.CommandTimeout += gathered.Events / EventsPerSecondMin;
        using var row = command.ExecuteReader();
        row.Read();
        var results = gathered.Read(row);
        // The row is sent before the transaction is committed: this waits for its end.
        row.NextResult();
        return results;
    }

    /// <summary>
    /// The ledger is away. Those who wait are told at once instead of trying one after the other; nothing of theirs was sent.
    /// </summary>
    private void Unavailable(Writer writer, IReadOnlyList<PendingAppend> appends, Exception failure)
    {
        database.AppendFailure = failure;
        // Before anybody is told: whoever then reads has to read what is final. What the server itself refused is.
        if (failure is not PostgresException) writer.Doubt(database.Doubts);
        foreach (var append in appends) append.Fail(database.Unavailable($"append to {append.Batch.Stream}", failure));
        writer.Close();
        List<PendingAppend> behind = [];
        if (failure is not PostgresException || LedgerDatabase.IsShutdown(failure))
        {
            database.DataSource.Clear();
            lock (turn)
            {
                while (waiting.TryDequeue(out var next))
                {
                    if (next.TryBegin()) behind.Add(next);
                }
            }
        }
        foreach (var append in behind)
            append.Fail(database.Unavailable($"append to {append.Batch.Stream}", failure));
    }

    /// <summary>
    /// The transaction was rolled back because of one append in it, or of its company (a deadlock), and the server is well.
    /// </summary>
    private static bool IsOfOne(PostgresException error) =>
        error is { InvariantSeverity: "ERROR", SqlState: var state } && state[..2] is not ("08" or "25" or "28" or "53" or "57" or "58" or "F0" or "XX");

    /// <summary>
    /// A write holds a thread of the pool for as long as a commit takes. On a machine with two processors the pool has only two until it notices, half a
    /// second later, that it needs more.
    /// </summary>
    private static void MakeRoom()
    {
        if (Interlocked.Exchange(ref roomMade, 1) != 0) return;
        ThreadPool.GetMinThreads(out var workers, out var ports);
        ThreadPool.SetMinThreads(workers + WritersMax, ports);
    }

    /// <summary>A connection that one writer at a time has: its server process has the plans and the newest pages at hand.</summary>
    private sealed class Writer
    {
        private NpgsqlConnection? connection;
        private ServerProcess? process;
        private int losses;

        public NpgsqlConnection Connect(NpgsqlDataSource connections, LedgerDatabase database)
        {
            // A server that was away may have ended this connection, and a caller would be the first to notice.
            if (losses != database.Losses) connections.Clear();
            else if (connection is { FullState: System.Data.ConnectionState.Open } open)
            {
                database.Doubts.Settle(open);
                return open;
            }
            Close();
            losses = database.Losses;
            connection = connections.OpenConnection();
            database.Doubts.Settle(connection);
            process = ServerProcess.Of(connection);
            return connection;
        }

        /// <summary>What was sent last may be committed at any time, as long as the process that it was sent to lives.</summary>
        public void Doubt(AppendDoubts doubts)
        {
            if (process is { } sentTo) doubts.Add(sentTo);
        }

        public void Close()
        {
            connection?.Dispose();
            (connection, process) = (null, null);
        }
    }
}
