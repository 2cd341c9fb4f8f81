namespace MountLedger.Postgres;

/// <summary>The database's schema cannot be used by this program. The message names what is wrong and the remedy.</summary>
public sealed class SchemaException : Exception
{
    public SchemaException(string message, Exception? inner = null) : base(message, inner) { }
}
