using Microsoft.Extensions.DependencyInjection.Extensions;
using MountLedger.Linux;

namespace MountLedger.Agent;

/// <summary>How a .NET program becomes the agent of its host: <c>docs/embedding.md</c> shows it in use.</summary>
public static class MountLedgerRegistration
{
    /// <summary>
    /// Registers the agent as a hosted service and one handler for each command (<see cref="MountVolumeHandler"/>,
    /// <see cref="UnmountVolumeHandler"/>, <see cref="RemountVolumeHandler"/>, <see cref="ChangeHostHandler"/>). No socket is opened; the handlers validate, decide
    /// and record exactly as the HTTP interface does. Await <see cref="MountLedgerService.Ready"/> to know that commands are taken.
    /// </summary>
    /// <exception cref="SettingException">A setting cannot be used.</exception>
    public static IServiceCollection AddMountLedger(this IServiceCollection services, Func<AgentSettings, AgentSettings> configure) =>
        services.AddMountLedger(AgentSettings.Load(configFile: null, _ => null, configure));

    /// <summary>The same with settings that have been loaded and checked.</summary>
    public static IServiceCollection AddMountLedger(this IServiceCollection services, AgentSettings settings)
    {
        services.TryAddSingleton(TimeProvider.System);
        services.AddSingleton(settings);
        services.AddSingleton(settings.Policy());
        services.AddSingleton(new NodeAccess(static () => Guid.CreateVersion7().ToString()));
        services.AddSingleton<LedgerAccess>();
        services.AddSingleton(provider => settings.Workers() with
        {
            Launcher = provider.GetService<Launcher>(),
            Logger = provider.GetRequiredService<ILoggerFactory>().CreateLogger("worker"),
        });
        services.AddSingleton<MountVolumeHandler>();
        services.AddSingleton<UnmountVolumeHandler>();
        services.AddSingleton<RemountVolumeHandler>();
        services.AddSingleton<ChangeHostHandler>();
        services.AddSingleton<AgentExamination>();
        services.AddSingleton<RepairHandler>();
        services.AddSingleton<PresentQueries>();
        services.AddSingleton<MountLedgerService>();
        services.AddHostedService(provider => provider.GetRequiredService<MountLedgerService>());
        return services;
    }
}
