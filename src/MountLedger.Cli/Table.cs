using System.Text;

namespace MountLedger.Cli;

/// <summary>Rows of short texts under headers.</summary>
internal sealed class Table(params string[] headers)
{
    private readonly List<string[]> _rows = [];

    public IReadOnlyList<string> Headers => headers;

    public IReadOnlyList<string[]> Rows => _rows;

    public void Add(params string[] cells) => _rows.Add([.. cells.Select(Text.OneLine)]);

    /// <summary>
    /// Aligned columns; no blanks at the ends of lines. An empty cell is <c>-</c>, so that awk counts the same fields in
    /// each line. <paramref name="withHeaders"/>: false for the later pages of a stream.
    /// </summary>
    public string Plain(bool withHeaders = true)
    {
        IEnumerable<string[]> lines = withHeaders ? _rows.Prepend(headers) : _rows;
        var widths = headers
            .Select((header, column) => _rows.Select(row => Cell(row, column).Length).Append(header.Length).Max())
            .ToArray();
        var text = new StringBuilder();
        foreach (var line in lines)
        {
            for (var column = 0; column < headers.Length; column++)
            {
                var cell = Cell(line, column);
                text.Append(column == headers.Length - 1 ? cell : cell.PadRight(widths[column] + 2));
            }

            text.Append('\n');
        }

        return text.ToString();
    }

    private static string Cell(string[] row, int column) => row[column].Length == 0 ? "-" : row[column];
}
