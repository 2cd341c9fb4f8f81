using System.Text;
using Spectre.Console;

namespace MountLedger.Cli;

/// <summary>Everything that goes to stdout. UTF-8 without a mark, lines end in a newline.</summary>
internal sealed class Output(Surroundings surroundings)
{
    private static readonly byte[] _newline = "\n"u8.ToArray();

    /// <summary>The agent's JSON, byte for byte, with a newline at its end.</summary>
    public async Task WriteDocumentAsync(ReadOnlyMemory<byte> json)
    {
        await surroundings.Out.WriteAsync(json);
        if (json.IsEmpty || json.Span[^1] != (byte)'\n')
            await surroundings.Out.WriteAsync(_newline);
        await surroundings.Out.FlushAsync();
    }

    /// <summary>Lines as they are; the caller has made the values safe (<see cref="Text.OneLine"/>).</summary>
    public async Task WriteAsync(string text)
    {
        await surroundings.Out.WriteAsync(Encoding.UTF8.GetBytes(text));
        await surroundings.Out.FlushAsync();
    }

    public Task WriteLineAsync(string line) => WriteAsync(Text.OneLine(line) + "\n");

    /// <summary>A table: with lines and colours on a terminal, else columns of plain text, two spaces apart.</summary>
    /// <summary>Somebody looks at it: lines, colours and progress are welcome.</summary>
    public bool IsTerminal => surroundings.Rich;

    public Task WriteTableAsync(Table table, bool withHeaders = true) =>
        WriteAsync(surroundings.Rich ? Rich(table) : table.Plain(withHeaders));

    private string Rich(Table table)
    {
        var text = new StringWriter { NewLine = "\n" };
        var console = AnsiConsole.Create(new AnsiConsoleSettings
        {
            Ansi = AnsiSupport.Yes,
            ColorSystem = ColorSystemSupport.Standard,
            Interactive = InteractionSupport.No,
            Out = new TerminalOutput(text, surroundings.Width),
        });
        var drawn = new Spectre.Console.Table().Border(TableBorder.Rounded).BorderStyle(new Style(Color.Grey));
        foreach (var header in table.Headers)
        {
            drawn.AddColumn(new TableColumn(new Spectre.Console.Text(header, new Style(decoration: Decoration.Bold))));
        }

        foreach (var row in table.Rows)
        {
            drawn.AddRow(row.Select(static cell => new Spectre.Console.Text(cell, StyleOf(cell))));
        }

        console.Write(drawn);
        return text.ToString();
    }

    /// <summary>Phases and outcomes carry a colour wherever they stand.</summary>
    private static Style StyleOf(string cell) => cell switch
    {
        "mounted" or "up" => new Style(Color.Green),
        "failed" or "uncertain" or "down" or "mount_failed" or "unmount_failed" or "operation_uncertain" => new Style(Color.Red),
        "mounting" or "unmounting" or "drift_detected" => new Style(Color.Yellow),
        _ => Style.Plain,
    };

    private sealed class TerminalOutput(TextWriter writer, int width) : IAnsiConsoleOutput
    {
        public TextWriter Writer => writer;

        public bool IsTerminal => true;

        public int Width => width;

        public int Height => 100;

        public void SetEncoding(Encoding encoding)
        {
            // The text is encoded as UTF-8 where it leaves (WriteAsync).
        }
    }
}
