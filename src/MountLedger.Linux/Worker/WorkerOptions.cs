using System.Globalization;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace MountLedger.Linux;

/// <summary>How workers are started and how long the agent waits for them.</summary>
/// <param name="FileName">Absolute path of the program; its own arguments follow <paramref name="PrefixArguments"/>.</param>
/// <param name="PrefixArguments">What comes before the worker's flags, such as <c>worker</c>, or a DLL and <c>worker</c>.</param>
/// <param name="Roots">Directories (absolute, without links) below which mountpoints may lie.</param>
/// <param name="RunDirectory">Where a record of each running worker is kept, so that a later agent finds it.</param>
public sealed record WorkerOptions(
    string FileName, IReadOnlyList<string> PrefixArguments, IReadOnlyList<string> Roots, string RunDirectory)
{
    /// <summary>How long an operation may take before its worker is given up.</summary>
    public TimeSpan OperationDeadline { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>Operations at once on filesystems that may block; further ones wait.</summary>
    public int SparesMax { get; init; } = 16;

    /// <summary>Workers that are kept for the next such operation.</summary>
    public int IdleSparesMax { get; init; } = 2;

    /// <summary>How long a look at what may block may take before the mount table has to do.</summary>
    public TimeSpan LookDeadline { get; init; } = TimeSpan.FromSeconds(2);

    /// <summary>Where mount helpers are looked for unless something else is said.</summary>
    public static readonly IReadOnlyList<string> HelperDirectoriesDefault =
        ["/sbin", "/usr/sbin", "/usr/local/sbin", "/usr/bin", "/bin", "/usr/local/bin"];

    /// <summary>How long a mount helper may run before it is killed; at most four fifths of <see cref="OperationDeadline"/>.</summary>
    public TimeSpan HelperDeadline { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>Where mount helpers are, in order.</summary>
    public IReadOnlyList<string> HelperDirectories { get; init; } = HelperDirectoriesDefault;

    /// <summary>Where the worker reads secrets, at the moment a helper needs one; null: there are none.</summary>
    public string? SecretsDirectory { get; init; }

    /// <summary>Below it helpers mount; see <see cref="Staging"/>.</summary>
    internal string StagingDirectory => Path.Combine(RunDirectory, "staging");

    /// <summary>How long a new worker may take to answer for the first time.</summary>
    public TimeSpan StartDeadline { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>How long a killed worker may take to be gone before that is reported.</summary>
    public TimeSpan DeathDeadline { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>Workers that were given up and that the kernel does not let go of; with that many of a kind, new operations that need that kind are refused.</summary>
    public int WrittenOffMax { get; init; } = 8;

    /// <summary>Mode and owner of directories that are made for mountpoints.</summary>
    public DirectoryAttributes Directories { get; init; } = DirectoryAttributes.Default;

    public ILogger Logger { get; init; } = NullLogger.Instance;

    /// <summary>Who starts the workers, and opens what takes a capability; null: this process, with what it is allowed to.</summary>
    public Launcher? Launcher { get; init; }

    /// <summary>The arguments of a worker whose channel is its descriptor <see cref="ProgramStart.Channel"/>.</summary>
    internal IReadOnlyList<string> Arguments()
    {
        // The answer that a helper took too long has to come before the worker itself has taken too long.
        var helperMs = (long)Math.Min(HelperDeadline.TotalMilliseconds, OperationDeadline.TotalMilliseconds * 0.8);
        List<string> arguments = [.. PrefixArguments, WorkerEntry.ChannelFlag, ProgramStart.Channel.ToString(CultureInfo.InvariantCulture)];
        foreach (var root in Roots) arguments.AddRange([WorkerEntry.RootFlag, root]);
        arguments.AddRange([WorkerEntry.DirectoryModeFlag, Convert.ToString(Directories.Mode, 8)]);
        if (Directories.Owner is { } owner) arguments.AddRange([WorkerEntry.DirectoryOwnerFlag, $"{owner.Uid}:{owner.Gid}"]);
        arguments.AddRange([WorkerEntry.StagingFlag, StagingDirectory]);
        arguments.AddRange([WorkerEntry.HelperDeadlineFlag, helperMs.ToString(CultureInfo.InvariantCulture)]);
        if (SecretsDirectory is { } secrets) arguments.AddRange([WorkerEntry.SecretsFlag, secrets]);
        foreach (var directory in HelperDirectories) arguments.AddRange([WorkerEntry.HelperDirectoryFlag, directory]);
        return arguments;
    }

    /// <summary>
    /// The program that is running, as a worker of itself: <c>mountledgerd worker</c>. When the running program is another
    /// one (<c>dotnet mountledgerd.dll</c>, a test, an embedding application), <c>mountledgerd</c> beside the application.
    /// </summary>
    public static WorkerOptions ForThisProgram(IReadOnlyList<string> roots, string runDirectory = HostLock.DefaultDirectory)
    {
        const string Program = "mountledgerd";
        var running = Environment.ProcessPath;
        var file = Path.GetFileName(running) == Program ? running! : Path.Combine(AppContext.BaseDirectory, Program);
        return new WorkerOptions(file, ["worker"], roots, runDirectory);
    }
}
