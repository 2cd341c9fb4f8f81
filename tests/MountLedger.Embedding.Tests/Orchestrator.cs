using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using MountLedger.Agent;
using MountLedger.Linux;

namespace MountLedger.Embedding;

/// <summary>
/// A program that embeds MountLedger as docs/embedding.md shows it: a generic host, <c>AddMountLedger</c>, handlers out of its
/// services. It can be stopped and started again on the same directory; disposal leaves nothing.
/// </summary>
public sealed class Orchestrator : IAsyncDisposable
{
    public const string HostName = "embedded";

    private static readonly TimeSpan ReadyMax = TimeSpan.FromSeconds(60);

    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("mountledger-embed-");
    private readonly string _postgres;
    private readonly Action<IServiceCollection>? _register;
    private IHost? _app;

    private Orchestrator(string postgres, Action<IServiceCollection>? register)
    {
        _postgres = postgres;
        _register = register;
        Root = Path.Combine(_directory.FullName, "mnt");
    }

    public string Root { get; }

    public IServiceProvider Services => _app!.Services;

    public MountVolumeHandler Mounts => Services.GetRequiredService<MountVolumeHandler>();

    public UnmountVolumeHandler Unmounts => Services.GetRequiredService<UnmountVolumeHandler>();

    public static async Task<Orchestrator> StartAsync(PostgresServer server, Action<IServiceCollection>? register = null)
    {
        RootEnvironment.Require();
        var orchestrator = new Orchestrator(await server.CreateLedgerAsync(), register);
        try
        {
            await orchestrator.StartAgainAsync();
            return orchestrator;
        }
        catch
        {
            await orchestrator.DisposeAsync();
            throw;
        }
    }

    public async Task StartAgainAsync()
    {
        _app = Build();
        await _app.StartAsync();
        await _app.Services.GetRequiredService<MountLedgerService>().Ready.WaitAsync(ReadyMax);
    }

    /// <summary>Another application with the same settings, not started.</summary>
    public IHost Build()
    {
        var builder = Host.CreateApplicationBuilder();
        builder.Logging.ClearProviders();
        builder.Services.AddMountLedger(settings => settings with
        {
            Host = HostName,
            StateDir = Path.Combine(_directory.FullName, "state"),
            LockDir = Path.Combine(_directory.FullName, "lock"),
            Roots = [Root],
            Postgres = _postgres,
        });
        _register?.Invoke(builder.Services);
        return builder.Build();
    }

    public async Task StopAsync()
    {
        if (_app is not { } app) return;
        _app = null;
        await app.StopAsync();
        app.Dispose();
    }

    public string PathOf(string name) => Path.Combine(Root, name);

    public MountVolume Mount(string name, string consumer, string source = "scratch", string fstype = "tmpfs", params string[] options) => new()
    {
        Actor = "orchestrator",
        Mountpoint = PathOf(name),
        Source = source,
        Fstype = fstype,
        Options = [.. options],
        Volume = "vol",
        Consumer = consumer,
    };

    public UnmountVolume Unmount(string name, string consumer) =>
        new() { Actor = "orchestrator", Mountpoint = PathOf(name), Volume = "vol", Consumer = consumer };

    public ObservedMount[] MountsAt(string name) =>
        [.. MountInfoReader.Read(out _).Select(entry => entry.Mount).Where(mount => mount.Path == PathOf(name))];

    public async ValueTask DisposeAsync()
    {
        await StopAsync();
        foreach (var mount in MountInfoReader.Read(out _).Select(entry => entry.Mount).Reverse().Where(mount => MountPath.IsBelow(mount.Path, _directory.FullName)))
        {
            using var umount = System.Diagnostics.Process.Start("umount", ["--lazy", "--no-canonicalize", mount.Path]);
            await umount.WaitForExitAsync();
        }
        _directory.Delete(recursive: true);
    }
}
