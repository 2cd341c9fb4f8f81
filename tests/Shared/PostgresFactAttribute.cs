using Xunit;

namespace MountLedger.Testing;

/// <summary>
/// A test that needs PostgreSQL: installed here, or given in <c>MOUNTLEDGER_TEST_POSTGRES</c>. Without it the test is skipped, except where the
/// environment has <c>CI</c> set: there it runs, and fails.
/// </summary>
public sealed class PostgresFactAttribute : FactAttribute
{
    public PostgresFactAttribute() => Skip = PostgresPresence.ReasonToSkip;
}

/// <inheritdoc cref="PostgresFactAttribute"/>
public sealed class PostgresTheoryAttribute : TheoryAttribute
{
    public PostgresTheoryAttribute() => Skip = PostgresPresence.ReasonToSkip;
}

internal static class PostgresPresence
{
    public const string Variable = "MOUNTLEDGER_TEST_POSTGRES";

    public static string? ReasonToSkip { get; } =
        Environment.GetEnvironmentVariable("CI") is { Length: > 0 } || Given is not null || IsInstalled()
            ? null
            : $"needs PostgreSQL 15 or newer (apt-get install postgresql), or a connection string in {Variable}";

    /// <summary>A connection string whose role may create databases.</summary>
    public static string? Given => Environment.GetEnvironmentVariable(Variable) is { Length: > 0 } given ? given : null;

    private static bool IsInstalled()
    {
        const string debian = "/usr/lib/postgresql";
        var versions = Directory.Exists(debian) ? Directory.GetDirectories(debian).Select(version => Path.Combine(version, "bin")) : [];
        return (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Concat(versions)
            .Any(directory => File.Exists(Path.Combine(directory, "initdb")) && File.Exists(Path.Combine(directory, "postgres")));
    }
}
