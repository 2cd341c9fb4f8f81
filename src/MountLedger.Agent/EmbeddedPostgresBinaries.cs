using System.Diagnostics;
using System.Globalization;
using System.Text;

namespace MountLedger.Agent;

/// <summary>The agent's own PostgreSQL cannot be found, started or stopped. The message says what to do.</summary>
public sealed class EmbeddedPostgresException : Exception
{
    public EmbeddedPostgresException(string message, Exception? inner = null) : base(message, inner) { }
}

/// <summary>An installation of the PostgreSQL server: a directory with <c>postgres</c>, <c>initdb</c> and <c>pg_ctl</c>.</summary>
internal sealed record EmbeddedPostgresBinaries(string Directory, int Major)
{
    private const int MajorMin = 15;
    private const string DebianRoot = "/usr/lib/postgresql";

    private static readonly string[] Programs = ["postgres", "initdb", "pg_ctl"];

    public string Path(string program) => System.IO.Path.Combine(Directory, program);

    /// <summary>
    /// The newest usable installation, or the one of <paramref name="requiredMajor"/>, whose data directory cannot be opened by another. Looks into
    /// <c>PATH</c> and <c>/usr/lib/postgresql/*/bin</c>.
    /// </summary>
    /// <exception cref="EmbeddedPostgresException">There is none; names the package.</exception>
    public static async Task<EmbeddedPostgresBinaries> FindAsync(int? requiredMajor, CancellationToken cancellationToken)
    {
        var found = new List<EmbeddedPostgresBinaries>();
        foreach (var directory in Candidates())
        {
            if (await MajorOfAsync(directory, cancellationToken) is { } major) found.Add(new(directory, major));
        }
        var usable = found
            .Where(binaries => requiredMajor is { } required ? binaries.Major == required : binaries.Major >= MajorMin)
            .MaxBy(binaries => binaries.Major);
        if (usable is not null) return usable;
        var have = found.Count == 0 ? "none is installed" : $"found only {string.Join(", ", found.Select(b => $"{b.Major} in {b.Directory}"))}";
        throw new EmbeddedPostgresException(requiredMajor is { } needed
            ? $"the data directory was made by PostgreSQL {needed}, and {have}: install it (apt-get install postgresql-{needed})"
            : $"PostgreSQL {MajorMin} or newer is needed, and {have}: install it (apt-get install postgresql), or give a connection string (--postgres)");
    }

    private static IEnumerable<string> Candidates()
    {
        var path = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':', StringSplitOptions.RemoveEmptyEntries);
        var debian = System.IO.Directory.Exists(DebianRoot)
            ? System.IO.Directory.GetDirectories(DebianRoot).Select(version => System.IO.Path.Combine(version, "bin"))
            : [];
        return path.Where(System.IO.Path.IsPathRooted).Concat(debian)
            .Where(directory => Programs.All(program => File.Exists(System.IO.Path.Combine(directory, program))))
            .Distinct(StringComparer.Ordinal);
    }

    private static async Task<int?> MajorOfAsync(string directory, CancellationToken cancellationToken)
    {
        try
        {
            var result = await BoundedProcess.RunAsync(
                [System.IO.Path.Combine(directory, "postgres"), "--version"], TimeSpan.FromSeconds(10), cancellationToken);
            // postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1); betas are 19beta1
            var version = result.Output.Split(' ', StringSplitOptions.RemoveEmptyEntries).ElementAtOrDefault(2) ?? "";
            var digits = new string([.. version.TakeWhile(char.IsAsciiDigit)]);
            return result.ExitCode == 0 && int.TryParse(digits, CultureInfo.InvariantCulture, out var major) ? major : null;
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return null; // not executable: no installation
        }
    }
}

/// <summary>A helper program, by argument vector, with a clean environment, a deadline and bounded output.</summary>
internal static class BoundedProcess
{
    private const int OutputMaxChars = 64 * 1024;

    public readonly record struct Result(int ExitCode, string Output);

    /// <summary>Not started through a shell; its input is empty, and it sees no variable of the agent's but PATH.</summary>
    public static ProcessStartInfo StartInfo(IReadOnlyList<string> command)
    {
        var info = new ProcessStartInfo(command[0])
        {
            UseShellExecute = false,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            WorkingDirectory = "/",
        };
        foreach (var argument in command.Skip(1)) info.ArgumentList.Add(argument);
        info.Environment.Clear();
        info.Environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        info.Environment["LC_ALL"] = "C";
        info.Environment["TZ"] = "UTC";
        return info;
    }

    /// <returns>The exit code and what it printed (both streams); -1 when it was killed at the deadline.</returns>
    /// <exception cref="System.ComponentModel.Win32Exception">It cannot be executed.</exception>
    public static async Task<Result> RunAsync(IReadOnlyList<string> command, TimeSpan deadline, CancellationToken cancellationToken)
    {
        using var process = new Process { StartInfo = StartInfo(command) };
        var output = new BoundedText();
        process.OutputDataReceived += (_, line) => output.Add(line.Data);
        process.ErrorDataReceived += (_, line) => output.Add(line.Data);
        process.Start();
        process.StandardInput.Close();
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        limit.CancelAfter(deadline);
        try
        {
            await process.WaitForExitAsync(limit.Token);
            return new Result(process.ExitCode, output.ToString());
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
            cancellationToken.ThrowIfCancellationRequested();
            return new Result(-1, $"{output}no end within {deadline.TotalSeconds:0} s");
        }
    }

    /// <summary>The first lines of an output, safe to fill from several threads.</summary>
    public sealed class BoundedText
    {
        private readonly StringBuilder text = new();

        public void Add(string? line)
        {
            if (line is null) return;
            lock (text)
            {
                if (text.Length + line.Length < OutputMaxChars) text.Append(line).Append('\n');
            }
        }

        public override string ToString()
        {
            lock (text) return text.ToString();
        }
    }
}
