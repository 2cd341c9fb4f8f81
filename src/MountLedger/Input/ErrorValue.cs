using System.Globalization;
using System.Text;

namespace MountLedger;

/// <summary>
/// How a caller's value is shown in an error: cut, escaped so that it cannot drive a terminal or break a line, and without
/// anything that may be a secret.
/// </summary>
internal static class ErrorValue
{
    public const int LengthMax = 128;

    private const char Cut = '…';
    private const string Masked = "<masked>";

    /// <summary>Words after which, and an equals sign or colon, a secret may stand.</summary>
    private static readonly string[] SecretWords = ["pass", "pwd", "secret", "cred", "token", "key"];

    private static readonly string[] SecretKeyWords =
        ["password", "passwd", "passphrase", "secret", "credential", "token", "keyfile", "keydata"];

    /// <summary>At most <see cref="LengthMax"/> UTF-16 units, all of them printable.</summary>
    public static string? Shown(string? value)
    {
        if (value is null) return null;
        var masked = Mask(value);
        var shown = new StringBuilder(Math.Min(masked.Length, LengthMax));
        for (var i = 0; i < masked.Length;)
        {
            var piece = Piece(masked, i, out var used);
            var room = LengthMax - (i + used < masked.Length ? 1 : 0);
            if (shown.Length + piece.Length > room)
            {
                shown.Append(Cut);
                break;
            }
            shown.Append(piece);
            i += used;
        }
        return shown.ToString();
    }

    /// <summary>
    /// A key under which secrets are commonly given (<c>password</c>, <c>secret_key</c>, <c>credentials</c>, …), whatever
    /// its case and separators. Names of files that hold secrets count too: their paths are nobody else's business.
    /// </summary>
    public static bool IsSecretKey(string key)
    {
        var letters = new string([.. key.Where(char.IsAsciiLetter).Select(char.ToLowerInvariant)]);
        return letters is "pw" or "pwd" or "cred" or "creds"
            || letters.EndsWith("key", StringComparison.Ordinal)
            || letters.EndsWith("pass", StringComparison.Ordinal)
            || SecretKeyWords.Any(word => letters.Contains(word, StringComparison.Ordinal));
    }

    private static string Mask(string value)
    {
        var first = value.Length;
        foreach (var word in SecretWords)
        {
            var at = value.IndexOf(word, StringComparison.OrdinalIgnoreCase);
            if (at < 0) continue;
            var sign = value.AsSpan(at).IndexOfAny('=', ':');
            if (sign >= 0) first = Math.Min(first, at + sign + 1);
        }
        // user:password@server
        var server = value.IndexOf('@', StringComparison.Ordinal);
        if (server > 0 && value.AsSpan(0, server).LastIndexOf(':') is >= 0 and var colon) first = Math.Min(first, colon + 1);
        return first < value.Length ? string.Concat(value.AsSpan(0, first), Masked) : value;
    }

    private static string Piece(string text, int at, out int used)
    {
        if (!Rune.TryGetRuneAt(text, at, out var rune))
        {
            used = 1;
            return Escape(text[at]);
        }
        used = rune.Utf16SequenceLength;
        return rune.Value switch
        {
            '\n' => @"\n",
            '\r' => @"\r",
            '\t' => @"\t",
            _ => Text.IsControl(rune) || Text.IsInvisible(rune) ? Escape(rune.Value) : rune.ToString(),
        };
    }

    private static string Escape(int code) =>
        code > 0xFFFF
            ? string.Create(CultureInfo.InvariantCulture, $@"\U{code:x8}")
            : string.Create(CultureInfo.InvariantCulture, $@"\u{code:x4}");
}
