using MountLedger.Agent;
using MountLedger.Linux;

// mountledgerd is several programs in one file: the agent, which starts the others itself (the launcher, which has the capabilities, the
// workers, what starts and stops its own PostgreSQL), and the rebuild of projections.
return args switch
{
    ["worker", .. var rest] => await WorkerEntry.RunAsync(rest),
    ["launcher", "--", .. var rest] => await CommandLine.LaunchAsync(rest),
    [OwnPostgres.Program, .. var rest] => await OwnPostgres.RunProgramAsync(rest),
    _ => await CommandLine.RunAsync(args),
};
