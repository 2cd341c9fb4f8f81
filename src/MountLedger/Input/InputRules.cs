using System.Buffers;
using System.Globalization;
using System.Text.RegularExpressions;
using MountLedger.Wire;

namespace MountLedger;

/// <summary>
/// Section 10 of the design: from the raw members of a request to values that the domain trusts, or to everything that is
/// wrong with them. Pure, and total: no text makes it throw. Each rule of a single field returns null exactly when it has
/// added an error.
/// </summary>
public static partial class InputRules
{
    /// <summary>In Unicode scalar values: 512 bytes at most.</summary>
    public const int NameLengthMax = 128;

    public const int HostLengthMax = 63;
    public const int WaitSecondsMax = 3600;
    public const int ReasonLengthMax = 1024;
    public const int IdempotencyKeyLengthMax = 255;
    public const int LimitMax = 1000;
    public const int LimitDefault = 100;

    /// <summary>A hundred years: whoever looks further back means the beginning.</summary>
    private const int RelativeDaysMax = 36_525;

    private static readonly SearchValues<char> HostCharacters = SearchValues.Create("abcdefghijklmnopqrstuvwxyz0123456789.-");

    /// <summary>Null exactly when <paramref name="errors"/> is not empty.</summary>
    public static ValidatedMount? Mount(MountRequest raw, InputPolicy policy, out IReadOnlyList<InputError> errors)
    {
        var found = new InputErrors();
        errors = found;
        var host = ServedHost("host", raw.Host, policy, found);
        var mountpoint = MountpointPath("mountpoint", raw.Mountpoint, policy, found);
        var spec = SpecRules.Spec(raw.Source, raw.Fstype, raw.Options, policy, found);
        var volume = Name("volume", raw.Volume, found);
        var consumer = Name("consumer", raw.Consumer, found);
        var onFailure = Known("onFailure", raw.OnFailure ?? OnFailure.Forget, found);
        var wait = Wait("waitSeconds", raw.WaitSeconds, found);
        return found.Count == 0
            ? new ValidatedMount(host!, mountpoint!, spec!, new AttachmentKey(volume!, consumer!), onFailure, wait)
            : null;
    }

    /// <summary>Null exactly when <paramref name="errors"/> is not empty.</summary>
    public static ValidatedUnmount? Unmount(UnmountRequest raw, InputPolicy policy, out IReadOnlyList<InputError> errors)
    {
        var found = new InputErrors();
        errors = found;
        var host = ServedHost("host", raw.Host, policy, found);
        var mountpoint = MountpointPath("mountpoint", raw.Mountpoint, policy, found);
        var volume = Name("volume", raw.Volume, found);
        var consumer = Name("consumer", raw.Consumer, found);
        var mode = Known("mode", raw.Mode ?? UnmountMode.Normal, found);
        var wait = Wait("waitSeconds", raw.WaitSeconds, found);
        return found.Count == 0
            ? new ValidatedUnmount(host!, mountpoint!, new AttachmentKey(volume!, consumer!), mode, wait)
            : null;
    }

    /// <summary>Null exactly when <paramref name="errors"/> is not empty.</summary>
    public static ValidatedRemount? Remount(RemountRequest raw, InputPolicy policy, out IReadOnlyList<InputError> errors)
    {
        var found = new InputErrors();
        errors = found;
        var host = ServedHost("host", raw.Host, policy, found);
        var mountpoint = MountpointPath("mountpoint", raw.Mountpoint, policy, found);
        if (raw.Options is { IsDefaultOrEmpty: false }) SpecRules.Options(raw.Options, filesystem: null, source: null, policy, found);
        else found.Add("options", InputRule.Required, null, "give the options that shall change");
        var wait = Wait("waitSeconds", raw.WaitSeconds, found);
        return found.Count == 0 ? new ValidatedRemount(host!, mountpoint!, raw.Options!.Value, wait) : null;
    }

    /// <summary>A mountpoint: absolute, normalised, at most 2 048 bytes, strictly below one of the agent's roots.</summary>
    public static string? MountpointPath(string field, string? value, InputPolicy policy, InputErrors errors) =>
        PathRules.BelowRoot(errors, field, value, policy.Roots);

    /// <summary>An absolute, normalised path: a configured root, or a filter of a host whose roots are not known here.</summary>
    public static string? AbsolutePath(string field, string? value, InputErrors errors) => PathRules.Absolute(errors, field, value);

    /// <summary>At most 63 of <c>a-z0-9.-</c>, with neither dot nor dash at the beginning and the end of a label.</summary>
    public static string? HostName(string field, string? value, InputErrors errors)
    {
        if (string.IsNullOrEmpty(value))
        {
            errors.Add(field, InputRule.Required, value, "give the name of a host");
            return null;
        }
        if (value.Length <= HostLengthMax && !value.AsSpan().ContainsAnyExcept(HostCharacters)
            && value.Split('.').All(label => label.Length > 0 && label[0] != '-' && label[^1] != '-'))
        {
            return value;
        }
        errors.Add(
            field, InputRule.HostName, value,
            $"give a host name of at most {HostLengthMax} of a-z, 0-9, '.' and '-', with neither '.' nor '-' at an end or side by side");
        return null;
    }

    /// <summary>A volume's or consumer's name: 1 to 128 printable characters, spaces only inside.</summary>
    public static string? Name(string field, string? value, InputErrors errors)
    {
        if (string.IsNullOrEmpty(value))
        {
            errors.Add(field, InputRule.Required, value, $"give a name of 1 to {NameLengthMax} characters");
            return null;
        }
        var before = errors.Found;
        if (Text.Length(value) > NameLengthMax)
            errors.Add(field, InputRule.NameLength, value, $"give a name of at most {NameLengthMax} characters");
        if (Text.Check(errors, field, value)) Text.CheckPrintable(errors, field, value);
        Text.CheckNoSurroundingSpace(errors, field, value);
        return errors.Found == before ? value : null;
    }

    /// <summary>Who did something: as <see cref="Name"/>.</summary>
    public static string? Actor(string field, string? value, InputErrors errors) => Name(field, value, errors);

    /// <summary>A stored name of an event, for a filter of the history.</summary>
    public static string? EventType(string field, string? value, InputErrors errors)
    {
        if (string.IsNullOrEmpty(value))
        {
            errors.Add(field, InputRule.Required, value, "give the name of an event");
            return null;
        }
        if (EventCatalog.StoredNames.Contains(value, StringComparer.Ordinal)) return value;
        errors.Add(field, InputRule.KnownEventType, value, $"give one of {string.Join(", ", EventCatalog.StoredNames)}");
        return null;
    }

    /// <summary>
    /// A moment in UTC, in whole microseconds (what the ledger keeps): RFC 3339 (<c>2026-01-31T08:00:00Z</c>), <c>now</c>,
    /// or how long before <paramref name="now"/> (<c>45s</c>, <c>10m</c>, <c>2h</c>, <c>1d</c>, <c>1h30m</c>).
    /// </summary>
    public static DateTimeOffset? Time(string field, string? value, DateTimeOffset now, InputErrors errors)
    {
        if (string.IsNullOrEmpty(value))
        {
            errors.Add(field, InputRule.Required, value, "give a time such as 2026-01-31T08:00:00Z or 10m");
            return null;
        }
        if ((Rfc3339(value) ?? Relative(value, now)) is { } at) return at.AddTicks(-(at.Ticks % TimeSpan.TicksPerMicrosecond));
        errors.Add(
            field, InputRule.Time, value,
            "give a time with its offset such as 2026-01-31T08:00:00Z, or how long ago such as 45s, 10m, 2h, 1d");
        return null;
    }

    /// <summary>How many items of a list are wanted: 1 to 1 000; 100 when nothing was said.</summary>
    public static int? Limit(string field, string? value, InputErrors errors)
    {
        if (string.IsNullOrEmpty(value)) return LimitDefault;
        if (int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out var limit) && limit is >= 1 and <= LimitMax) return limit;
        errors.Add(field, InputRule.LimitRange, value, $"give a whole number from 1 to {LimitMax}");
        return null;
    }

    /// <summary>1 to 255 visible ASCII characters.</summary>
    public static string? IdempotencyKey(string field, string? value, InputErrors errors)
    {
        if (string.IsNullOrEmpty(value))
        {
            errors.Add(field, InputRule.Required, value, "give a key that is new for each request, such as a UUID");
            return null;
        }
        if (value.Length <= IdempotencyKeyLengthMax && value.All(character => character is > ' ' and <= '~')) return value;
        errors.Add(
            field, InputRule.IdempotencyKey, value, $"give 1 to {IdempotencyKeyLengthMax} visible ASCII characters, such as a UUID");
        return null;
    }

    /// <summary>
    /// The version of a stream as <c>If-Match</c> gives it, with or without the quotes of an ETag (<c>"12"</c>); 0 stands
    /// for a mountpoint that was never used. Weak and listed tags are refused.
    /// </summary>
    public static long? Version(string field, string? value, InputErrors errors)
    {
        var digits = value is ['"', .. var quoted, '"'] ? quoted : value;
        if (long.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out var version)) return version;
        errors.Add(field, InputRule.Version, value, "give the version of the mountpoint that you saw, such as \"12\"");
        return null;
    }

    /// <summary>Why an operator did something: null or empty, or up to 1 024 characters on one line.</summary>
    public static string? Reason(string field, string? value, InputErrors errors)
    {
        if (string.IsNullOrEmpty(value)) return null;
        var before = errors.Found;
        if (Text.Length(value) > ReasonLengthMax)
            errors.Add(field, InputRule.ReasonLength, value, $"give a reason of at most {ReasonLengthMax} characters");
        Text.Check(errors, field, value);
        return errors.Found == before ? value : null;
    }

    /// <summary>How long to wait for the outcome; 30 s when nothing was said, at most an hour.</summary>
    public static TimeSpan Wait(string field, double? seconds, InputErrors errors)
    {
        if (seconds is not { } given) return MountCommand.DefaultWait;
        if (given is >= 0 and <= WaitSecondsMax) return TimeSpan.FromSeconds(given);
        errors.Add(
            field, InputRule.WaitRange, given.ToString(CultureInfo.InvariantCulture),
            $"give a number of seconds from 0 (do not wait) to {WaitSecondsMax}");
        return TimeSpan.Zero;
    }

    /// <summary>The agent's own host: the one that a request names, or that is meant when it names none.</summary>
    public static string? ServedHost(string field, string? value, InputPolicy policy, InputErrors errors)
    {
        if (value is null) return policy.Host;
        if (HostName(field, value, errors) is not { } host) return null;
        if (host == policy.Host) return host;
        errors.Add("host", InputRule.OwnHost, value, $"this agent takes commands for {policy.Host} only: ask the agent of that host");
        return null;
    }

    private static T Known<T>(string field, T value, InputErrors errors) where T : struct, Enum
    {
        if (!Enum.IsDefined(value))
            errors.Add(field, InputRule.KnownValue, value.ToString(), $"give one of {string.Join(", ", Enum.GetNames<T>()).ToLowerInvariant()}");
        return value;
    }

    private static DateTimeOffset? Rfc3339(string value)
    {
        if (value.Length > 40 || !Rfc3339Pattern().IsMatch(value)) return null;
        // .NET reads seven digits of a fraction, RFC 3339 allows any number.
        var text = FractionBeyondTicks().Replace(value.ToUpperInvariant(), "$1").Replace(' ', 'T');
        return DateTimeOffset.TryParseExact(
            text, ["yyyy-MM-ddTHH:mm:ssK", "yyyy-MM-ddTHH:mm:ss.FFFFFFFK"], CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal,
            out var at)
            ? at.ToUniversalTime()
            : null;
    }

    private static DateTimeOffset? Relative(string value, DateTimeOffset now)
    {
        if (value == "now") return now.ToUniversalTime();
        var match = RelativePattern().Match(value);
        if (!match.Success) return null;
        double Part(string name) => match.Groups[name] is { Success: true } part ? double.Parse(part.ValueSpan, CultureInfo.InvariantCulture) : 0;
        var seconds = (Part("d") * 86_400) + (Part("h") * 3600) + (Part("m") * 60) + Part("s");
        var ago = TimeSpan.FromSeconds(Math.Min(seconds, RelativeDaysMax * 86_400d));
        if (seconds > RelativeDaysMax * 86_400d || now.UtcTicks < ago.Ticks) return null;
        return now.ToUniversalTime() - ago;
    }

    [GeneratedRegex(@"\A[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})\z")]
    private static partial Regex Rfc3339Pattern();

    [GeneratedRegex(@"(\.[0-9]{7})[0-9]+")]
    private static partial Regex FractionBeyondTicks();

    [GeneratedRegex(@"\A(?=[0-9])((?<d>[0-9]{1,9})d)?((?<h>[0-9]{1,9})h)?((?<m>[0-9]{1,9})m)?((?<s>[0-9]{1,9})s)?\z", RegexOptions.ExplicitCapture)]
    private static partial Regex RelativePattern();
}
