using MountLedger.Cli.Verbs;

namespace MountLedger.Cli;

/// <summary>mountledger, the client: talks to the agent of this host over its unix socket, and knows no database and no syscall.</summary>
internal static class Program
{
    private static Task<int> Main(string[] args) => RunAsync(args, Surroundings.OfProcess());

    /// <summary>One run of the client; returns the exit code (<see cref="ExitCode"/>).</summary>
    internal static Task<int> RunAsync(string[] args, Surroundings surroundings) =>
        CommandLine.RunAsync(
            args,
            surroundings,
            MountVerb.Define,
            UnmountVerb.Define,
            RemountVerb.Define,
            LsVerb.Define,
            StatusVerb.Define,
            HistoryVerb.Define,
            StateVerb.Define,
            HostVerb.Define,
            DriftVerb.Define,
            ReconcileVerb.Define,
            PauseVerb.DefinePause,
            PauseVerb.DefineResume,
            DoctorVerb.Define);
}
