namespace MountLedger.Wire;

/// <summary>The problems that are not an answer of the rules.</summary>
public static class Problems
{
    public static Problem Invalid(IReadOnlyList<InputError> errors) => new()
    {
        Type = Problem.TypePrefix + "invalid-input",
        Title = "invalid input",
        Status = 400,
        Detail = string.Join("; ", errors),
        Errors = errors,
    };

    public static Problem Invalid(string field, string rule, string? value, string remedy)
    {
        var errors = new InputErrors();
        errors.Add(field, rule, value, remedy);
        return Invalid(errors);
    }

    public static Problem Unavailable(string reason) => new()
    {
        Type = Problem.TypePrefix + "unavailable",
        Title = "unavailable",
        Status = 503,
        Detail = $"{reason}: try again",
    };

    public static Problem NotFound(string detail) => new()
    {
        Type = Problem.TypePrefix + "not-found",
        Title = "not found",
        Status = 404,
        Detail = detail,
    };

    /// <summary>What the web server refuses by itself: a wrong method, a body that is too large.</summary>
    public static Problem OfStatus(int status, string name, string detail) => new()
    {
        Type = Problem.TypePrefix + name,
        Title = name.Replace('-', ' '),
        Status = status,
        Detail = detail,
    };
}
