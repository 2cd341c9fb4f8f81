using MountLedger.TestWorker;

// The worker alone, as a program that tests can start without the agent. On request it first makes calls of the kernel answer as an older one would:
//   mountledger-test-worker [--without CALL,…|all] worker's arguments…
//   mountledger-test-worker --without CALL,…|all --exec PROGRAM arguments…
if (args is ["--without", var calls, .. var rest])
{
    OlderKernel.Pretend(calls);
    if (rest is ["--exec", .. var command]) OlderKernel.Become(command);
    args = rest;
}
return await MountLedger.Linux.WorkerEntry.RunAsync(args);
