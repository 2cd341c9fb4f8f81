using System.Runtime.InteropServices;
using MountLedger.Bench;

// mountledger-bench [NAME] [--smoke] [--json FILE] --artifacts DIR --postgres DIR
// mountledger-bench soak [--minutes N] [--smoke] [--json FILE] --artifacts DIR --postgres DIR
// Started by `./dev bench` and `./dev soak`, as root, in a mount namespace of its own that ends with it.
var options = BenchOptions.Parse(args, out var problem);
if (options is null)
{
    Console.Error.WriteLine($"bench: {problem}");
    return 2;
}

var report = new Report(options);
await using var workplace = Workplace.Create();
var stop = new TaskCompletionSource<PosixSignal>(TaskCreationOptions.RunContinuationsAsynchronously);
using var interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Stop);
using var terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Stop);
using var hangUp = PosixSignalRegistration.Create(PosixSignal.SIGHUP, Stop);

var run = Task.Run(() => options.IsSoak ? SoakAsync() : MeasuresAsync());
if (await Task.WhenAny(run, stop.Task) == stop.Task)
{
    // The measures fail when what they measure is taken away, and begin nothing any more; nobody waits for them.
    Console.Error.WriteLine($"bench: {stop.Task.Result}: stopping what was started");
    await workplace.DisposeAsync();
    return stop.Task.Result switch { PosixSignal.SIGHUP => 128 + 1, PosixSignal.SIGINT => 128 + 2, _ => 128 + 15 };
}
var holds = await run;
// Before the end, which may fail: what was measured is not lost with it.
report.Print(Console.Out);
if (options.JsonFile is { } file) await File.WriteAllTextAsync(file, report.ToJson());
await workplace.DisposeAsync();
return holds && !report.HasFailures ? 0 : 1;

void Stop(PosixSignalContext context)
{
    context.Cancel = true;
    stop.TrySetResult(context.Signal);
}

async Task<bool> SoakAsync()
{
    try
    {
        return await Soak.RunAsync(new MeasureContext(options, workplace), report);
    }
#pragma warning disable CA1031 // What was measured before it failed is still wanted.
    catch (Exception failure)
#pragma warning restore CA1031
    {
        Failed("soak", failure);
        return false;
    }
}

async Task<bool> MeasuresAsync()
{
    foreach (var measure in Measures.All.Where(measure => options.Name is null || measure.Name == options.Name))
    {
        Console.Error.WriteLine($"bench: {measure.Name}: {measure.What}");
        try
        {
            report.Add(await measure.RunAsync(new MeasureContext(options, workplace)));
        }
#pragma warning disable CA1031 // One measure that fails is a row of the table that says so; the others are still wanted.
        catch (Exception failure)
#pragma warning restore CA1031
        {
            if (stop.Task.IsCompleted) return false;
            Failed(measure.Name, failure);
        }
    }
    return true;
}

void Failed(string name, Exception failure)
{
    if (stop.Task.IsCompleted) return;
    Console.Error.WriteLine(failure);
    report.Add([new Row(name, $"failed: {failure.Message.Split('\n')[0]}")]);
}
