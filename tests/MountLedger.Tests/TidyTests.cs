using System.Text.RegularExpressions;

namespace MountLedger.Tests;

/// <summary>What keeps the tree tidy: the layout of the design, and the habits that no analyzer looks after.</summary>
public sealed partial class TidyTests
{
    private const int LinesMax = 450;

    private static readonly string Root = FindRoot();

    private static readonly string[] TopLevelAllowed =
        ["src", "tests", "migrations", "docker", "bench", "docs", "MountLedger.sln", "README.md", "dev", "CHANGELOG.md", "LICENSE", "global.json"];

    [Fact]
    public void No_source_file_is_longer_than_450_lines() => Assert.Empty(
        from file in Sources("src", "bench")
        let lines = File.ReadLines(file).Count()
        where lines > LinesMax
        select $"{Relative(file)}: {lines} lines");

    [Fact]
    public void Nothing_is_left_for_later() => Assert.Empty(
        from file in Sources("src", "tests", "bench")
        where Path.GetFileName(file) != "TidyTests.cs"
        from line in File.ReadLines(file).Select((text, index) => (Text: text, Number: index + 1))
        where LeftForLater().IsMatch(line.Text)
        select $"{Relative(file)}:{line.Number}: {line.Text.Trim()}");

    [Fact]
    public void Nothing_is_named_after_having_no_place() => Assert.Empty(
        from file in Sources("src", "tests", "bench")
        from part in Relative(file).Split('/')
        where Nameless().IsMatch(part)
        select Relative(file));

    [Fact]
    public void Only_the_ledger_project_sees_npgsql() => Assert.Empty(
        from file in Sources("src").Concat(Files("src", "*.csproj"))
        where !Relative(file).StartsWith("src/MountLedger.Postgres/", StringComparison.Ordinal)
        where SeesNpgsql().IsMatch(File.ReadAllText(file))
        select Relative(file));

    [Fact]
    public void Only_the_kernel_project_calls_native_code() => Assert.Empty(
        from file in Sources("src")
        where !Relative(file).StartsWith("src/MountLedger.Linux/", StringComparison.Ordinal)
        where NativeCode().IsMatch(string.Join('\n', File.ReadLines(file).Where(line => !line.TrimStart().StartsWith("//", StringComparison.Ordinal))))
        select Relative(file));

    [Fact]
    public void The_client_knows_no_ledger_and_no_kernel() => Assert.DoesNotMatch(
        @"MountLedger\.(Postgres|Linux|Agent)", File.ReadAllText(Path.Combine(Root, "src/MountLedger.Cli/MountLedger.Cli.csproj")));

    [Fact]
    public void The_domain_depends_on_no_other_project() => Assert.DoesNotContain(
        "ProjectReference", File.ReadAllText(Path.Combine(Root, "src/MountLedger/MountLedger.csproj")), StringComparison.Ordinal);

    [Fact]
    public void Every_source_file_of_some_length_says_what_it_is_for() => Assert.Empty(
        from file in Sources("src")
        where File.ReadLines(file).Count() > 15
        where !File.ReadAllText(file).Contains("//", StringComparison.Ordinal)
        select Relative(file));

    [Fact]
    public void Every_project_is_in_the_solution()
    {
        var solution = File.ReadAllText(Path.Combine(Root, "MountLedger.sln"));

        Assert.Empty(
            from project in new[] { "src", "tests", "bench" }.SelectMany(directory => Files(directory, "*.csproj"))
            where !solution.Contains(Path.GetFileName(project), StringComparison.Ordinal)
            select Relative(project));
    }

    [Fact]
    public void The_top_of_the_tree_holds_what_the_design_says() => Assert.Empty(
        from entry in Directory.EnumerateFileSystemEntries(Root).Select(entry => Path.GetFileName(entry))
        where !entry.StartsWith('.') && !TopLevelAllowed.Contains(entry)
        where entry is not ("bin" or "obj" or "artifacts" or "TestResults")
        where !(entry.StartsWith("Directory.", StringComparison.Ordinal) && Path.GetExtension(entry) is ".props" or ".targets")
        select entry);

    private static IEnumerable<string> Sources(params string[] directories) =>
        directories.SelectMany(directory => Files(directory, "*.cs"));

    private static IEnumerable<string> Files(string directory, string pattern) =>
        Directory.Exists(Path.Combine(Root, directory))
            ? Directory.EnumerateFiles(Path.Combine(Root, directory), pattern, SearchOption.AllDirectories)
                .Where(file => !Relative(file).Split('/').Any(part => part is "bin" or "obj"))
                .Order(StringComparer.Ordinal)
            : [];

    private static string Relative(string file) => Path.GetRelativePath(Root, file);

    private static string FindRoot()
    {
        for (var directory = new DirectoryInfo(AppContext.BaseDirectory); directory is not null; directory = directory.Parent)
        {
            if (File.Exists(Path.Combine(directory.FullName, "MountLedger.sln"))) return directory.FullName;
        }
        throw new InvalidOperationException("these tests run inside the repository: no MountLedger.sln above " + AppContext.BaseDirectory);
    }

    [GeneratedRegex(@"\b(TODO|FIXME|HACK|XXX)\b|NotImplementedException|NotSupportedException\(\)")]
    private static partial Regex LeftForLater();

    [GeneratedRegex(@"(Common|Util|Utils|Utilities|Helper|Helpers|Misc)(\.cs)?$")]
    private static partial Regex Nameless();

    [GeneratedRegex(@"using Npgsql|\bNpgsql[A-Z]\w*\b|Include=""Npgsql")]
    private static partial Regex SeesNpgsql();

    [GeneratedRegex(@"\bunsafe\b|\bLibraryImport\b|\bDllImport\b|<AllowUnsafeBlocks>")]
    private static partial Regex NativeCode();
}
