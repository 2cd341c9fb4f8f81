using System.Runtime.InteropServices;
using Microsoft.AspNetCore.Server.Kestrel.Core;

namespace MountLedger.Agent;

/// <summary>The agent as a program: the hosted service with the HTTP interface on its unix socket.</summary>
public static class AgentServer
{
    public static async Task<int> RunAsync(AgentSettings settings)
    {
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

        // Whoever can connect may mount: root alone, until somebody opens the directory or the socket wider.
        var before = umask(0x3F);
        try
        {
            await app.StartAsync();
        }
        finally
        {
            umask(before);
        }
        await app.WaitForShutdownAsync();
        return app.Services.GetRequiredService<MountLedgerService>().ExitCode;
    }
}
