using MountLedger.Linux;

namespace MountLedger.Agent;

/// <summary>The launcher as a part of <c>mountledgerd</c>: what it starts for the agent comes from the settings, never from the agent.</summary>
internal static class LauncherProgram
{
    public static Task<int> RunAsync(AgentSettings settings)
    {
        // What the agent may no longer do where others own the directory above. A worker says what is wrong with a root that is missing.
        foreach (var directory in settings.Roots.Prepend(settings.StateDir))
        {
            try
            {
                Directory.CreateDirectory(directory);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                Console.Error.WriteLine($"launcher: {directory} cannot be made: {e.Message}");
            }
        }
        LauncherEntry.Run(ProgramStart.Channel, settings.Workers(), new Dictionary<LaunchVerb, IReadOnlyList<string>>
        {
            [LaunchVerb.StartPostgres] = [OwnPostgres.Program, OwnPostgres.StartWord, settings.StateDir],
            [LaunchVerb.StopPostgres] = [OwnPostgres.Program, OwnPostgres.StopWord, settings.StateDir],
        });
        return Task.FromResult(0);
    }
}
