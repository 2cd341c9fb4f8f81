using MountLedger.Agent;
using MountLedger.Linux;

#if KILL_POINTS
KillPointSetting.Arm();
#endif

// mountledgerd is three programs in one file: the agent, the worker that it starts itself, and the rebuild of projections.
return args switch
{
    ["worker", .. var rest] => await WorkerEntry.RunAsync(rest),
    _ => await CommandLine.RunAsync(args),
};
