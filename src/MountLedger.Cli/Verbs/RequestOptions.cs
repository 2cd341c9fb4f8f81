using System.CommandLine;

namespace MountLedger.Cli.Verbs;

/// <summary>What all requests have in common: how long to wait, and on what the request depends.</summary>
internal sealed class RequestOptions
{
    private static readonly TimeSpan _waitDefault = TimeSpan.FromSeconds(30);

    private readonly Option<TimeSpan?> _wait = new("--wait")
    {
        Description = "How long to wait for the outcome (default: 30s)",
        HelpName = "DURATION",
        CustomParser = Times.Wait,
    };

    private readonly Option<bool> _noWait = new("--no-wait") { Description = "Only record the request; exit code 6 unless it is done at once" };

    private readonly Option<string?> _key = new("--idempotency-key")
    {
        Description = "Repeating the request with the same key within 24 hours gets the same answer and does nothing",
        HelpName = "KEY",
    };

    private readonly Option<string?> _version = new("--if-match")
    {
        Description = "Refuse when the mountpoint is not at this version",
        HelpName = "VERSION",
    };

    public RequestOptions(Command command)
    {
        foreach (var option in (Option[])[_wait, _noWait, _key, _version])
        {
            command.Add(option);
        }

        command.Validators.Add(result =>
        {
            if (result.GetResult(_wait) is not null && result.GetResult(_noWait) is not null)
                result.AddError("--wait and --no-wait exclude each other — give one of them");
        });
        _key.Validators.Add(result =>
        {
            var key = result.GetValueOrDefault<string?>() ?? "";
            if (key.Length is 0 or > 255 || key.Any(static c => c is <= ' ' or > '~'))
                result.AddError($"--idempotency-key: '{key}' cannot be a key — use 1 to 255 ASCII letters, digits and signs, no blanks");
        });
        _version.Validators.Add(result =>
        {
            if (Version(result.GetValueOrDefault<string?>()) is null)
                result.AddError($"--if-match: '{result.GetValueOrDefault<string?>()}' is no version — give the number that 'mountledger status' shows");
        });
    }

    public TimeSpan Wait(Run run) => run.Value(_noWait) ? TimeSpan.Zero : run.Value(_wait) ?? _waitDefault;

    public Preconditions Preconditions(Run run) => new(run.Value(_key), Version(run.Value(_version)));

    /// <summary>A version, with or without the quotes of an ETag.</summary>
    private static long? Version(string? text) =>
        long.TryParse(
            text is ['"', .. var inner, '"'] ? inner : text,
            System.Globalization.NumberStyles.None,
            System.Globalization.CultureInfo.InvariantCulture,
            out var version)
            ? version
            : null;
}
