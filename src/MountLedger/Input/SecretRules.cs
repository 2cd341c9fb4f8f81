using System.Text.RegularExpressions;

namespace MountLedger;

/// <summary>
/// Secrets are never values here, only names: <c>password=secret:NAME</c>. The worker reads what NAME stands for when it calls
/// the program that needs it. So a spec, an event, an answer and a log hold nothing that must be hidden, and what looks like a
/// secret in clear is refused before anything is recorded.
/// </summary>
public static partial class SecretRules
{
    public const string Prefix = "secret:";
    public const int NameLengthMax = 128;

    private const string Form = "the name of a file in the agent's secretsDir: 1 to 128 letters, digits and _ . -, the first a letter or digit";

    /// <summary>What is found anywhere in a key, without its separators.</summary>
    private static readonly string[] Words =
        ["password", "passwd", "passphrase", "passcode", "secret", "credential", "token", "keyfile", "keydata"];

    /// <summary>The name in <c>secret:NAME</c>, or null when this is something else, a malformed name included.</summary>
    public static string? NameIn(string? value) =>
        value is not null && value.StartsWith(Prefix, StringComparison.Ordinal) && IsName(value[Prefix.Length..]) ? value[Prefix.Length..] : null;

    /// <summary>Whether this can be the name of a secret: of a file, never of a path, and never hidden.</summary>
    public static bool IsName(string name) => Name().IsMatch(name);

    /// <summary>
    /// A key under which secrets are commonly given (<c>password</c>, <c>secret_key</c>, <c>credentials</c>, …), whatever
    /// its case and separators. Names of files that hold secrets count too: their paths are nobody else's business.
    /// </summary>
    public static bool IsKey(string key)
    {
        var letters = new string([.. key.Where(char.IsAsciiLetter).Select(char.ToLowerInvariant)]);
        return letters is "pw" or "pwd" or "cred" or "creds" or "psk" or "pin" or "auth" or "authorization"
            || letters.EndsWith("key", StringComparison.Ordinal)
            || letters.EndsWith("pass", StringComparison.Ordinal)
            || Words.Any(word => letters.Contains(word, StringComparison.Ordinal));
    }

    /// <summary>Whether user and password, or a parameter that is a secret, stand in a source or value that is a URL or like one.</summary>
    public static bool HasCredentials(string value) =>
        UrlUser().IsMatch(value) || ServerUser().IsMatch(value)
        || UrlParameter().Matches(value).Any(parameter => IsKey(parameter.Groups[1].Value));

    /// <summary>Refuses a secret in clear, without repeating it.</summary>
    internal static void CheckOption(string field, string option, InputErrors errors)
    {
        if (Filesystem.ValueOf(option) is not { } value || NameIn(value) is not null) return;
        var key = Filesystem.KeyOf(option);
        if (IsKey(key) || value.StartsWith(Prefix, StringComparison.Ordinal)) Refuse(field, key, errors);
        else if (HasCredentials(value)) RefuseUrl(field, key, errors);
    }

    /// <summary>As <see cref="CheckOption"/>, for an option that is one by its filesystem's table, whatever its name.</summary>
    internal static void Refuse(string field, string key, InputErrors errors) => errors.Add(
        field, InputRule.NoClearSecret, $"{key}={ErrorValue.Masked}",
        $"write {ErrorValue.Shown(key)}={Prefix}NAME, with {Form}; what is given in clear would be recorded for everyone to read");

    internal static void CheckSource(string field, string source, InputErrors errors)
    {
        if (HasCredentials(source)) RefuseUrl(field, null, errors);
    }

    private static void RefuseUrl(string field, string? key, InputErrors errors) => errors.Add(
        field, InputRule.NoClearSecret, key is null ? ErrorValue.Masked : $"{key}={ErrorValue.Masked}",
        $"leave user:password and tokens out of a URL, it is recorded for everyone to read; give them as an option, OPTION={Prefix}NAME, where the type has one");

    [GeneratedRegex(@"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\z")]
    private static partial Regex Name();

    /// <summary>scheme://user:password@, and //user:password@ as of a share.</summary>
    [GeneratedRegex(@"(^|[A-Za-z0-9+.-]:)//[^/?#@]*:[^/]*@")]
    private static partial Regex UrlUser();

    /// <summary>user:password@server: as in front of a path; what has a slash before the @ is a path with an @ in it.</summary>
    [GeneratedRegex(@"^[^/:@\s]+:[^/@\s]*@[^/@\s]+:")]
    private static partial Regex ServerUser();

    [GeneratedRegex(@"[?&;]([A-Za-z0-9_.-]+)=")]
    private static partial Regex UrlParameter();
}
