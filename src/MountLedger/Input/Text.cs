using System.Globalization;
using System.Text;

namespace MountLedger;

/// <summary>What characters may stand in a field; each check says which rule is broken, in the words of the field.</summary>
internal static class Text
{
    public static bool IsControl(Rune rune) => Rune.GetUnicodeCategory(rune)
        is UnicodeCategory.Control or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator;

    /// <summary>Takes no place or has no meaning: format characters, private use, unassigned.</summary>
    public static bool IsInvisible(Rune rune) => Rune.GetUnicodeCategory(rune)
        is UnicodeCategory.Format or UnicodeCategory.PrivateUse or UnicodeCategory.OtherNotAssigned or UnicodeCategory.Surrogate;

    /// <summary>
    /// Turns the direction of the text around it, so that a path reads as another one. The joiners, which are format characters
    /// too, are not among them: Persian and Hindi names need those.
    /// </summary>
    public static bool IsDirection(Rune rune) => rune.Value
        is 0x061C or 0x200E or 0x200F or (>= 0x202A and <= 0x202E) or (>= 0x2066 and <= 0x2069) or 0xFEFF;

    /// <summary>
    /// Whole UTF-8 without control characters. U+FFFD is refused: it is what a decoder puts where bytes were not UTF-8, so
    /// two different names on disk would arrive as the same one.
    /// </summary>
    public static bool Check(InputErrors errors, string field, string value)
    {
        var before = errors.Found;
        if (!IsWhole(value))
            errors.Add(field, InputRule.ValidUtf8, value, "give text that is valid UTF-8");
        if (HasControl(value))
            errors.Add(field, InputRule.NoControlCharacters, value, "leave out control characters and line breaks");
        return errors.Found == before;
    }

    public static bool CheckDirection(InputErrors errors, string field, string value)
    {
        if (!value.EnumerateRunes().Any(IsDirection)) return true;
        errors.Add(field, InputRule.Printable, value, "leave out the characters that change the direction of text: the path would read as another one");
        return false;
    }

    public static bool CheckPrintable(InputErrors errors, string field, string value)
    {
        if (!value.EnumerateRunes().Any(IsInvisible)) return true;
        errors.Add(field, InputRule.Printable, value, "use characters that can be seen");
        return false;
    }

    public static bool CheckNoSurroundingSpace(InputErrors errors, string field, string value)
    {
        if (value.Length == 0 || (!char.IsWhiteSpace(value[0]) && !char.IsWhiteSpace(value[^1]))) return true;
        errors.Add(field, InputRule.NoSurroundingSpace, value, "leave out spaces at the beginning and the end");
        return false;
    }

    /// <summary>Characters as people count them, near enough: Unicode scalar values.</summary>
    public static int Length(string value) => value.EnumerateRunes().Count();

    public static int Bytes(string value) => Encoding.UTF8.GetByteCount(value);

    private static bool HasControl(string value) => value.EnumerateRunes().Any(IsControl);

    private static bool IsWhole(string value)
    {
        for (var i = 0; i < value.Length;)
        {
            if (!Rune.TryGetRuneAt(value, i, out var rune) || rune == Rune.ReplacementChar) return false;
            i += rune.Utf16SequenceLength;
        }
        return true;
    }
}
