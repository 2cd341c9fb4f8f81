namespace MountLedger.Agent;

/// <summary>The log files of the agent's own PostgreSQL, which begins a new one at 4 MB: the newest are kept. They are its account's, in a directory of the agent's group.</summary>
internal sealed class EmbeddedPostgresLogs : IAsyncDisposable
{
    private const int FilesMax = 5;
    private static readonly TimeSpan TrimInterval = TimeSpan.FromMinutes(1);

    private readonly string directory;
    private readonly Timer trimmer;

    /// <summary>Trims once a minute until it is disposed of.</summary>
    public EmbeddedPostgresLogs(string directory)
    {
        this.directory = directory;
        trimmer = new Timer(_ => Trim(), null, TrimInterval, TrimInterval);
    }

    /// <summary>Removes all but the newest. Never throws.</summary>
    public void Trim()
    {
        try
        {
            foreach (var file in Files().Skip(FilesMax)) File.Delete(file);
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            // Tried again a minute later; a log is not worth more.
        }
    }

    /// <summary>The newest file's text; empty when there is none, or it cannot be read.</summary>
    public string Newest()
    {
        try
        {
            return Files().FirstOrDefault() is { } file ? File.ReadAllText(file) : "";
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }

    public ValueTask DisposeAsync() => trimmer.DisposeAsync();

    private IEnumerable<string> Files() => Directory.Exists(directory)
        ? Directory.GetFiles(directory, "server-*.log").OrderDescending(StringComparer.Ordinal)
        : [];
}
