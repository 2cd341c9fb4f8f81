using System.Text;
using MountLedger.Wire;

namespace MountLedger;

/// <summary>
/// Idempotency keys: the same request again gets the same answer, also when nothing was appended, when the operation
/// failed, or when the agent died before it could answer (then the answer is found in the stream's history).
/// </summary>
public sealed class RequestReplay(IEventStore store, LiveStates live)
{
    /// <returns>Null when the key is new.</returns>
    public async Task<CommandResult?> FindAsync(MountCommand command, RequestKey request, CancellationToken patience) =>
        await store.FindRequestAsync(command.Stream.Host, request.Key, CancellationToken.None) is { } row
            ? await AnswerAsync(command, row, patience)
            : null;

    public async Task<CommandResult> AnswerAsync(MountCommand command, StoredRequest row, CancellationToken patience)
    {
        if (row.BodyHash != command.Request!.BodyHash || row.Actor != command.Actor) return new CommandResult.KeyReused(row.Key);
        if (row is { Answer: { } answer, Status: { } status }) return new CommandResult.Replayed(status, answer);
        return await KeepAsync(command, command.Request, await FromHistoryAsync(command, row, patience), row.Version, patience);
    }

    /// <summary>
    /// Keeps a settled answer. One that is still open is found in the history by the repeat. <paramref name="version"/>: at which
    /// the request was recorded; null when it recorded nothing. The same request may have recorded something meanwhile: then that
    /// one's answer is the answer.
    /// </summary>
    public async Task<CommandResult> KeepAsync(
        MountCommand command, RequestKey request, CommandResult result, long? version, CancellationToken patience)
    {
        if (result is CommandResult.Pending or CommandResult.Replayed or CommandResult.KeyReused or CommandResult.Unavailable) return result;
        var (status, document) = Answers.Render(result);
        var json = Encoding.UTF8.GetString(document);
        try
        {
            KillPoint.Reached("before-answer-kept");
            var row = await store.SaveAnswerAsync(
                command.Stream.Host,
                new StoredRequest(request.Key, command.Actor, request.BodyHash, command.Stream.Id, version, status, json),
                CancellationToken.None);
            KillPoint.Reached("after-answer-kept");
            if (row.BodyHash != request.BodyHash || row.Actor != command.Actor) return new CommandResult.KeyReused(row.Key);
            if (row.Answer is null && row.Version != version) return await AnswerAsync(command, row, patience);
            return row.Answer == json ? result : new CommandResult.Replayed(row.Status ?? status, row.Answer ?? json);
        }
        catch (LedgerUnavailableException) when (version is not null)
        {
            // What the command did is recorded; only its answer is not, and a repeat works that out. An answer of which nothing at all is
            // recorded must not be given: the repeat might be answered otherwise.
            return result;
        }
    }

    private async Task<CommandResult> FromHistoryAsync(MountCommand command, StoredRequest row, CancellationToken patience)
    {
        var version = row.Version ?? 0;
        var state = MountState.Initial(command.Stream);
        foreach (var recorded in await store.ReadStreamAsync(command.Stream, fromVersion: 1, CancellationToken.None))
        {
            state = state.Evolve(recorded);
            if (state.Version >= version && OutcomeOf.Command(command, state, version) is { } result) return result;
        }
        live.Publish(state);
        if (command.Wait <= TimeSpan.Zero) return new CommandResult.Pending(state);
        try
        {
            var settled = await live.WaitAsync(
                state.Mountpoint, newest => OutcomeOf.Command(command, newest, version) is not null, patience);
            return OutcomeOf.Command(command, settled, version)!;
        }
        catch (OperationCanceledException)
        {
            return new CommandResult.Pending(state);
        }
    }
}
