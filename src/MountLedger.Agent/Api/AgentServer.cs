using System.Net.Sockets;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using MountLedger.Linux;

namespace MountLedger.Agent;

/// <summary>The agent as a program: the hosted service with the HTTP interface on its unix socket.</summary>
public static class AgentServer
{
    public static async Task<int> RunAsync(AgentSettings settings)
    {
        FileCreationMask.Restrict(Convert.ToUInt32("022", 8));
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders().AddSimpleConsole(console =>
        {
            console.SingleLine = true;
            console.UseUtcTimestamp = true;
            console.TimestampFormat = "yyyy-MM-ddTHH:mm:ss.fffZ ";
            console.ColorBehavior = Microsoft.Extensions.Logging.Console.LoggerColorBehavior.Disabled;
        });
        builder.Logging.SetMinimumLevel(LogLevel.Information)
            .AddFilter("Microsoft", LogLevel.Warning).AddFilter("Npgsql", LogLevel.Warning);
        builder.Services.AddMountLedger(settings);
        builder.Services.AddOpenApi("v1");
        builder.Services.Configure<HostOptions>(host =>
            host.ShutdownTimeout = TimeSpan.FromSeconds(settings.ShutdownSeconds + 30));
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.MaxRequestBodySize = RequestReading.BodyBytesMax + 1;
            kestrel.Limits.MaxConcurrentConnections = 4096;
            kestrel.ListenUnixSocket(settings.Socket, listen => listen.Protocols = HttpProtocols.Http1);
        });

        PrepareSocket(settings.Socket);
        await using var app = builder.Build();
        app.UseProblems();
        app.MapOpenApi();
        app.MapMounts();
        app.MapQueries();
        app.MapHosts();

        // Whoever can connect may mount: the agent's own user alone, until somebody opens the socket wider. Connecting takes
        // the right to write, which the mask has kept from everybody else since the socket appeared.
        await app.StartAsync();
        File.SetUnixFileMode(settings.Socket, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        await app.WaitForShutdownAsync();
        return app.Services.GetRequiredService<MountLedgerService>().ExitCode;
    }

    /// <summary>Makes way for the socket: its directory, and what a dead agent left there.</summary>
    /// <exception cref="SettingException">Something else is there, or an agent that answers.</exception>
    private static void PrepareSocket(string path)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        if (!File.Exists(path)) return;
        using var probe = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            probe.Connect(new UnixDomainSocketEndPoint(path));
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.ConnectionRefused)
        {
            File.Delete(path);
            return;
        }
        catch (SocketException e)
        {
            throw new SettingException($"socket: {path} is in the way and is no socket of a dead agent ({e.SocketErrorCode}): remove it or use another path");
        }
        throw new SettingException($"socket: another program answers on {path}: stop it or use another path");
    }
}
