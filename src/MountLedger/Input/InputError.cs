namespace MountLedger;

/// <summary>
/// One thing that is wrong with a request: the field as the caller wrote it, the rule that it breaks, its value (cut to
/// 128 characters, control characters escaped, never a secret), and what to do.
/// </summary>
public sealed record InputError(string Field, string Rule, string? Value, string Remedy)
{
    public override string ToString() =>
        Value is null ? $"{Field}: {Remedy} (rule {Rule})" : $"{Field}: {Remedy}, not '{Value}' (rule {Rule})";
}
