using Microsoft.Win32.SafeHandles;

namespace MountLedger.Cli;

/// <summary>
/// What a run has around it: its output, environment and clock. Tests run the client in their own process with others.
/// </summary>
internal sealed record Surroundings
{
    public required Stream Out { get; init; }

    public required TextWriter Error { get; init; }

    /// <summary>Whether tables may have lines and colours: stdout is a terminal that wants them.</summary>
    public bool Rich { get; init; }

    /// <summary>Columns of the terminal.</summary>
    public int Width { get; init; } = 80;

    public Func<string, string?> Variable { get; init; } = static _ => null;

    public TimeProvider Clock { get; init; } = TimeProvider.System;

    /// <summary>How much longer than the wait of a request its answer may take before the agent counts as hung.</summary>
    public TimeSpan AnswerMargin { get; init; } = TimeSpan.FromSeconds(15);

    public static Surroundings OfProcess()
    {
        var rich = !Console.IsOutputRedirected
            && string.IsNullOrEmpty(Environment.GetEnvironmentVariable("NO_COLOR"))
            && Environment.GetEnvironmentVariable("TERM") is { Length: > 0 } and not "dumb";
        return new Surroundings
        {
            Out = StandardOutput(),
            Error = Console.Error,
            Rich = rich,
            Width = rich ? Math.Clamp(Console.WindowWidth, 40, 1000) : 80,
            Variable = Environment.GetEnvironmentVariable,
        };
    }

    /// <summary>
    /// The console's own stream swallows EPIPE, so `mountledger history | head -1` would read the whole history for
    /// nobody. A plain descriptor says so; but on a seekable file it would write at its own offset and not move the
    /// shared one, so files keep the console's stream.
    /// </summary>
    private static Stream StandardOutput()
    {
        try
        {
            var direct = new FileStream(new SafeFileHandle(1, ownsHandle: false), FileAccess.Write, bufferSize: 0);
            return direct.CanSeek ? Console.OpenStandardOutput() : direct;
        }
        catch (Exception e) when (e is IOException or ArgumentException or UnauthorizedAccessException)
        {
            return Console.OpenStandardOutput();
        }
    }
}
