namespace MountLedger.Linux;

/// <summary>A mount is somewhere where it should not be, and stays there: nobody may call that a failure without effect.</summary>
internal sealed class MountLeftBehindException : Exception
{
    public MountLeftBehindException(string message, Exception? inner = null) : base(message, inner) { }
}
