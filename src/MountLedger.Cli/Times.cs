using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;

namespace MountLedger.Cli;

/// <summary>Durations (<c>30s</c>) and times (RFC 3339, or so long ago: <c>10m</c>) on the command line.</summary>
internal static class Times
{
    private static readonly TimeSpan _waitMax = TimeSpan.FromSeconds(InputRules.WaitSecondsMax);

    private static readonly string[] _rfc3339 = [.. Rfc3339()];

    /// <summary>A number with its unit: ms, s, m, h or d; a bare number is seconds. Null: it is none of that.</summary>
    public static TimeSpan? Duration(string text)
    {
        var digits = text.Length;
        while (digits > 0 && !char.IsAsciiDigit(text[digits - 1]))
            digits--;
        if (digits > 12
            || !double.TryParse(text.AsSpan(0, digits), NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var number))
        {
            return null;
        }

        double? seconds = text[digits..] switch
        {
            "ms" => number / 1000,
            "" or "s" => number,
            "m" => number * 60,
            "h" => number * 3600,
            "d" => number * 86400,
            _ => null,
        };
        return seconds is { } s && s <= TimeSpan.FromDays(36500).TotalSeconds ? TimeSpan.FromSeconds(s) : null;
    }

    /// <summary>For <c>--wait</c>.</summary>
    public static TimeSpan? Wait(ArgumentResult result)
    {
        var text = result.Tokens.Count == 1 ? result.Tokens[0].Value : "";
        if (Duration(text) is { } wait && wait <= _waitMax)
            return wait;
        result.AddError($"--wait: '{text}' is no duration up to 1h — write it like 500ms, 30s or 2m");
        return null;
    }

    /// <summary>An option such as <c>--since</c> or <c>--at</c>.</summary>
    public static Option<DateTimeOffset?> InstantOption(string name, string description, TimeProvider clock) => new(name)
    {
        Description = description,
        HelpName = "TIME",
        CustomParser = result => Instant(result, name, clock),
    };

    /// <summary>As the agent is told a time: UTC, to the microsecond.</summary>
    public static string? Stamp(DateTimeOffset? at) =>
        at?.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss.FFFFFF'Z'", CultureInfo.InvariantCulture);

    /// <summary><paramref name="option"/> is named in the error.</summary>
    private static DateTimeOffset? Instant(ArgumentResult result, string option, TimeProvider clock)
    {
        var text = result.Tokens.Count == 1 ? result.Tokens[0].Value : "";
        if (DateTimeOffset.TryParseExact(
                text, _rfc3339, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal, out var at))
        {
            return at.ToUniversalTime();
        }

        var now = clock.GetUtcNow();
        // A bare number could be a year as well as seconds, so a unit is asked for here.
        if (text.Length > 0 && !char.IsAsciiDigit(text[^1]) && Duration(text) is { } ago && ago < now - DateTimeOffset.UnixEpoch)
            return now - ago;
        result.AddError($"{option}: '{text}' is no time — write it like 2026-01-31T12:00:00Z, or 10m for ten minutes ago");
        return null;
    }

    /// <summary>RFC 3339 section 5.6: seconds are not optional, the offset neither, the fraction is.</summary>
    private static IEnumerable<string> Rfc3339()
    {
        foreach (var separator in "T ")
        {
            foreach (var fraction in (string[])["", ".FFFFFFF"])
            {
                yield return $"yyyy-MM-dd'{separator}'HH:mm:ss{fraction}'Z'";
                yield return $"yyyy-MM-dd'{separator}'HH:mm:ss{fraction}zzz";
            }
        }
    }
}
