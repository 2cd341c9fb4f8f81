using System.Diagnostics;
using System.Globalization;
using MountLedger.Simulation;

// Runs many seeds and says which of them failed, or one seed and shows all that happened in it.
var seeds = 10_000L;
var from = 1UL;
ulong? one = null;
var failuresMax = 5;
var showsDigest = false;
var runsMutations = false;
string? mutant = null;
for (var i = 0; i < args.Length; i++)
{
    var isLast = i + 1 >= args.Length;
    switch (args[i])
    {
        case "--seeds" when !isLast && long.TryParse(args[i + 1], CultureInfo.InvariantCulture, out var count) && count > 0: seeds = count; i++; break;
        case "--from" when !isLast && ulong.TryParse(args[i + 1], CultureInfo.InvariantCulture, out var first): from = first; i++; break;
        case "--seed" when !isLast && ulong.TryParse(args[i + 1], CultureInfo.InvariantCulture, out var seed): one = seed; i++; break;
        case "--failures" when !isLast && int.TryParse(args[i + 1], CultureInfo.InvariantCulture, out var most) && most > 0: failuresMax = most; i++; break;
        case "--digest": showsDigest = true; break;
        case "--mutations": runsMutations = true; break;
        case "--mutant" when !isLast: mutant = args[++i]; break;
        default:
            Console.Error.WriteLine(
                $"""
                there is no '{args[i]}' here, or its number is missing.
                usage: simulate [--seeds N] [--from S] [--failures N]   N seeds from S on; ends after N failures (default {failuresMax})
                       simulate --seed S                                one seed, with its trace
                       simulate --mutations [--seeds N]                 plants mistakes in a copy of the core, and says which seed finds each
                """);
            return 2;
    }
}

if (mutant is not null) return Mutations.RunOne(mutant, seeds);
if (runsMutations) return Mutations.Run(seeds);

if (one is { } single)
{
    var run = World.Run(single, isTraced: true);
    foreach (var line in run.Trace) Console.WriteLine(line);
    Console.WriteLine($"seed {run.Seed}: {run.Violation ?? "everything held"} ({run.Steps} steps, digest {run.Digest:x16})");
    return run.Violation is null ? 0 : 1;
}

var clock = Stopwatch.StartNew();
var sum = Sweep.Run(from, seeds, failuresMax, workers: Environment.ProcessorCount);
foreach (var failure in sum.Failures)
{
    Console.WriteLine($"seed {failure.Seed}: {failure.Violation}");
    Console.WriteLine($"  replay: ./dev simulate --seed {failure.Seed}");
}
Console.WriteLine(
    $"{sum.Seeds} seeds, {sum.Failures.Count} failed, {sum.Answers} answers, {sum.Commits} commits, {sum.Steps} steps in {clock.Elapsed.TotalSeconds:0.0} s");
if (showsDigest) Console.WriteLine($"digest {sum.Digest:x16}");
return sum.Failures.Count == 0 ? 0 : 1;
