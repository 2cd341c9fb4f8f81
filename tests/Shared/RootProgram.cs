using System.Collections.Concurrent;
using System.Diagnostics;
using Xunit;

namespace MountLedger.Tests;

/// <summary>Small programs in C (tests/Shared/Programs) that tests run as somebody else, or as what is held; compiled once by gcc.</summary>
public static class RootProgram
{
    private static readonly ConcurrentDictionary<string, Lazy<string>> Built = new(StringComparer.Ordinal);

    /// <summary>The path of the program <paramref name="name"/>, built beside the tests' own.</summary>
    public static string Path(string name) => Built.GetOrAdd(name, key => new Lazy<string>(() => Build(key))).Value;

    private static string Build(string name)
    {
        var directory = System.IO.Path.Combine(AppContext.BaseDirectory, "programs");
        Directory.CreateDirectory(directory);
        var program = System.IO.Path.Combine(directory, name);
        var made = $"{program}.{Environment.ProcessId}";
        using var compiler = Process.Start(new ProcessStartInfo(
            "gcc", ["-O1", "-Wall", "-Werror", "-o", made, System.IO.Path.Combine(directory, name + ".c")])
        { RedirectStandardError = true })!;
        var errors = compiler.StandardError.ReadToEnd();
        compiler.WaitForExit();
        Assert.True(compiler.ExitCode == 0, $"gcc {name}.c: {errors}");
        // Another run may have it in use.
        File.Move(made, program, overwrite: true);
        return program;
    }
}
