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
    public const string Masked = "<masked>";

    /// <summary>Words after which, and an equals sign or colon, a secret may stand.</summary>
    private static readonly string[] SecretWords = ["pass", "pwd", "secret", "cred", "token", "key"];

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
        // Any key whose value is a secret, among others of the same text.
        for (var sign = value.AsSpan().IndexOfAny('=', ':'); sign >= 0 && sign < first;)
        {
            var word = sign;
            while (word > 0 && (char.IsAsciiLetterOrDigit(value[word - 1]) || value[word - 1] is '_' or '-' or '.')) word--;
            if (SecretRules.IsKey(value[word..sign])) first = sign + 1;
            var next = value.AsSpan(sign + 1).IndexOfAny('=', ':');
            sign = next < 0 ? -1 : sign + 1 + next;
        }
        // user:password@server, and scheme://user:password@server
        var server = value.IndexOf('@', StringComparison.Ordinal);
        if (server > 0)
        {
            var scheme = value.AsSpan(0, server).IndexOf("://");
            var user = scheme < 0 ? 0 : scheme + 3;
            var colon = value.AsSpan(user, server - user).IndexOf(':');
            if (colon >= 0) first = Math.Min(first, user + colon + 1);
        }
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
