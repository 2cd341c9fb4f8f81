using System.Globalization;
using System.Text;

namespace MountLedger.Cli;

/// <summary>How values are written for people.</summary>
internal static class Text
{
    /// <summary>
    /// Control characters as <c>\xNN</c>: what comes from a helper or another user must not move the cursor or forge a line.
    /// </summary>
    public static string OneLine(string text)
    {
        if (!text.Any(char.IsControl))
            return text;
        var safe = new StringBuilder(text.Length + 16);
        foreach (var c in text)
        {
            if (char.IsControl(c))
                safe.Append(CultureInfo.InvariantCulture, $"\\x{(int)c:x2}");
            else
                safe.Append(c);
        }

        return safe.ToString();
    }

    public static string Cut(string text, int charactersMax) =>
        text.Length <= charactersMax ? text : text[..(charactersMax - 1)] + "…";

    /// <summary>RFC 3339, UTC, milliseconds.</summary>
    public static string Time(DateTimeOffset at) =>
        at.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss.fff'Z'", CultureInfo.InvariantCulture);

    /// <summary>An enum as everywhere in MountLedger: kebab case.</summary>
    public static string Name<T>(T value) where T : struct, Enum =>
        System.Text.Json.JsonNamingPolicy.KebabCaseLower.ConvertName(value.ToString());

    public static string Count(int count, string noun) =>
        string.Create(CultureInfo.InvariantCulture, $"{count} {noun}{(count == 1 ? "" : "s")}");
}
