using System.Collections.Immutable;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;

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

    /// <summary>The status, and the document in UTF-8.</summary>
    public static (int Status, byte[] Json) Render(CommandResult result) => result switch
    {
        CommandResult.Done done => (200, Write(Outcome(done.State, done.Outcome))),
        CommandResult.Pending pending => (202, Write(Outcome(pending.State, MountLedger.Outcome.Pending))),
        CommandResult.Replayed replayed => (replayed.Status, Encoding.UTF8.GetBytes(replayed.Answer)),
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

    public static (int Status, byte[] Json) Render(Problem problem) =>
        (problem.Status, JsonSerializer.SerializeToUtf8Bytes(problem, Json.Problem));

    private static Problem Of(int status, string title, Rejection rejection, MountState state) => new()
    {
        Type = Problem.TypePrefix + rejection.Name,
        Title = title,
        Status = status,
        Detail = rejection.Message,
        Current = Views.Of(state),
    };

    private static OutcomeView Outcome(MountState state, Outcome outcome)
    {
        var view = Views.Of(state);
        return new OutcomeView
        {
            Host = view.Host,
            Mountpoint = view.Mountpoint,
            Phase = view.Phase,
            Version = view.Version,
            Generation = view.Generation,
            Source = view.Source,
            Fstype = view.Fstype,
            Options = view.Options,
            Attachments = view.Attachments,
            Kernel = view.Kernel,
            Error = view.Error,
            UpdatedAt = view.UpdatedAt,
            Outcome = JsonNamingPolicy.KebabCaseLower.ConvertName(outcome.ToString()),
        };
    }

    private static byte[] Write(OutcomeView view) => JsonSerializer.SerializeToUtf8Bytes(view, Json.OutcomeView);

    private static string Name(OperationKind kind) => JsonNamingPolicy.KebabCaseLower.ConvertName(kind.ToString());
}

/// <summary>
/// Writes what a mountpoint may have ten thousand of, each time that one more comes: the same document as by the serializer's own way, which goes through the description
/// of each member.
/// </summary>
internal sealed class AttachmentWriter : JsonConverter<AttachmentView>
{
    public override AttachmentView? Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) =>
        JsonSerializer.Deserialize(ref reader, AnswerJson.Default.AttachmentView);

    public override void Write(Utf8JsonWriter writer, AttachmentView value, JsonSerializerOptions options)
    {
        writer.WriteStartObject();
        writer.WriteString("volume"u8, value.Volume);
        writer.WriteString("consumer"u8, value.Consumer);
        writer.WriteString("since"u8, value.Since);
        writer.WriteString("actor"u8, value.Actor);
        writer.WriteEndObject();
    }
}

/// <summary>From the domain's states to the shapes of the contract.</summary>
public static class Views
{
    public static MountpointView Of(MountState state) => new()
    {
        Host = state.Stream.Host,
        Mountpoint = state.Mountpoint,
        Phase = state.Phase,
        Version = state.Version,
        Generation = state.Generation,
        Source = state.Spec?.Source,
        Fstype = state.Spec?.FsType,
        Options = state.Spec?.Options ?? [],
        Attachments = Of(state.Attachments),
        Kernel = state.Kernel is { } kernel ? new KernelView(kernel.BootId, kernel.MountId) : null,
        Error = Doubt(state) ?? (state.Error is { } error ? Of(error) : Stale(state)),
        UpdatedAt = state.Version == 0 ? null : state.UpdatedAt,
    };

    private static ImmutableArray<AttachmentView> Of(ImmutableSortedDictionary<AttachmentKey, Attachment> attachments)
    {
        var views = ImmutableArray.CreateBuilder<AttachmentView>(attachments.Count);
        foreach (var (_, attachment) in attachments) views.Add(new AttachmentView(attachment.Volume, attachment.Consumer, attachment.Since, attachment.Actor));
        return views.MoveToImmutable();
    }

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
