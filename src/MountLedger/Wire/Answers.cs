using System.Buffers;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace MountLedger.Wire;

/// <summary>From what a command came to, to the HTTP status and the JSON that answers it (section 8 of the contract).</summary>
public static class Answers
{
    /// <summary>The JSON of every answer: non-ASCII text readable, as these documents never stand in HTML.</summary>
    public static readonly AnswerJson Json = new(new JsonSerializerOptions(AnswerJson.Default.Options)
    {
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        Converters = { new AttachmentWriter() },
    });

    /// <summary>The status, and the document in UTF-8; in parts, as much of a long one is kept from answer to answer.</summary>
    public static (int Status, ReadOnlySequence<byte> Json) Render(CommandResult result) => result switch
    {
        CommandResult.Done done => (200, Write(done.State, done.Outcome)),
        CommandResult.Pending pending => (202, Write(pending.State, Outcome.Pending)),
        CommandResult.Replayed replayed => (replayed.Status, new(Encoding.UTF8.GetBytes(replayed.Answer))),
        CommandResult.Rejected { Rejection: Rejection.VersionConflict { Expected: not null } conflict } rejected =>
            Render(Of(412, "the mountpoint has changed", conflict, rejected.State)),
        CommandResult.Rejected { Rejection: Rejection.NotPermitted refused } rejected =>
            Render(Of(403, "not permitted", refused, rejected.State)),
        CommandResult.Rejected rejected => Render(Of(409, "rejected by the rules", rejected.Rejection, rejected.State)),
        CommandResult.Failed failed => Render(new Problem
        {
            Type = Problem.TypePrefix + $"{Name(failed.Error.Operation)}-failed",
            Title = $"the {Name(failed.Error.Operation)} failed",
            Status = 422,
            Detail = failed.Error.Message,
            Error = Views.Of(failed.Error),
            Current = Views.Of(failed.State),
        }),
        CommandResult.KeyReused reused => Render(Problems.Invalid(
            [new InputError("Idempotency-Key", "same-request", reused.Key, "was used for another request: use a new key for a new request")])),
        CommandResult.Invalid invalid => Render(Problems.Invalid(invalid.Errors)),
        CommandResult.Unavailable unavailable => Render(Problems.Unavailable(unavailable.Reason)),
        _ => throw new ArgumentOutOfRangeException(nameof(result), result, "not a result"),
    };

    public static (int Status, ReadOnlySequence<byte> Json) Render(Problem problem) =>
        (problem.Status, new(JsonSerializer.SerializeToUtf8Bytes(problem, Json.Problem)));

    private static Problem Of(int status, string title, Rejection rejection, MountState state) => new()
    {
        Type = Problem.TypePrefix + rejection.Name,
        Title = title,
        Status = status,
        Detail = rejection.Message,
        Current = Views.Of(state),
    };

    private static ReadOnlySequence<byte> Write(MountState state, Outcome outcome)
    {
        var isLong = AttachmentsText.IsKept(state.Attachments);
        var view = Views.Of(state, isLong ? AttachmentSet.Empty : state.Attachments);
        var json = JsonSerializer.SerializeToUtf8Bytes(
            new OutcomeView(view, JsonNamingPolicy.KebabCaseLower.ConvertName(outcome.ToString())), Json.OutcomeView);
        return isLong ? AttachmentsText.Into(json, state.Attachments) : new(json);
    }

    private static string Name(OperationKind kind) => JsonNamingPolicy.KebabCaseLower.ConvertName(kind.ToString());
}

/// <summary>From the domain's states to the shapes of the contract.</summary>
public static class Views
{
    public static MountpointView Of(MountState state) => Of(state, state.Attachments);

    /// <summary>With these for its attachments.</summary>
    internal static MountpointView Of(MountState state, AttachmentSet attachments) => new()
    {
        Host = state.Stream.Host,
        Mountpoint = state.Mountpoint,
        Phase = state.Phase,
        Version = state.Version,
        Generation = state.Generation,
        Source = state.Spec?.Source,
        Fstype = state.Spec?.FsType,
        Options = state.Spec?.Options ?? [],
        Attachments = [.. attachments.Select(Of)],
        Kernel = state.Kernel is { } kernel ? new KernelView(kernel.BootId, kernel.MountId) : null,
        Error = Doubt(state) ?? (state.Error is { } error ? Of(error) : Stale(state)),
        UpdatedAt = state.Version == 0 ? null : state.UpdatedAt,
    };

    internal static AttachmentView Of(Attachment attachment) => new(attachment.Volume, attachment.Consumer, attachment.Since, attachment.Actor);

    /// <summary>Of an operation whose outcome nobody knows: that, and why.</summary>
    private static ErrorView? Doubt(MountState state) => state is { Uncertain: true, UncertainReason: { } reason }
        ? new ErrorView(state.Operation?.Kind ?? OperationKind.Mount, "ETIMEDOUT", $"the outcome is not known: {reason}", [], null)
        : null;

    /// <summary>Of a mount that is in place and of no use: what its server, or the lack of one, answers.</summary>
    private static ErrorView? Stale(MountState state) => state.Drift.TryGetValue(DriftKind.Stale, out var why) && why is not null
        ? new ErrorView(OperationKind.Mount, why.Split(':')[0], $"what is mounted there is stale, {why}", [], null)
        : null;

    public static RepairView Of(RepairResult line) => new(line.Mountpoint, line.Plan.Drift, line.Plan.Text, line.Outcome, line.Note);

    public static ErrorView Of(OperationError error) =>
        new(error.Operation, error.Errno, error.Message, error.Holders, error.RetryAt);

    public static EventView Of(RecordedEvent recorded)
    {
        using var data = JsonDocument.Parse(recorded.DataJson);
        return new EventView(
            recorded.Seq, recorded.Stream.Host, recorded.Stream.Id, recorded.Version, recorded.StoredType, recorded.At,
            recorded.Actor, recorded.CorrelationId, data.RootElement.Clone(), recorded.Hash);
    }
}
