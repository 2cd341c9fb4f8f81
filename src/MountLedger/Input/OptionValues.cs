using System.Globalization;
using System.Numerics;
using System.Text;

namespace MountLedger;

/// <summary>The values of mount options: whether one is well formed, and the one way in which a canonical spec writes it.</summary>
internal static class OptionValues
{
    private const string SizeUnits = "kmgtp";

    /// <summary>Linux takes a size as a signed 64-bit number of bytes.</summary>
    private static readonly BigInteger SizeMax = long.MaxValue;

    /// <summary>The canonical form of a value, or null when it is not of the option's syntax.</summary>
    public static string? Canonical(OptionRule rule, string value) => rule.Syntax switch
    {
        ValueSyntax.Size => Size(value),
        ValueSyntax.SizeOrPercent => value.EndsWith('%') ? Percent(value[..^1]) : Size(value),
        ValueSyntax.OctalMode => OctalMode(value),
        ValueSyntax.Number => IsNumber(value) && uint.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out _) ? value : null,
        ValueSyntax.LongNumber => IsNumber(value) && ulong.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out _) ? value : null,
        ValueSyntax.Path => IsPath(value) ? value : null,
        ValueSyntax.Paths => value.Split(':').All(IsPath) ? value : null,
        ValueSyntax.InnerPath => InnerPath(value),
        ValueSyntax.Word => rule.Words.Contains(value) ? value : null,
        ValueSyntax.Words => value.Split(':').All(word => rule.Words.Contains(word)) ? value : null,
        ValueSyntax.Compression => Compression(rule, value),
        ValueSyntax.Text => IsText(value) ? value : null,
        ValueSyntax.HelperText => value.Length > 0 && value.All(IsHarmless) ? value : null,
        _ => null,
    };

    /// <summary>What a value should look like, for an error.</summary>
    public static string Expected(OptionRule rule) => rule.Syntax switch
    {
        ValueSyntax.Size => "a size such as 4096, 64k, 512m or 1g",
        ValueSyntax.SizeOrPercent => "a size such as 512m or 1g, or a share of memory such as 50%",
        ValueSyntax.OctalMode => "permissions in octal, such as 755 or 1777",
        ValueSyntax.Number => "a decimal number without leading zeros, below 4294967296",
        ValueSyntax.LongNumber => "a decimal number without leading zeros",
        ValueSyntax.Path => "an absolute, normalised path without ':' and '\\'",
        ValueSyntax.Paths => "absolute, normalised paths with ':' between them, without '\\'",
        ValueSyntax.InnerPath => "a path within the filesystem, without '.' and '..'",
        ValueSyntax.Word => $"one of {string.Join(", ", rule.Words.Except(rule.RefusedWords))}",
        ValueSyntax.Words => $"some of {string.Join(", ", rule.Words)}, with ':' between them",
        ValueSyntax.Compression => $"one of {string.Join(", ", rule.Words)}, and for zlib and zstd a level such as zstd:3",
        ValueSyntax.HelperText => "a value of letters, digits and _ . / : @ % + = ~ # -",
        _ => "printable text",
    };

    /// <summary>In lower case, with the largest unit that leaves a whole number: <c>1024m</c> is <c>1g</c>.</summary>
    private static string? Size(string value)
    {
        if (value.Length == 0) return null;
        var unit = SizeUnits.IndexOf(char.ToLowerInvariant(value[^1]), StringComparison.Ordinal);
        var digits = unit < 0 ? value : value[..^1];
        if (!IsNumber(digits) || digits.Length > 19) return null;

        var bytes = BigInteger.Parse(digits, CultureInfo.InvariantCulture) << (10 * (unit + 1));
        if (bytes > SizeMax) return null;
        var scale = 0;
        while (scale < SizeUnits.Length && !bytes.IsZero && (bytes & 1023).IsZero)
        {
            bytes >>= 10;
            scale++;
        }
        var number = bytes.ToString(CultureInfo.InvariantCulture);
        return scale == 0 ? number : number + SizeUnits[scale - 1];
    }

    private static string? Percent(string digits) =>
        IsNumber(digits) && digits.Length <= 3 && int.Parse(digits, CultureInfo.InvariantCulture) <= 100 ? digits + "%" : null;

    private static string? OctalMode(string value)
    {
        if (value.Length is 0 or > 5 || !value.All(digit => digit is >= '0' and <= '7')) return null;
        var bits = value.TrimStart('0');
        return bits.Length switch { 0 => "0", <= 4 => bits, _ => null };
    }

    private static bool IsNumber(string value) =>
        value.Length > 0 && value.All(char.IsAsciiDigit) && (value.Length == 1 || value[0] != '0');

    /// <summary>
    /// Colons and backslashes are refused even where they could be escaped: kernels disagree on what an escape means.
    /// </summary>
    private static bool IsPath(string value) =>
        value.StartsWith('/') && value.AsSpan().IndexOfAny(':', '\\') < 0 && IsWithinLimits(value) && PathRules.IsNormalised(value);

    private static string? InnerPath(string value)
    {
        var path = value.StartsWith('/') ? value : "/" + value;
        return value.Length > 0 && IsWithinLimits(path) && PathRules.IsNormalised(path) ? path : null;
    }

    private static bool IsWithinLimits(string path) =>
        Text.Bytes(path) <= PathRules.PathBytesMax
        && path.Split('/').All(component => Text.Bytes(component) <= PathRules.ComponentBytesMax);

    private static string? Compression(OptionRule rule, string value)
    {
        var colon = value.IndexOf(':', StringComparison.Ordinal);
        if (colon < 0) return rule.Words.Contains(value) ? value : null;
        var level = value[(colon + 1)..].TrimStart('-');
        return value[..colon] is "zlib" or "zstd" && IsNumber(level) && level.Length <= 2 ? value : null;
    }

    private static bool IsHarmless(char c) => char.IsAsciiLetterOrDigit(c) || "_./:@%+=~#-".Contains(c, StringComparison.Ordinal);

    private static bool IsText(string value) =>
        value.Length > 0 && !value.EnumerateRunes().Any(rune => Text.IsControl(rune) || Text.IsInvisible(rune) || Rune.IsWhiteSpace(rune));
}
