using System.Buffers.Binary;
using System.Text;

namespace MountLedger.Linux;

/// <summary>
/// Takes secrets out of what a program printed that was given them: as they are, in any case, with spaces or line breaks
/// between, and in the encodings that programs print (percent, hexadecimal, base64 at any offset, escapes of C, JSON, XML and
/// shells). A longer secret is found by each of its pieces, so that one that was cut off is found too.
/// </summary>
internal static class SecretScrubber
{
    /// <summary>Below this a secret cannot be told from ordinary text, and the output is withheld.</summary>
    public const int LengthMin = 4;

    /// <summary>Forms of at least <see cref="PiecewiseMin"/> bytes are looked for by every piece of this length.</summary>
    private const int PieceLength = 8;

    private const int PiecewiseMin = 12;

    /// <summary>Of a secret such as ID:KEY each part of this length counts for itself.</summary>
    private const int PartMin = 6;

    /// <summary>The text without these secrets.</summary>
    public static string Scrub(string text, IReadOnlyList<Secret> secrets)
    {
        if (secrets.Count == 0 || text.Length == 0) return text;
        var pieces = new HashSet<ulong>();
        var whole = new List<byte[]>();
        foreach (var secret in secrets)
        {
            var value = secret.Reveal();
            if (Compact(value, null).Length < LengthMin) return $"(withheld: secret {secret.Name} is too short to be found in it)";
            foreach (var form in FormsOf(value)) Remember(form, pieces, whole);
            foreach (var range in value.Split((byte)':'))
                if (value[range].Length >= PartMin && value[range].Length < value.Length)
                    foreach (var form in FormsOf(value[range])) Remember(form, pieces, whole);
        }

        var bytes = Encoding.UTF8.GetBytes(text);
        var places = new int[bytes.Length];
        var searched = Compact(bytes, places);
        var found = new bool[bytes.Length];
        for (var i = 0; i + PieceLength <= searched.Length; i++)
            if (pieces.Contains(BinaryPrimitives.ReadUInt64LittleEndian(searched.AsSpan(i)))) Mark(found, places, i, PieceLength);
        foreach (var form in whole)
        {
            for (var i = 0; i + form.Length <= searched.Length; i++)
                if (searched.AsSpan(i).StartsWith(form)) Mark(found, places, i, form.Length);
        }
        return Masked(bytes, found);
    }

    private static void Remember(byte[] form, HashSet<ulong> pieces, List<byte[]> whole)
    {
        if (form.Length < PiecewiseMin)
        {
            if (form.Length >= LengthMin) whole.Add(form);
            return;
        }
        for (var i = 0; i + PieceLength <= form.Length; i++) pieces.Add(BinaryPrimitives.ReadUInt64LittleEndian(form.AsSpan(i)));
    }

    private static void Mark(bool[] found, int[] places, int start, int length) =>
        found.AsSpan(places[start], places[start + length - 1] - places[start] + 1).Fill(true);

    private static string Masked(byte[] bytes, bool[] found)
    {
        var shown = new List<byte>(bytes.Length);
        for (var i = 0; i < bytes.Length; i++)
        {
            if (!found[i]) shown.Add(bytes[i]);
            else if (i == 0 || !found[i - 1]) shown.AddRange("<masked>"u8);
        }
        return Encoding.UTF8.GetString([.. shown]);
    }

    /// <summary>In lower case and without blanks and control characters, so also without the NULs of UTF-16.</summary>
    /// <param name="text">What is to be compared.</param>
    /// <param name="places">Gets where in the text each byte of the result was.</param>
    private static byte[] Compact(ReadOnlySpan<byte> text, int[]? places)
    {
        var result = new byte[text.Length];
        var length = 0;
        for (var i = 0; i < text.Length; i++)
        {
            if (text[i] is <= (byte)' ' or 0x7F) continue;
            if (places is not null) places[length] = i;
            result[length++] = text[i] is >= (byte)'A' and <= (byte)'Z' ? (byte)(text[i] | 0x20) : text[i];
        }
        return result[..length];
    }

    private static List<byte[]> FormsOf(ReadOnlySpan<byte> value)
    {
        var forms = new List<byte[]> { Compact(value, null) };
        void Add(string text) => forms.Add(Compact(Encoding.UTF8.GetBytes(text), null));
        Add(Convert.ToHexString(value));
        for (var offset = 0; offset < 3; offset++)
        {
            var whole = Base64(value, offset);
            Add(whole);
            Add(whole.Replace('+', '-').Replace('/', '_'));
        }
        foreach (var escape in Escapes) Add(Escaped(value, escape));
        return forms;
    }

    /// <summary>What does not depend on what stands before and after, when it begins this many bytes into a group of three.</summary>
    private static string Base64(ReadOnlySpan<byte> value, int offset)
    {
        byte[] shifted = [.. new byte[offset], .. value];
        var whole = Convert.ToBase64String(shifted).TrimEnd('=');
        var first = offset == 0 ? 0 : offset + 1;
        var last = shifted.Length % 3 == 0 ? whole.Length : whole.Length - 1;
        return last > first ? whole[first..last] : "";
    }

    private static readonly Func<byte, string>[] Escapes =
    [
        b => IsWord(b) || b is (byte)'-' or (byte)'.' or (byte)'~' ? Plain(b) : $"%{b:x2}",
        b => b == ' ' ? "+" : IsWord(b) || b is (byte)'-' or (byte)'.' or (byte)'*' ? Plain(b) : $"%{b:x2}",
        b => $"%{b:x2}",
        b => $"\\x{b:x2}",
        b => $"\\{Convert.ToString(b, 8)}",
        b => $"0x{b:x2},",
        b => b is (byte)'"' or (byte)'\\' ? "\\" + Plain(b) : Plain(b),
        b => b is (byte)'"' or (byte)'\\' or (byte)'/' ? "\\" + Plain(b) : Plain(b),
        b => IsWord(b) || b >= 0x80 ? Plain(b) : "\\" + Plain(b),
        b => b == '\'' ? "'\\''" : Plain(b),
        b => b == ',' ? ",," : Plain(b),
        b => b switch { (byte)'&' => "&amp;", (byte)'<' => "&lt;", (byte)'>' => "&gt;", (byte)'"' => "&quot;", _ => Plain(b) },
    ];

    private static string Escaped(ReadOnlySpan<byte> value, Func<byte, string> escape)
    {
        // Bytes stand as Latin-1 characters here, and become bytes again below.
        var text = new StringBuilder(value.Length * 4);
        foreach (var b in value) text.Append(escape(b));
        return Encoding.UTF8.GetString(Encoding.Latin1.GetBytes(text.ToString()));
    }

    private static string Plain(byte b) => ((char)b).ToString();

    private static bool IsWord(byte b) => b == '_' || char.IsAsciiLetterOrDigit((char)b);
}
