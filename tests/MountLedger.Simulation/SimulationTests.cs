using System.Diagnostics;

namespace MountLedger.Simulation;

/// <summary>
/// The core under everything that can go wrong around it. A seed that fails here is replayed, with all that happened in it, by
/// <c>./dev simulate --seed S</c>.
/// </summary>
public sealed class SimulationTests
{
    [Theory]
    [InlineData(1)]
    [InlineData(501)]
    public void In_a_thousand_runs_ledger_and_kernel_agree_whatever_dies(ulong from) => Run(from, seeds: 500);

    [Theory]
    [Trait("Category", "Long")]
    [MemberData(nameof(Thousands))]
    public void In_ten_thousand_runs_ledger_and_kernel_agree_whatever_dies(ulong from) => Run(from, seeds: 1_000);

    public static TheoryData<ulong> Thousands() => [.. Enumerable.Range(1, 10).Select(thousand => (ulong)thousand * 1_000)];

    [Fact]
    public void The_same_seed_is_the_same_run()
    {
        for (var seed = 1UL; seed <= 100; seed++)
        {
            var (first, second) = (World.Run(seed), World.Run(seed, isTraced: true));
            Assert.Equal((first.Digest, first.Steps, first.Answered), (second.Digest, second.Steps, second.Answered));
        }
    }

    [Fact]
    public void The_same_seed_is_the_same_run_in_another_process()
    {
        // String hashes differ from process to process: nothing may depend on them.
        Assert.Equal(DigestOfAnotherProcess(), DigestOfAnotherProcess());
    }

    [Fact]
    public void Every_planted_mistake_still_fits_the_core()
    {
        var root = Mutations.FindRoot();
        var copy = Directory.CreateTempSubdirectory("mountledger-mutants-").FullName;
        try
        {
            Mutations.Copy(Path.Combine(root, "src/MountLedger"), Path.Combine(copy, "src/MountLedger"));
            var planted = Directory.GetFiles(Path.Combine(root, "tests/MountLedger.Simulation/mutations"), "*.mutation");
            foreach (var mutation in planted) Mutations.Plant(mutation, copy);
            Assert.True(planted.Length >= 10);
        }
        finally
        {
            Directory.Delete(copy, recursive: true);
        }
    }

    [Fact]
    public void A_run_does_something()
    {
        var sum = Sweep.Run(from: 1, seeds: 200, failuresMax: 1, workers: 2);
        Assert.True(sum.Commits > 1_000 && sum.Answers > 1_000, $"{sum.Commits} commits, {sum.Answers} answers in {sum.Seeds} runs");
    }

    private static void Run(ulong from, long seeds)
    {
        var sum = Sweep.Run(from, seeds, failuresMax: 3, workers: Environment.ProcessorCount);
        Assert.True(
            sum.Failures.Count == 0,
            string.Join('\n', sum.Failures.Select(failure => $"seed {failure.Seed}: {failure.Violation}\n  replay: ./dev simulate --seed {failure.Seed}")));
        Assert.Equal(seeds, sum.Seeds);
    }

    private static string DigestOfAnotherProcess()
    {
        var start = new ProcessStartInfo(Environment.ProcessPath!, [typeof(World).Assembly.Location, "--seeds", "60", "--digest"])
        {
            RedirectStandardOutput = true,
        };
        using var process = Process.Start(start)!;
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
        return output.Split('\n').Single(line => line.StartsWith("digest ", StringComparison.Ordinal));
    }
}
