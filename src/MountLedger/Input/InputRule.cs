namespace MountLedger;

/// <summary>
/// The names of all rules that an <see cref="InputError"/> can give. Callers and their programs see them, so they are kept
/// stable; a test proves that each has a case that breaks it.
/// </summary>
public static class InputRule
{
    /// <summary>The member is missing, null or empty.</summary>
    public const string Required = "required";

    /// <summary>No C0 or C1 control character, no line or paragraph separator.</summary>
    public const string NoControlCharacters = "no-control-characters";

    /// <summary>Whole Unicode text: no lone surrogate, and no U+FFFD, which stands for bytes that were not UTF-8.</summary>
    public const string ValidUtf8 = "valid-utf8";

    public const string AbsolutePath = "absolute-path";

    /// <summary>No empty, <c>.</c> or <c>..</c> component and no slash at the end.</summary>
    public const string NormalisedPath = "normalised-path";

    public const string PathLength = "path-length";
    public const string ComponentLength = "component-length";

    /// <summary>Strictly below one of the agent's roots.</summary>
    public const string InsideRoot = "inside-root";

    public const string NameLength = "name-length";

    /// <summary>No format character (zero width, direction marks), which would make two names look the same.</summary>
    public const string Printable = "printable";

    public const string NoSurroundingSpace = "no-surrounding-space";
    public const string HostName = "host-name";

    /// <summary>An agent takes commands for its own host.</summary>
    public const string OwnHost = "own-host";

    public const string SourceLength = "source-length";

    /// <summary>A program would take the value for a flag of its own.</summary>
    public const string NoLeadingDash = "no-leading-dash";

    public const string KnownFilesystem = "known-filesystem";

    /// <summary>A program of its own mounts the type (<c>/sbin/mount.TYPE</c>), and the configuration does not name it.</summary>
    public const string HelperUnsupported = "helper-unsupported";

    /// <summary>The source is not what this type is mounted from.</summary>
    public const string SourceForm = "source-form";

    public const string OptionCount = "option-count";
    public const string OptionLength = "option-length";
    public const string OptionsLength = "options-length";

    /// <summary>One option per element: no comma inside.</summary>
    public const string NoSeparator = "no-separator";

    public const string KnownOption = "known-option";

    /// <summary>The option is known, and refused by policy.</summary>
    public const string OptionPolicy = "option-policy";

    public const string OptionValue = "option-value";
    public const string OptionNeedsValue = "option-needs-value";
    public const string OptionTakesNoValue = "option-takes-no-value";
    public const string DuplicateOption = "duplicate-option";
    public const string ContradictoryOptions = "contradictory-options";
    public const string MissingOption = "missing-option";

    /// <summary>The filesystem cannot be written, and <c>rw</c> was asked for.</summary>
    public const string ReadOnlyFilesystem = "read-only-filesystem";

    public const string NoClearSecret = "no-clear-secret";
    public const string WaitRange = "wait-range";

    /// <summary>One of a few words.</summary>
    public const string KnownValue = "known-value";

    public const string KnownEventType = "known-event-type";
    public const string Time = "time";
    public const string LimitRange = "limit-range";
    public const string IdempotencyKey = "idempotency-key";
    public const string Version = "version";
    public const string ReasonLength = "reason-length";

    public static IReadOnlyList<string> All { get; } =
    [
        Required, NoControlCharacters, ValidUtf8, AbsolutePath, NormalisedPath, PathLength, ComponentLength, InsideRoot,
        NameLength, Printable, NoSurroundingSpace, HostName, OwnHost, SourceLength, NoLeadingDash, KnownFilesystem,
        HelperUnsupported, SourceForm, OptionCount, OptionLength, OptionsLength, NoSeparator, KnownOption, OptionPolicy, OptionValue,
        OptionNeedsValue, OptionTakesNoValue, DuplicateOption, ContradictoryOptions, MissingOption, ReadOnlyFilesystem,
        NoClearSecret, WaitRange, KnownValue, KnownEventType, Time, LimitRange, IdempotencyKey, Version, ReasonLength,
    ];
}
