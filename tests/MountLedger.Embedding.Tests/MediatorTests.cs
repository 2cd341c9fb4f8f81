using Microsoft.Extensions.DependencyInjection;

namespace MountLedger.Embedding;

/// <summary>
/// The handlers fit behind request handlers of a mediator: interfaces of the same shape as MediatR's, which cannot be
/// restored here, and an adapter of a few lines for each command.
/// </summary>
[Collection(EmbeddingSuite.Name)]
public sealed class MediatorTests(PostgresServer server)
{
    private interface IRequest<out TResponse>;

    private interface IRequestHandler<in TRequest, TResponse> where TRequest : IRequest<TResponse>
    {
        Task<TResponse> Handle(TRequest request, CancellationToken cancellationToken);
    }

    private sealed record MountVolumeRequest(MountVolume Command) : IRequest<CommandResult>;

    private sealed record UnmountVolumeRequest(UnmountVolume Command) : IRequest<CommandResult>;

    private sealed record ChangeHostRequest(ChangeHost Command) : IRequest<HostResult>;

    private sealed class MountVolumeRequestHandler(MountVolumeHandler handler) : IRequestHandler<MountVolumeRequest, CommandResult>
    {
        public Task<CommandResult> Handle(MountVolumeRequest request, CancellationToken cancellationToken) =>
            handler.Handle(request.Command, cancellationToken);
    }

    private sealed class UnmountVolumeRequestHandler(UnmountVolumeHandler handler) : IRequestHandler<UnmountVolumeRequest, CommandResult>
    {
        public Task<CommandResult> Handle(UnmountVolumeRequest request, CancellationToken cancellationToken) =>
            handler.Handle(request.Command, cancellationToken);
    }

    private sealed class ChangeHostRequestHandler(ChangeHostHandler handler) : IRequestHandler<ChangeHostRequest, HostResult>
    {
        public Task<HostResult> Handle(ChangeHostRequest request, CancellationToken cancellationToken) =>
            handler.Handle(request.Command, cancellationToken);
    }

    /// <summary>What a mediator does: finds the one handler of a request's type.</summary>
    private sealed class Mediator(IServiceProvider services)
    {
        public Task<TResponse> Send<TRequest, TResponse>(TRequest request) where TRequest : IRequest<TResponse> =>
            services.GetRequiredService<IRequestHandler<TRequest, TResponse>>().Handle(request, CancellationToken.None);
    }

    [RootFact]
    public async Task Commands_are_sent_through_a_mediator()
    {
        await using var program = await Orchestrator.StartAsync(server, services => services
            .AddTransient<IRequestHandler<MountVolumeRequest, CommandResult>, MountVolumeRequestHandler>()
            .AddTransient<IRequestHandler<UnmountVolumeRequest, CommandResult>, UnmountVolumeRequestHandler>()
            .AddTransient<IRequestHandler<ChangeHostRequest, HostResult>, ChangeHostRequestHandler>()
            .AddSingleton<Mediator>());
        var mediator = program.Services.GetRequiredService<Mediator>();

        var mounted = await mediator.Send<MountVolumeRequest, CommandResult>(new(program.Mount("a", "c")));
        Assert.Equal(Outcome.Mounted, Assert.IsType<CommandResult.Done>(mounted).Outcome);
        Assert.Single(program.MountsAt("a"));
        var down = await mediator.Send<ChangeHostRequest, HostResult>(new(new ChangeHost("operator", null, Up: false, null)));
        Assert.False(Assert.IsType<HostResult.Done>(down).State.IsUp);
        var unmounted = await mediator.Send<UnmountVolumeRequest, CommandResult>(new(program.Unmount("a", "c")));
        Assert.Equal(Outcome.Unmounted, Assert.IsType<CommandResult.Done>(unmounted).Outcome);
        Assert.Empty(program.MountsAt("a"));
    }
}
