using System.Buffers;
using System.Collections.Immutable;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace MountLedger.Postgres;

/// <summary>
/// The JSON documents that <c>mountledger.ledger_append</c> takes (their members are listed in <c>migrations/0002_append.sql</c>), in the form that
/// append and rebuild share.
/// </summary>
internal static class LedgerDocuments
{
    private static readonly JsonWriterOptions Options = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping, SkipValidation = true };

    /// <summary>What is kept for an idempotency key.</summary>
    public static byte[] EncodeRequest(StoredRequest request) => Write(json =>
    {
        json.WriteString("key", request.Key);
        json.WriteString("actor", request.Actor);
        json.WriteString("bodyHash", request.BodyHash);
        json.WriteString("mountpoint", request.Mountpoint);
        if (request.Version is { } version) json.WriteNumber("version", version);
        if (request.Status is { } status) json.WriteNumber("status", status);
        json.WriteString("answer", request.Answer);
    });

    /// <summary>The projection row that a batch leaves behind: of its mountpoint, or of its host.</summary>
    public static byte[] EncodeRow(AppendBatch batch) => batch.NewHostState is not { } host ? EncodeMountpoint(batch.NewState!) : Write(json =>
    {
        WriteHost(json, host);
        json.WriteBoolean("downNow", batch.Events.Any(change => change is HostEvent.HostDown));
        json.WriteBoolean("agentNow", batch.Events.Any(change => change is HostEvent.AgentStarted));
    });

    /// <summary>Attachments that are new, whose time is the append's; null: none.</summary>
    public static byte[]? EncodeAdded(AttachmentChanges changes) => changes.Added.IsDefaultOrEmpty ? null : WriteArray(json =>
    {
        foreach (var attachment in changes.Added) WriteAttachment(json, attachment, withSince: false);
    });

    /// <summary>Attachments that are gone; null: none.</summary>
    public static byte[]? EncodeRemoved(AttachmentChanges changes) => changes.Removed.IsDefaultOrEmpty ? null : WriteArray(json =>
    {
        foreach (var key in changes.Removed)
        {
            json.WriteStartObject();
            json.WriteString("volume", key.Volume);
            json.WriteString("consumer", key.Consumer);
            json.WriteEndObject();
        }
    });

    /// <summary>An event's data, as it was encoded.</summary>
    public static byte[] EncodeData(string data) => WithoutNul(Encoding.UTF8.GetBytes(data));

    /// <summary>A mountpoint's row, for <c>ledger_put_mountpoints</c>.</summary>
    public static byte[] EncodeMountpoint(MountState state) => Write(json => WriteMountpoint(json, state));

    /// <summary>All attachments of a state with their times, for <c>ledger_put_attachments</c>.</summary>
    public static byte[] EncodeAttachments(MountState state) => WriteArray(json =>
    {
        foreach (var attachment in state.Attachments) WriteAttachment(json, attachment, withSince: true);
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

    private static byte[] WriteArray(Action<Utf8JsonWriter> items) => Document(json =>
    {
        json.WriteStartArray();
        items(json);
        json.WriteEndArray();
    });

    private static byte[] Document(Action<Utf8JsonWriter> write)
    {
        var buffer = new ArrayBufferWriter<byte>(1024);
        using (var json = new Utf8JsonWriter(buffer, Options)) write(json);
        return WithoutNul(buffer.WrittenSpan.ToArray());
    }

    /// <summary>
    /// PostgreSQL's text cannot hold U+0000, and refuses a document with its escape. What a helper printed may contain it, and an
    /// outcome that cannot be recorded would be worse than one with a replacement character.
    /// </summary>
    private static byte[] WithoutNul(byte[] document)
    {
        if (document.AsSpan().IndexOf("\\u0000"u8) < 0) return document;
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
internal readonly record struct EncodedEvent(Guid Id, string Type, string DotnetType, string Data)
{
    public static EncodedEvent Of(LedgerEvent change) => new(
        Guid.CreateVersion7(), EventCatalog.StoredName(change), EventCatalog.DotnetType(change), EventCatalog.Encode(change));
}
