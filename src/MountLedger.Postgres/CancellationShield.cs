namespace MountLedger.Postgres;

/// <summary>
/// A token for calls of Npgsql, cancelled with another one. Npgsql's own answer to a cancellation can fail (10.0.0: NullReferenceException when its connection ends in that
/// moment), and whoever cancels would get that: a stop that is not gone through with, or the thread of a timer, for which it is the end of the process.
/// </summary>
internal sealed class CancellationShield : IDisposable
{
    private readonly CancellationTokenSource? source;
    private readonly CancellationTokenRegistration registration;

    public CancellationShield(CancellationToken outside)
    {
        if (!outside.CanBeCanceled) return;
        source = new CancellationTokenSource();
        registration = outside.UnsafeRegister(static shielded => Cancel((CancellationTokenSource)shielded!), source);
    }

    public CancellationToken Token => source?.Token ?? CancellationToken.None;

    public void Dispose()
    {
        registration.Dispose(); // Waits for a cancellation that is under way.
        source?.Dispose();
    }

    private static void Cancel(CancellationTokenSource shielded)
    {
        try
        {
            shielded.Cancel();
        }
        catch (AggregateException)
        {
            // All callbacks have run, and the token is cancelled: whatever comes next in that call sees it.
        }
    }
}
