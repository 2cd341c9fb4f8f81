namespace MountLedger.Postgres.Tests;

/// <summary>Idempotency keys: kept with the append, answered again, owned by who made them.</summary>
public sealed class RequestTests(PostgresServer server) : LedgerTest(server)
{
    [PostgresFact]
    public async Task The_same_key_again_appends_nothing_and_returns_the_row_that_stands()
    {
        Assert.IsType<AppendResult.Appended>(await AppendWithKeyAsync("k1"));
        var before = await EverythingAsync();

        var again = Assert.IsType<AppendResult.DuplicateRequest>(await AppendWithKeyAsync("k1"));
        var other = Assert.IsType<AppendResult.DuplicateRequest>(await AppendWithKeyAsync("k1", body: "another"));

        Assert.Equal(("k1", "alice", "b0", Path, null), (again.Existing.Key, again.Existing.Actor, again.Existing.BodyHash, again.Existing.Mountpoint, again.Existing.Answer));
        Assert.Equal("b0", other.Existing.BodyHash);
        Assert.Equal(before, await EverythingAsync());
    }

    [PostgresFact]
    public async Task Sixteen_at_once_with_one_key_append_once()
    {
        var results = await Task.WhenAll(Enumerable.Range(0, 16).Select(i => Task.Run(async () =>
        {
            var state = MountState.Initial(new StreamKey(Host, $"/srv/{i}"));
            return await Store.AppendAsync(Batch(state, FirstAttach(), request: Request("k1")), default);
        })));

        Assert.Single(results.OfType<AppendResult.Appended>());
        Assert.Equal(15, results.OfType<AppendResult.DuplicateRequest>().Count());
        Assert.Equal(2, await ScalarAsync<long>("select count(*) from mountledger.mt_events"));
    }

    [PostgresFact]
    public async Task An_answer_is_kept_and_the_first_one_stands()
    {
        await AppendWithKeyAsync("k1");

        var first = await Store.SaveAnswerAsync(Host, Request("k1", answer: """{"a":  1}"""), default);
        var second = await Store.SaveAnswerAsync(Host, Request("k1", answer: "late"), default);

        Assert.Equal((200, """{"a":  1}"""), (first.Status, first.Answer));
        Assert.Equal(first, second);
        Assert.Equal(first, await Store.FindRequestAsync(Host, "k1", default));
    }

    [PostgresFact]
    public async Task An_answer_without_an_append_creates_the_row()
    {
        Assert.Null(await Store.FindRequestAsync(Host, "k1", default));

        await Store.SaveAnswerAsync(Host, Request("k1", answer: "noop"), default);

        Assert.Equal("noop", (await Store.FindRequestAsync(Host, "k1", default))!.Answer);
        Assert.Null(await Store.FindRequestAsync("h2", "k1", default));
    }

    [PostgresTheory]
    [InlineData("mallory", "b0")]
    [InlineData("alice", "b1")]
    public async Task Nobody_else_and_no_other_body_can_answer_a_request(string actor, string body)
    {
        await AppendWithKeyAsync("k1");

        var standing = await Store.SaveAnswerAsync(Host, Request("k1", actor, body, "forged"), default);

        Assert.Equal(("alice", "b0", null), (standing.Actor, standing.BodyHash, standing.Answer));
        Assert.Null((await Store.FindRequestAsync(Host, "k1", default))!.Answer);
    }

    [PostgresFact]
    public async Task After_a_day_a_key_is_as_good_as_new_and_purged()
    {
        await AppendWithKeyAsync("k1");
        await AppendWithKeyAsync("k2");
        await ExecuteAsync("update mountledger.request set created = created - interval '25 hours'");

        Assert.Null(await Store.FindRequestAsync(Host, "k1", default));
        Assert.IsType<AppendResult.Appended>(await AppendWithKeyAsync("k1"));
        Assert.Equal(1, await Store.PurgeRequestsAsync(default));
        Assert.NotNull(await Store.FindRequestAsync(Host, "k1", default));
    }

    private async Task<AppendResult> AppendWithKeyAsync(string key, string body = "b0")
    {
        var state = await Store.LoadAsync(Stream, default);
        var events = state.Version == 0 ? FirstAttach() : [new MountEvent.AttachmentAdded("vol", $"vm-{state.Version}", OnFailure.Forget)];
        return await Store.AppendAsync(Batch(state, events, request: Request(key, body: body)), default);
    }
}
