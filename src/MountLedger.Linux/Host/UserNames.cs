using System.Collections.Concurrent;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>Names of users by number, from the system's user database; kept in memory, at most <see cref="EntriesMax"/>.</summary>
public static class UserNames
{
    private const int EntriesMax = 1024;
    private static readonly ConcurrentDictionary<uint, string> Known = new();

    /// <summary>The name, or the number as <c>uid:1000</c> when the system knows none.</summary>
    public static string Of(uint uid)
    {
        if (Known.TryGetValue(uid, out var name)) return name;
        name = IdentityCalls.UserName(uid) ?? $"uid:{uid}";
        if (Known.Count >= EntriesMax) Known.Clear();
        Known[uid] = name;
        return name;
    }
}
