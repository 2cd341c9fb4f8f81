namespace MountLedger.EndToEnd;

/// <summary>
/// What the tests with real programs share: one PostgreSQL with a fresh ledger for each agent, and one agent for the tests
/// that only ask it something.
/// </summary>
public sealed class AgentSuite : IAsyncLifetime
{
    public const string Name = "agent";

    private Task<AgentProcess>? _shared;

    public PostgresServer Server { get; } = new();

    public Task InitializeAsync() => Server.InitializeAsync();

    /// <summary>An agent that lives through all tests; each uses mountpoints of its own.</summary>
    public Task<AgentProcess> SharedAsync() => _shared ??= StartAsync();

    public async Task<AgentProcess> StartAsync(Action<Dictionary<string, string>>? environment = null)
    {
        RootEnvironment.Require();
        return await AgentProcess.StartAsync(await Server.CreateLedgerAsync(), environment);
    }

    public async Task DisposeAsync()
    {
        try
        {
            if (_shared is not null) await (await _shared).DisposeAsync();
        }
        finally
        {
            await Server.DisposeAsync();
        }
    }
}

[CollectionDefinition(AgentSuite.Name)]
public sealed class AgentSuiteDefinition : ICollectionFixture<AgentSuite>;
