using System.Security.Cryptography;
using System.Text;

namespace MountLedger.Linux;

/// <summary>
/// The value of a secret, for as long as a call needs it. It prints as <c>&lt;masked&gt;</c>, lies in memory once (the garbage
/// collector does not move it), is never a string, and is overwritten when it is disposed.
/// </summary>
internal sealed class Secret(string name, byte[] pinned) : IDisposable
{
    public const string Masked = "<masked>";

    /// <summary>What it is called in a spec; no secret.</summary>
    public string Name => name;

    /// <summary>Where it must go, and nowhere else.</summary>
    public ReadOnlySpan<byte> Reveal() => pinned;

    public override string ToString() => Masked;

    public void Dispose() => CryptographicOperations.ZeroMemory(pinned);

    /// <summary>A secret from text, for tests and for parts of another one.</summary>
    internal static Secret Of(string name, string value)
    {
        var pinned = GC.AllocateArray<byte>(Encoding.UTF8.GetByteCount(value), pinned: true);
        Encoding.UTF8.GetBytes(value, pinned);
        return new Secret(name, pinned);
    }
}
