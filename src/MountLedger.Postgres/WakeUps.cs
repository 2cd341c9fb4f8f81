using System.Runtime.CompilerServices;
using System.Security.Cryptography;
using System.Text;
using Npgsql;

namespace MountLedger.Postgres;

/// <summary>
/// A reason to look at the ledger. <paramref name="StreamId"/>: the stream that somebody else appended to (a hint: its end may be cut off beyond
/// 1 975 characters); null: the connection is new, or too much arrived at once, so anything may have been missed.
/// </summary>
public readonly record struct WakeUp(string? StreamId)
{
    public bool AnythingMayHaveChanged => StreamId is null;
}

/// <summary>
/// The notifications of a host's channel, on a connection of its own that is opened again, for ever, when it breaks. Needs a direct connection: a
/// pooler in transaction mode breaks LISTEN.
/// </summary>
public sealed class WakeUps(LedgerDatabase database)
{
    private const int PendingMax = 4096;
    private const int CommandTimeoutSeconds = 5;

    private static readonly TimeSpan RetryDelayMin = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan RetryDelayMax = TimeSpan.FromSeconds(5);

    /// <summary>
    /// Ends only by <paramref name="cancellationToken"/>, with <see cref="OperationCanceledException"/>. Yields <c>WakeUp(null)</c> after each connect, so that the consumer reads
    /// its work list whenever something may have been missed, and never more than 4 096 streams at once.
    /// </summary>
    public async IAsyncEnumerable<WakeUp> ListenAsync(string host, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        using var shield = new CancellationShield(cancellationToken);
        var delay = RetryDelayMin;
        while (true)
        {
            var pending = new HashSet<string>(StringComparer.Ordinal);
            var overflow = false;
            var connection = await ConnectAsync(host, shield.Token);
            if (connection is not null)
            {
                await using (connection)
                {
                    delay = RetryDelayMin;
                    // Raised on this flow of control, inside WaitAsync.
                    connection.Notification += (_, notification) =>
                    {
                        if (pending.Count < PendingMax) pending.Add(notification.Payload);
                        else overflow = true;
                    };
                    yield return new WakeUp(null);
                    while (await WaitAsync(connection, shield.Token))
                    {
                        var arrived = pending.ToArray();
                        var missed = overflow;
                        pending.Clear();
                        overflow = false;
                        if (missed) yield return new WakeUp(null);
                        else foreach (var stream in arrived) yield return new WakeUp(stream);
                    }
                }
            }
            await Task.Delay(delay, shield.Token);
            delay = delay * 2 < RetryDelayMax ? delay * 2 : RetryDelayMax;
        }
    }

    /// <summary>The channel of a host: <c>ml_</c> and the first 16 hex digits of the SHA-256 of its name.</summary>
    internal static string ChannelOf(string host) =>
        $"ml_{Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(host)))[..16]}";

    private async Task<NpgsqlConnection?> ConnectAsync(string host, CancellationToken cancellationToken)
    {
        NpgsqlConnection? connection = null;
        try
        {
            connection = await database.OpenDedicatedAsync(CommandTimeoutSeconds, cancellationToken);
            await using var listen = new NpgsqlCommand($"listen {ChannelOf(host)}", connection);
            await listen.ExecuteNonQueryAsync(cancellationToken);
            return connection;
        }
        catch (Exception failure) when (LedgerDatabase.IsUnavailable(failure, cancellationToken))
        {
            if (connection is not null) await connection.DisposeAsync();
            return null;
        }
    }

    private static async Task<bool> WaitAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        try
        {
            await connection.WaitAsync(cancellationToken);
            return true;
        }
        catch (Exception failure) when (LedgerDatabase.IsUnavailable(failure, cancellationToken) || failure is InvalidOperationException)
        {
            return false;
        }
    }
}
