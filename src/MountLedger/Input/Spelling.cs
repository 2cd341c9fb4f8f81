namespace MountLedger;

/// <summary>Which of some names was probably meant.</summary>
internal static class Spelling
{
    private const int MistakesMax = 2;
    private const int LengthMax = 64;

    /// <summary>The known name with the fewest mistakes in it (a letter too many, missing, wrong, or two in the wrong order), or null when none is near.</summary>
    public static string? Nearest(string written, IEnumerable<string> known)
    {
        if (written.Length is 0 or > LengthMax) return null;
        var nearest = known.Where(name => name.Length <= LengthMax).Select(name => (Name: name, Mistakes: Mistakes(written, name)))
            .OrderBy(candidate => candidate.Mistakes).ThenBy(candidate => candidate.Name, StringComparer.Ordinal).FirstOrDefault();
        return nearest.Name is not null && nearest.Mistakes <= Math.Min(MistakesMax, written.Length / 2) ? nearest.Name : null;
    }

    /// <summary>Damerau and Levenshtein's distance, as far as it is next to each other.</summary>
    private static int Mistakes(string written, string meant)
    {
        var rows = new int[written.Length + 1, meant.Length + 1];
        for (var i = 0; i <= written.Length; i++) rows[i, 0] = i;
        for (var j = 0; j <= meant.Length; j++) rows[0, j] = j;
        for (var i = 1; i <= written.Length; i++)
        {
            for (var j = 1; j <= meant.Length; j++)
            {
                var wrong = written[i - 1] == meant[j - 1] ? 0 : 1;
                rows[i, j] = Math.Min(Math.Min(rows[i - 1, j] + 1, rows[i, j - 1] + 1), rows[i - 1, j - 1] + wrong);
                if (i > 1 && j > 1 && written[i - 1] == meant[j - 2] && written[i - 2] == meant[j - 1])
                    rows[i, j] = Math.Min(rows[i, j], rows[i - 2, j - 2] + 1);
            }
        }
        return rows[written.Length, meant.Length];
    }
}
