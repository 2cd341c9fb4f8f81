using System.Diagnostics;
using System.Globalization;
using System.Reflection;

namespace MountLedger.Simulation;

/// <summary>
/// Shows that the simulation bites: each file in <c>mutations</c> plants one mistake in a copy of the core, behind a switch, so that the copy is built
/// once; then each is switched on alone, and seeds are run until one finds it.
/// </summary>
internal static class Mutations
{
    private const string Switch = "Mutant.Is(\"$\")";

    /// <summary>In the copy the core has this class; elsewhere there is none, and nothing to switch.</summary>
    private const string SwitchSource =
        """
        namespace MountLedger;

        /// <summary>Which planted mistake is on.</summary>
        public static class Mutant
        {
            public static volatile string? Name;

            public static bool Is(string name) => Name == name;
        }
        """;

    /// <returns>The exit code: 0 when each mistake was found.</returns>
    public static int Run(long seedsMax)
    {
        var root = FindRoot();
        var planted = Directory.GetFiles(Path.Combine(root, "tests/MountLedger.Simulation/mutations"), "*.mutation").Order(StringComparer.Ordinal).ToList();
        var copy = Directory.CreateTempSubdirectory("mountledger-mutants-").FullName;
        try
        {
            foreach (var part in (string[])["src/MountLedger", "tests/MountLedger.Simulation"]) Copy(Path.Combine(root, part), Path.Combine(copy, part));
            foreach (var file in Directory.GetFiles(root, "Directory.*.props").Append(Path.Combine(root, ".editorconfig")).Append(Path.Combine(root, "global.json")))
                File.Copy(file, Path.Combine(copy, Path.GetFileName(file)));
            foreach (var mutation in planted) Plant(mutation, copy);
            File.WriteAllText(Path.Combine(copy, "src/MountLedger/Mutant.cs"), SwitchSource);

            var built = Start("dotnet", ["build", Path.Combine(copy, "tests/MountLedger.Simulation"), "-c", "Release", "-v", "q", "--nologo", "-p:TreatWarningsAsErrors=false", "-p:RunAnalyzers=false"], out var output);
            if (built != 0)
            {
                Console.Error.WriteLine(output);
                return 2;
            }
            var program = Path.Combine(copy, "tests/MountLedger.Simulation/bin/Release/net10.0/MountLedger.Simulation.dll");
            var missed = 0;
            foreach (var name in planted.Select(Path.GetFileNameWithoutExtension))
            {
                var found = Start("dotnet", [program, "--mutant", name!, "--seeds", seedsMax.ToString(CultureInfo.InvariantCulture)], out output) == 1;
                if (!found) missed++;
                Console.WriteLine($"{name,-34} {(found ? output.Trim() : $"NOT FOUND in {seedsMax} seeds")}");
            }
            Console.WriteLine($"{planted.Count - missed} of {planted.Count} planted mistakes found");
            return missed == 0 ? 0 : 1;
        }
        finally
        {
            Directory.Delete(copy, recursive: true);
        }
    }

    /// <summary>One mistake, in the copy: runs seeds in their order until one fails.</summary>
    public static int RunOne(string name, long seedsMax)
    {
        var field = typeof(HostNode).Assembly.GetType("MountLedger.Mutant")?.GetField("Name", BindingFlags.Public | BindingFlags.Static);
        if (field is null)
        {
            Console.Error.WriteLine("nothing is planted in this build: use --mutations");
            return 2;
        }
        field.SetValue(null, name);
        var failed = 0;
        RunResult? first = null;
        var seed = 1UL;
        for (; seed <= (ulong)seedsMax; seed++)
        {
            var run = World.Run(seed);
            if (run.Violation is null) continue;
            first ??= run;
            if (++failed == 3) break;
        }
        if (first is null) return 0;
        Console.WriteLine($"found by seed {first.Seed,5}{(failed == 3 ? $", three times in {seed} seeds" : "")}: {first.Violation!.Split('\n')[0]}");
        return 1;
    }

    /// <summary>
    /// A mutation file: a line that says what it is, then parts of <c>=== file</c>, <c>--- </c>, the original lines, <c>+++</c>, and what stands there instead.
    /// <c>$MUTANT</c> is the switch.
    /// </summary>
    public static void Plant(string mutation, string root)
    {
        var name = Path.GetFileNameWithoutExtension(mutation);
        foreach (var part in File.ReadAllText(mutation).Split("\n=== ").Skip(1))
        {
            var file = Path.Combine(root, part[..part.IndexOf('\n', StringComparison.Ordinal)].Trim());
            var from = part.IndexOf("\n---\n", StringComparison.Ordinal);
            var to = part.IndexOf("\n+++\n", StringComparison.Ordinal);
            var original = part[(from + 5)..(to + 1)].TrimEnd('\n');
            var instead = part[(to + 5)..].TrimEnd('\n').Replace("$MUTANT", Switch.Replace("$", name, StringComparison.Ordinal), StringComparison.Ordinal);
            var text = File.ReadAllText(file);
            var at = text.IndexOf(original, StringComparison.Ordinal);
            if (at < 0 || text.IndexOf(original, at + 1, StringComparison.Ordinal) >= 0)
                throw new InvalidOperationException($"{Path.GetFileName(mutation)}: its original is not found exactly once in {file}: bring it up to date");
            File.WriteAllText(file, text[..at] + instead + text[(at + original.Length)..]);
        }
    }

    public static string FindRoot()
    {
        for (var directory = new DirectoryInfo(AppContext.BaseDirectory); directory is not null; directory = directory.Parent)
        {
            if (File.Exists(Path.Combine(directory.FullName, "MountLedger.sln"))) return directory.FullName;
        }
        throw new InvalidOperationException("the simulation runs inside the repository: no MountLedger.sln above " + AppContext.BaseDirectory);
    }

    public static void Copy(string from, string to)
    {
        Directory.CreateDirectory(to);
        foreach (var file in Directory.GetFiles(from)) File.Copy(file, Path.Combine(to, Path.GetFileName(file)));
        foreach (var directory in Directory.GetDirectories(from).Where(directory => Path.GetFileName(directory) is not ("bin" or "obj")))
            Copy(directory, Path.Combine(to, Path.GetFileName(directory)));
    }

    private static int Start(string program, string[] arguments, out string output)
    {
        using var process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true })!;
        output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode;
    }
}
