namespace MountLedger.Linux;

/// <summary>How mount helpers are run.</summary>
/// <param name="StagingDirectory">Below it each worker has a private mount on which its helpers mount.</param>
/// <param name="Directories">Where the programs are, in order.</param>
/// <param name="Deadline">For one helper, from its start to its end.</param>
internal sealed record HelperOptions(string StagingDirectory, IReadOnlyList<string> Directories, TimeSpan Deadline);
