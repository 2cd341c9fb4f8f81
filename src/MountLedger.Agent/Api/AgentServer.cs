using System.Net.Sockets;
using System.Runtime.InteropServices;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using MountLedger.Linux;

namespace MountLedger.Agent;

/// <summary>The agent as a program: the hosted service with the HTTP interface on its unix socket.</summary>
public static class AgentServer
{
    private static readonly TimeSpan StartQuietAfter = TimeSpan.FromSeconds(2);

    /// <param name="settings">What it is to serve.</param>
    /// <param name="args">The command line: before anything else is opened, the program starts itself again with it, without capabilities.</param>
    public static async Task<int> RunAsync(AgentSettings settings, string[] args)
    {
        if (Launcher.OfThisProcess is null && Capabilities.CanBeGivenUp())
            Capabilities.GiveUp(settings.Workers().FileName, ["launcher", "--", .. args]);
        FileCreationMask.Restrict(Convert.ToUInt32("022", 8));
        using var launcher = Launcher.OfThisProcess;
        var search = settings.Postgres is null && launcher is not null ? OwnPostgres.SearchAsync(settings.StateDir) : null;
        // The content root is not the working directory, and nothing is watched: the web host would walk and watch every directory
        // below it, mounts included, and the agent must not touch those.
        var builder = WebApplication.CreateSlimBuilder(new WebApplicationOptions
        {
            Args = ["--hostBuilder:reloadConfigOnChange=false"],
            ContentRootPath = AppContext.BaseDirectory,
        });
        builder.Logging.ClearProviders().AddSimpleConsole(console =>
        {
            console.SingleLine = true;
            console.UseUtcTimestamp = true;
            console.TimestampFormat = "yyyy-MM-ddTHH:mm:ss.fffZ ";
            console.ColorBehavior = Microsoft.Extensions.Logging.Console.LoggerColorBehavior.Disabled;
        });
        builder.Logging.SetMinimumLevel(LogLevel.Information)
            .AddFilter("Microsoft", LogLevel.Warning).AddFilter("Microsoft.Extensions.Hosting", LogLevel.None).AddFilter("Npgsql", LogLevel.Warning);
        if (launcher is not null) builder.Services.AddSingleton(launcher);
        if (search is not null) builder.Services.AddSingleton(search);
        builder.Services.AddMountLedger(settings);
        builder.Services.AddSingleton<MeterReadings>();
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
        // It does not need what is mapped and opened here, and takes longer.
        var service = app.Services.GetRequiredService<MountLedgerService>();
        service.Begin();
        app.UseProblems();
        app.MapOpenApi();
        app.MapMounts();
        app.MapQueries();
        app.MapHosts();
        app.MapMetrics();
        app.MapRepairs();

        // Whoever can connect may mount: the agent's own user alone, until somebody opens the socket wider. Connecting takes
        // the right to write, which the mask has kept from everybody else since the socket appeared.
        using var hangUp = PosixSignalRegistration.Create(PosixSignal.SIGHUP, signal =>
        {
            // A closed terminal is a reason to stop, but not one to be torn down for.
            signal.Cancel = true;
            app.Lifetime.StopApplication();
        });
        try
        {
            await app.StartAsync();
            File.SetUnixFileMode(settings.Socket, UnixFileMode.UserRead | UnixFileMode.UserWrite);
            _ = GiveBackAfterStartAsync(service.Ready, app.Lifetime.ApplicationStopping);
            await app.WaitForShutdownAsync();
        }
        catch (OperationCanceledException) when (service.ExitCode != 0 || app.Lifetime.ApplicationStopping.IsCancellationRequested)
        {
            // What kept the agent from starting has been said already; or it was told to stop before it had started.
            await service.StopAsync(CancellationToken.None);
        }
        return service.ExitCode;
    }

    /// <summary>Gives the system back what only the start needed: the collector alone would keep it until memory is short.</summary>
    private static async Task GiveBackAfterStartAsync(Task ready, CancellationToken stopping)
    {
        await Task.WhenAny(ready);
        if (!ready.IsCompletedSuccessfully) return;
        // The commands that waited for the start come first.
        await Task.WhenAny(Task.Delay(StartQuietAfter, stopping));
        if (!stopping.IsCancellationRequested) GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
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
