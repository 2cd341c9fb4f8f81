// The worker alone, as a program that tests can start without the agent.
return await MountLedger.Linux.WorkerEntry.RunAsync(args);
