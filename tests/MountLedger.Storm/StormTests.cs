using System.Text;
using System.Text.RegularExpressions;

namespace MountLedger.Storm;

/// <summary>The storm as a test, and what keeps its kill points out of what is shipped.</summary>
public sealed partial class StormTests
{
    private const int Kills = 30;
    private const int KillsMax = 60;

    [RootFact]
    [Trait("Category", "Long")]
    public async Task Whoever_is_killed_wherever_ledger_and_kernel_agree_afterwards()
    {
        var seed = Random.Shared.Next(1, 1_000_000);
        var result = await Storm.RunAsync(Kills, seed, _ => { }, KillsMax);

        Assert.True(result.Violations.Count == 0, StormReport.Of(result));
        Assert.True(result.Kills >= Kills && result.AtPoints >= Storm.AtPointsMin(Kills), StormReport.Of(result));
        Assert.True(result.PairsBetweenKills >= Storm.PairsBetweenKillsMin, StormReport.Of(result));
    }

    [Fact]
    public void Every_point_of_the_sources_is_in_the_plan()
    {
        var root = FindRoot();
        var named = Directory.EnumerateFiles(Path.Combine(root, "src"), "*.cs", SearchOption.AllDirectories)
            .Where(file => !Path.GetRelativePath(root, file).Split('/').Any(part => part is "bin" or "obj"))
            .SelectMany(file => Calls().Matches(File.ReadAllText(file)))
            .SelectMany(call => Names().Matches(call.Value).Select(name => name.Groups[1].Value)).Order().ToArray();

        Assert.Equal(named, KillPlan.Points.Select(point => point.Point).Where(point => !point.Contains("-append-", StringComparison.Ordinal)).Order());
    }

    [Fact]
    public void The_shipped_program_has_no_kill_points()
    {
        // What `./dev build` makes, in one file; the test build beside it shows that such a search finds them where they are.
        var shipped = Path.Combine(FindRoot(), "artifacts/mountledgerd");
        Assert.True(File.Exists(shipped), $"{shipped} is not there: run ./dev build");

        foreach (var word in (string[])["MOUNTLEDGER_KILL_POINT", "worker-directories-made", "settle-before-quiesce", "start-epoch-kept"])
        {
            Assert.Contains(TestBuild(), assembly => Holds(assembly, word));
            Assert.False(Holds(File.ReadAllBytes(shipped), word), $"artifacts/mountledgerd knows {word}");
        }
    }

    private static IEnumerable<byte[]> TestBuild() =>
        ((string[])["MountLedger.dll", "MountLedger.Linux.dll", "mountledgerd.dll"]).Select(name => File.ReadAllBytes(Path.Combine(AppContext.BaseDirectory, name)));

    /// <summary>Strings of a program are stored as UTF-16, names as UTF-8.</summary>
    private static bool Holds(byte[] program, string word) =>
        program.AsSpan().IndexOf(Encoding.Unicode.GetBytes(word)) >= 0 || program.AsSpan().IndexOf(Encoding.UTF8.GetBytes(word)) >= 0;

    private static string FindRoot()
    {
        for (var directory = new DirectoryInfo(AppContext.BaseDirectory); directory is not null; directory = directory.Parent)
        {
            if (File.Exists(Path.Combine(directory.FullName, "MountLedger.sln"))) return directory.FullName;
        }
        throw new InvalidOperationException("the storm runs inside the repository: no MountLedger.sln above " + AppContext.BaseDirectory);
    }

    [GeneratedRegex("""KillPoint\.Reached\([^$;]*;""")]
    private static partial Regex Calls();

    [GeneratedRegex("\"([a-z-]+)\"")]
    private static partial Regex Names();
}
