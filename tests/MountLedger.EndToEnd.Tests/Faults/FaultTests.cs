using System.Diagnostics;
using System.Globalization;
using Xunit.Abstractions;

namespace MountLedger.EndToEnd;

/// <summary>
/// Each system call that a mount and an unmount make is made to fail, one at a time, at each place, with each error that is
/// plausible for it. The calls come from a trace of the real path, so a call that is new in it is covered by itself.
/// </summary>
[Collection(AgentSuite.Name)]
public sealed class FaultTests(AgentSuite suite, ITestOutputHelper output)
{
    private const string SeedVariable = "MOUNTLEDGER_TEST_FAULT_SEED";
    private const int SampleSize = 40;
    private const int HelperSampleSize = 12;

    [RootFact]
    public Task After_a_failed_call_ledger_kernel_and_answer_agree_and_the_next_request_works() => SampleAsync(bench => bench.Kinds(), SampleSize);

    [RootFact]
    [Trait("Category", "Long")]
    public Task After_each_failed_call_ledger_kernel_and_answer_agree_and_the_next_request_works() =>
        RunAsync(bench => bench.Kinds(), faults => faults, "all of them");

    [RootFact]
    [Trait("Category", "Long")]
    public Task After_a_failed_call_of_a_helpers_mount_they_agree_and_the_next_request_works() => SampleAsync(bench => bench.HelperKinds(), HelperSampleSize);

    [RootFact]
    [Trait("Category", "Long")]
    public Task After_each_failed_call_of_a_helpers_mount_they_agree_and_the_next_request_works() =>
        RunAsync(bench => bench.HelperKinds(), faults => faults, "all of them");

    private async Task SampleAsync(Func<FaultBench, IReadOnlyList<FaultKind>> kinds, int size)
    {
        var seed = Environment.GetEnvironmentVariable(SeedVariable) is { Length: > 0 } given
            ? int.Parse(given, CultureInfo.InvariantCulture) : Random.Shared.Next();
        output.WriteLine($"seed {seed}: set {SeedVariable} to repeat this sample");
        await RunAsync(kinds, faults => [.. Shuffled(faults, seed).Take(size)], $"seed {seed} ({SeedVariable})");
    }

    private async Task RunAsync(
        Func<FaultBench, IReadOnlyList<FaultKind>> kinds, Func<IReadOnlyList<Fault>, IReadOnlyList<Fault>> choose, string which)
    {
        await using var bench = await FaultBench.StartAsync(suite);
        var all = await bench.AllFaultsAsync(kinds(bench));
        var chosen = choose(all);
        var started = Stopwatch.GetTimestamp();
        var fired = 0;
        var failures = new List<string>();
        foreach (var fault in chosen)
        {
            try
            {
                if (await bench.RunAsync(fault)) fired++;
            }
            catch (Xunit.Sdk.XunitException failure)
            {
                failures.Add(failure.Message);
                if (failures.Count == 12) break;
            }
        }
        output.WriteLine($"{fired} of {chosen.Count} faults took place, of {all.Count} that there are, in {Stopwatch.GetElapsedTime(started).TotalSeconds:0} s");
        foreach (var (answer, count) in bench.Answers) output.WriteLine($"{count,5} {answer}");

        Assert.True(failures.Count == 0, $"{which}: {failures.Count} failed\n\n{string.Join("\n\n", failures)}");
        Assert.True(fired > chosen.Count * 9 / 10, $"{which}: only {fired} of {chosen.Count} faults took place");
        Assert.Contains(bench.Answers.Keys, answer => answer.Contains("mount-failed", StringComparison.Ordinal));
        // A sample need not have met a call that an unmount cannot do without.
        if (chosen.Count == all.Count) Assert.Contains(bench.Answers.Keys, answer => answer.Contains("unmount-failed", StringComparison.Ordinal));
        Assert.Equal(0, await bench.Agent.CountAsync("select count(*) from mountledger.mountpoint where action <> 'none'"));
    }

    private static Fault[] Shuffled(IReadOnlyList<Fault> faults, int seed)
    {
        var shuffled = faults.ToArray();
        new Random(seed).Shuffle(shuffled);
        return shuffled;
    }
}
