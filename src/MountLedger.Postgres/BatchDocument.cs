using System.Buffers;
using System.Collections.Immutable;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace MountLedger.Postgres;

/// <summary>
/// The one parameter of <c>mountledger.ledger_append</c>: a batch as a JSON document (its members are listed in
/// <c>migrations/0002_append.sql</c>), and the projection rows in the form that append and rebuild share.
/// </summary>
internal static class BatchDocument
{
    private static readonly JsonWriterOptions Options = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping, SkipValidation = true };

    /// <param name="batch">What is appended.</param>
    /// <param name="events">The batch's events, encoded, with the ids that they get.</param>
    public static byte[] Encode(AppendBatch batch, ImmutableArray<EncodedEvent> events) => Write(json =>
    {
        json.WriteString("host", batch.Stream.Host);
        json.WriteString("stream", batch.Stream.Id);
        json.WriteNumber("expected", batch.ExpectedVersion);
        json.WriteString("actor", batch.Origin.Actor);
        json.WriteString("correlation", batch.Origin.CorrelationId);
        json.WriteString("causation", batch.Origin.CausationId);
        if (batch.Origin.Epoch is { } epoch) json.WriteNumber("epoch", epoch);
        json.WriteString("agent", batch.Origin.Agent);
        json.WriteBoolean("local", batch.Origin.LocalAgent);
        json.WriteBoolean("requireUp", batch.RequireHostUp);
        if (batch.Request is { } request) WriteRequest(json, request);
        json.WriteStartArray("events");
        foreach (var change in events)
        {
            json.WriteStartObject();
            json.WriteString("id", change.Id);
            json.WriteString("type", change.Type);
            json.WriteString("dotnet", change.DotnetType);
            json.WritePropertyName("data");
            json.WriteRawValue(change.Data, skipInputValidation: true);
            json.WriteEndObject();
        }
        json.WriteEndArray();
        if (batch.NewState is { } state)
        {
            json.WriteStartObject("mountpoint");
            WriteMountpoint(json, state);
            json.WriteEndObject();
            WriteAttachmentChanges(json, batch.Attachments);
        }
        if (batch.NewHostState is { } host)
        {
            json.WriteStartObject("hostRow");
            WriteHost(json, host);
            json.WriteBoolean("downNow", batch.Events.Any(change => change is HostEvent.HostDown));
            json.WriteBoolean("agentNow", batch.Events.Any(change => change is HostEvent.AgentStarted));
            json.WriteEndObject();
        }
    });

    /// <summary>A mountpoint's row, for <c>ledger_put_mountpoint</c>.</summary>
    public static byte[] EncodeMountpoint(MountState state) => Write(json => WriteMountpoint(json, state));

    /// <summary>All attachments of a state with their times, for <c>ledger_put_attachments</c>.</summary>
    public static byte[] EncodeAttachments(MountState state) => Document(json =>
    {
        json.WriteStartArray();
        foreach (var attachment in state.Attachments.Values) WriteAttachment(json, attachment, withSince: true);
        json.WriteEndArray();
    });

    /// <summary>A host's row with its times, for <c>ledger_put_host</c>.</summary>
    public static byte[] EncodeHost(HostState state) => Write(json =>
    {
        WriteHost(json, state);
        if (state.DownSince is { } downSince) json.WriteString("downSince", downSince);
        if (state.AgentStartedAt is { } startedAt) json.WriteString("agentStartedAt", startedAt);
    });

    /// <summary>The stored form of an enum: what the JSON of events has, too.</summary>
    public static string Name<T>(T value) where T : struct, Enum => JsonNamingPolicy.KebabCaseLower.ConvertName(value.ToString());

    /// <summary>The enum of a stored name; false when it is none, so that a damaged row can be told.</summary>
    public static bool TryParse<T>(string name, out T value) where T : struct, Enum =>
        Enum.TryParse(name.Replace("-", "", StringComparison.Ordinal), ignoreCase: true, out value) && Name(value) == name;

    private static void WriteRequest(Utf8JsonWriter json, StoredRequest request)
    {
        json.WriteStartObject("request");
        json.WriteString("key", request.Key);
        json.WriteString("actor", request.Actor);
        json.WriteString("bodyHash", request.BodyHash);
        json.WriteString("mountpoint", request.Mountpoint);
        if (request.Version is { } version) json.WriteNumber("version", version);
        if (request.Status is { } status) json.WriteNumber("status", status);
        json.WriteString("answer", request.Answer);
        json.WriteEndObject();
    }

    private static void WriteMountpoint(Utf8JsonWriter json, MountState state)
    {
        var next = MountFlow.NextAction(state);
        json.WriteString("phase", Name(state.Phase));
        json.WriteString("action", Name(next.Kind));
        if (next.DueAt is { } dueAt) json.WriteString("dueAt", dueAt);
        json.WriteNumber("generation", state.Generation);
        json.WriteString("source", state.Spec?.Source);
        json.WriteString("fstype", state.Spec?.FsType);
        json.WriteStartArray("options");
        foreach (var option in state.Spec?.Options ?? []) json.WriteStringValue(option);
        json.WriteEndArray();
        json.WriteString("bootId", state.Kernel?.BootId);
        if (state.Kernel?.MountId is { } mountId) json.WriteNumber("mountId", mountId);
        if (state.Error is { } error)
        {
            json.WriteString("errorOperation", Name(error.Operation));
            json.WriteString("errorErrno", error.Errno);
            json.WriteString("errorMessage", error.Message);
            if (error.RetryAt is { } retryAt) json.WriteString("retryAt", retryAt);
        }
        json.WritePropertyName("state");
        json.WriteRawValue(MountStateCodec.Encode(state), skipInputValidation: true);
    }

    private static void WriteAttachmentChanges(Utf8JsonWriter json, AttachmentChanges changes)
    {
        if (!changes.Added.IsDefaultOrEmpty)
        {
            json.WriteStartArray("added");
            foreach (var attachment in changes.Added) WriteAttachment(json, attachment, withSince: false);
            json.WriteEndArray();
        }
        if (!changes.Removed.IsDefaultOrEmpty)
        {
            json.WriteStartArray("removed");
            foreach (var key in changes.Removed)
            {
                json.WriteStartObject();
                json.WriteString("volume", key.Volume);
                json.WriteString("consumer", key.Consumer);
                json.WriteEndObject();
            }
            json.WriteEndArray();
        }
        json.WriteBoolean("confirmAll", changes.ConfirmAll);
    }

    private static void WriteAttachment(Utf8JsonWriter json, Attachment attachment, bool withSince)
    {
        json.WriteStartObject();
        json.WriteString("volume", attachment.Volume);
        json.WriteString("consumer", attachment.Consumer);
        json.WriteString("onFailure", Name(attachment.OnFailure));
        json.WriteBoolean("first", attachment.First);
        json.WriteBoolean("confirmed", attachment.Confirmed);
        if (withSince) json.WriteString("since", attachment.Since);
        json.WriteString("actor", attachment.Actor);
        json.WriteEndObject();
    }

    private static void WriteHost(Utf8JsonWriter json, HostState state)
    {
        json.WriteBoolean("up", state.IsUp);
        json.WriteString("downReason", state.DownReason);
        json.WriteString("downBy", state.DownBy);
        if (state.Agent is not { } agent) return;
        json.WriteNumber("agentEpoch", agent.Epoch);
        json.WriteString("agentId", agent.Agent);
        json.WriteString("agentMachineId", agent.MachineId);
        json.WriteString("agentBootId", agent.BootId);
        json.WriteString("agentKernel", agent.Kernel);
        json.WriteString("agentVersion", agent.Version);
    }

    private static byte[] Write(Action<Utf8JsonWriter> members) => Document(json =>
    {
        json.WriteStartObject();
        members(json);
        json.WriteEndObject();
    });

    private static byte[] Document(Action<Utf8JsonWriter> write)
    {
        var buffer = new ArrayBufferWriter<byte>(2048);
        using (var json = new Utf8JsonWriter(buffer, Options)) write(json);
        return WithoutNul(buffer.WrittenSpan);
    }

    /// <summary>
    /// PostgreSQL's text cannot hold U+0000, and refuses a document with its escape. What a helper printed may contain it, and an
    /// outcome that cannot be recorded would be worse than one with a replacement character.
    /// </summary>
    private static byte[] WithoutNul(ReadOnlySpan<byte> json)
    {
        var document = json.ToArray();
        if (json.IndexOf("\\u0000"u8) < 0) return document;
        for (var i = 0; i < document.Length - 5; i++)
        {
            if (document[i] != '\\') continue;
            if (document.AsSpan(i).StartsWith("\\u0000"u8)) "\\ufffd"u8.CopyTo(document.AsSpan(i));
            i++; // what is escaped is no start of an escape itself
        }
        return document;
    }
}

/// <summary>An event on its way into the ledger.</summary>
internal readonly record struct EncodedEvent(string Id, string Type, string DotnetType, string Data)
{
    public static EncodedEvent Of(LedgerEvent change) => new(
        Guid.CreateVersion7().ToString(), EventCatalog.StoredName(change), EventCatalog.DotnetType(change), EventCatalog.Encode(change));
}
