namespace MountLedger.Embedding;

/// <summary>The tests share one PostgreSQL; each has a ledger of its own in it.</summary>
[CollectionDefinition(Name)]
public sealed class EmbeddingSuite : ICollectionFixture<PostgresServer>
{
    public const string Name = "embedding";
}
