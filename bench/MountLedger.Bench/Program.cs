using MountLedger.Bench;

// mountledger-bench [NAME] [--smoke] [--json FILE] --artifacts DIR --postgres DIR
// Started by `./dev bench`, as root, in a mount namespace of its own that ends with it.
var options = BenchOptions.Parse(args, out var problem);
if (options is null)
{
    Console.Error.WriteLine($"bench: {problem}");
    return 2;
}

var report = new Report(options);
await using (var workplace = Workplace.Create())
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
            Console.Error.WriteLine(failure);
            report.Add([new Row(measure.Name, $"failed: {failure.Message.Split('\n')[0]}")]);
        }
    }
}
report.Print(Console.Out);
if (options.JsonFile is { } file) await File.WriteAllTextAsync(file, report.ToJson());
return report.HasFailures ? 1 : 0;
