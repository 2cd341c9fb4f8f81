using System.Security.Cryptography;
using System.Text.Json;
using MountLedger.Wire;

namespace MountLedger;

/// <summary>What is checked of every command besides its own members.</summary>
internal static class RequestChecks
{
    /// <returns>All that is wrong; null when nothing is.</returns>
    public static IReadOnlyList<InputError>? Check(IReadOnlyList<InputError> wrong, string actor, RequestConditions conditions)
    {
        var errors = new InputErrors();
        InputRules.Actor("actor", actor, errors);
        if (conditions.IdempotencyKey is { } key) InputRules.IdempotencyKey("Idempotency-Key", key, errors);
        return wrong.Count + errors.Count == 0 ? null : [.. wrong, .. errors];
    }

    public static RequestKey? KeyOf(RequestConditions conditions, MountRequest raw) =>
        KeyOf(conditions, () => JsonSerializer.SerializeToUtf8Bytes(raw, RequestJson.Default.MountRequest));

    public static RequestKey? KeyOf(RequestConditions conditions, UnmountRequest raw) =>
        KeyOf(conditions, () => JsonSerializer.SerializeToUtf8Bytes(raw, RequestJson.Default.UnmountRequest));

    public static RequestKey? KeyOf(RequestConditions conditions, RemountRequest raw) =>
        KeyOf(conditions, () => JsonSerializer.SerializeToUtf8Bytes(raw, RequestJson.Default.RemountRequest));

    private static RequestKey? KeyOf(RequestConditions conditions, Func<byte[]> body) =>
        conditions.IdempotencyKey is { } key
            ? new RequestKey(key, conditions.BodyHash ?? Convert.ToHexStringLower(SHA256.HashData(body())))
            : null;
}
