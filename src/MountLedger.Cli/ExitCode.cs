namespace MountLedger.Cli;

/// <summary>What the client exits with: section 8 of the contract. Scripts rely on these.</summary>
internal static class ExitCode
{
    public const int Done = 0;
    public const int OperationFailed = 1;
    public const int BadUsage = 2;
    public const int Rejected = 3;
    public const int NotPermitted = 4;
    public const int Unavailable = 5;
    public const int Pending = 6;

    /// <summary><c>drift</c> or <c>verify</c> found something.</summary>
    public const int Found = 7;

    /// <summary>The lines that close every help text.</summary>
    public const string Help = """
        Exit codes:
          0  done, also when there was nothing to do
          1  the operation failed in the kernel or a helper
          2  bad usage or invalid input, or nothing is recorded there; nothing was recorded
          3  rejected by the rules, or the version did not match
          4  not permitted
          5  agent or database unavailable
          6  no outcome within --wait; the request stays recorded
          7  drift or verify found something
        """;
}

/// <summary>
/// Ends the run with an exit code and one line on stderr. <paramref name="line"/> says what is wrong and what to do;
/// <paramref name="details"/> are indented lines below it; <paramref name="document"/> is what <c>--json</c> prints.
/// </summary>
internal sealed class ExitException(int code, string line, IReadOnlyList<string>? details = null, byte[]? document = null)
    : Exception(line)
{
    public int Code { get; } = code;

    public IReadOnlyList<string> Details { get; } = details ?? [];

    public byte[]? Document { get; } = document;
}
