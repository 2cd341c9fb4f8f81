using Xunit;

namespace MountLedger.Tests;

/// <summary>
/// A test that mounts for real: as root, in a private mount namespace (MOUNTLEDGER_TEST_NAMESPACE=1, set by the script that
/// made the namespace). Elsewhere it is skipped with the reason; where CI is set it is not, and fails.
/// </summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class RootFactAttribute : FactAttribute
{
    public RootFactAttribute() => Skip = RootEnvironment.SkipReason!;
}

/// <summary>As <see cref="RootFactAttribute"/>, with data.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class RootTheoryAttribute : TheoryAttribute
{
    public RootTheoryAttribute() => Skip = RootEnvironment.SkipReason!;
}

public static class RootEnvironment
{
    /// <summary>What is missing here for real mounts, or null.</summary>
    public static string? Missing =>
        !OperatingSystem.IsLinux() ? "not Linux"
        : Environment.UserName != "root" ? "not root"
        : Environment.GetEnvironmentVariable("MOUNTLEDGER_TEST_NAMESPACE") != "1"
            ? "not in a private mount namespace: run `unshare --mount --propagation private` with MOUNTLEDGER_TEST_NAMESPACE=1"
            : null;

    public static bool IsCi => !string.IsNullOrEmpty(Environment.GetEnvironmentVariable("CI"));

    /// <summary>Null on CI: there the test runs, and <see cref="Require"/> fails it.</summary>
    public static string? SkipReason => IsCi ? null : Missing;

    /// <summary>The first thing that a test with real mounts does, so that none ever mounts outside.</summary>
    public static void Require() => Assert.True(Missing is null, Missing);
}
