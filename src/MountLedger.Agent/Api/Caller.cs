using System.Buffers.Binary;
using System.Collections.Concurrent;
using System.Net.Sockets;
using Microsoft.AspNetCore.Connections.Features;
using MountLedger.Linux;

namespace MountLedger.Agent;

/// <summary>Who is at the other end of the unix socket, as the kernel says (SO_PEERCRED, socket(7)): nothing that a caller sends can change it.</summary>
public static class Caller
{
    private const int SolSocket = 1;
    private const int SoPeerCred = 17;
    private const int NamesKeptMax = 1024;

    private static readonly object Key = new();
    private static readonly ConcurrentDictionary<uint, string> Names = new();

    /// <summary>The user's name, or <c>uid:1234</c> when it has none.</summary>
    public static string ActorOf(HttpContext http)
    {
        var connection = http.Features.Get<IConnectionItemsFeature>();
        if (connection?.Items.TryGetValue(Key, out var known) == true) return (string)known!;
        var actor = http.Features.Get<IConnectionSocketFeature>()?.Socket is { } socket ? NameOf(UidOf(socket)) : "unknown";
        if (connection is not null) connection.Items[Key] = actor;
        return actor;
    }

    /// <summary>struct ucred: pid, uid, gid, 32 bits each.</summary>
    private static uint UidOf(Socket socket)
    {
        Span<byte> credentials = stackalloc byte[12];
        socket.GetRawSocketOption(SolSocket, SoPeerCred, credentials);
        return BinaryPrimitives.ReadUInt32LittleEndian(credentials[4..]);
    }

    private static string NameOf(uint uid)
    {
        if (Names.Count > NamesKeptMax) Names.Clear();
        return Names.GetOrAdd(uid, UserNames.Of);
    }
}
