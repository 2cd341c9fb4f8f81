using System.Buffers;
using System.Collections.Immutable;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;

namespace MountLedger.Agent;

/// <summary>
/// A line of the file of kept heads: <c>CHECKSUM SEQ HASH DOCUMENT</c>, the checksum (FNV-1a, 64 bits, hex) being that of all behind it. SEQ and HASH are
/// those of the newest event that the line knows of, 0 and <c>-</c> when it knows none; they can be read without the document.
/// </summary>
/// <param name="Seq">The event's number in the ledger.</param>
/// <param name="Hash">The event's hash, 64 hex digits, or <c>-</c>.</param>
/// <param name="Document">The JSON of what the line is about.</param>
internal readonly record struct HeadsLine(long Seq, string Hash, ReadOnlyMemory<byte> Document)
{
    public const string NoHash = "-";

    private const ulong FnvOffset = 14695981039346656037;
    private const ulong FnvPrime = 1099511628211;

    /// <summary>Null: the line is damaged, or the beginning of one.</summary>
    public static HeadsLine? Parse(ReadOnlyMemory<byte> line)
    {
        var bytes = line.Span;
        if (bytes.Length < 18 || bytes[16] != ' ') return null;
        if (!ulong.TryParse(bytes[..16], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var sum) || sum != Sum(bytes[17..])) return null;
        var rest = bytes[17..];
        var first = rest.IndexOf((byte)' ');
        if (first < 0 || !long.TryParse(rest[..first], NumberStyles.None, CultureInfo.InvariantCulture, out var seq)) return null;
        var second = rest[(first + 1)..].IndexOf((byte)' ');
        if (second < 0) return null;
        return new HeadsLine(seq, Encoding.ASCII.GetString(rest.Slice(first + 1, second)), line[(17 + first + 1 + second + 1)..]);
    }

    /// <summary>Appends the line, with its line break.</summary>
    /// <param name="to">Where to.</param>
    /// <param name="seq">The newest event's number; 0: none.</param>
    /// <param name="hash">Its hash; null: none.</param>
    /// <param name="members">Writes the members of the document.</param>
    public static void Write(ArrayBufferWriter<byte> to, long seq, string? hash, Action<Utf8JsonWriter> members)
    {
        var body = new ArrayBufferWriter<byte>(512);
        body.Write(Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"{seq} {hash ?? NoHash} ")));
        using (var json = new Utf8JsonWriter(body))
        {
            json.WriteStartObject();
            members(json);
            json.WriteEndObject();
        }
        to.Write(Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"{Sum(body.WrittenSpan):x16} ")));
        to.Write(body.WrittenSpan);
        to.Write("\n"u8);
    }

    private static ulong Sum(ReadOnlySpan<byte> bytes)
    {
        var sum = FnvOffset;
        foreach (var value in bytes) sum = (sum ^ value) * FnvPrime;
        return sum;
    }
}

/// <summary>What the agent has recorded last of a mountpoint. <paramref name="Hash"/>: of its last event; null when only its version is known.</summary>
internal sealed record KeptHead(MountState State, string? Hash);

/// <summary>A mountpoint where the ledger is behind. <paramref name="Kept"/>: null when no mount and no attachment was known.</summary>
internal sealed record BehindHead(KeptHead? Kept, bool Marked);

/// <summary>Everything that a file of kept heads says.</summary>
internal sealed class HeadsContent(string host)
{
    public Dictionary<string, KeptHead> Heads { get; } = new(StringComparer.Ordinal);

    public Dictionary<string, BehindHead> Behind { get; } = new(StringComparer.Ordinal);

    /// <summary>Takes in the document of one line. A change whose beginning is missing makes its mountpoint unknown.</summary>
    public void Apply(ReadOnlyMemory<byte> document)
    {
        using var parsed = JsonDocument.Parse(document);
        var json = parsed.RootElement;
        if (!json.TryGetProperty("m", out var name)) return;
        var mountpoint = name.GetString()!;
        switch (json.GetProperty("k").GetString())
        {
            case "head":
                if (Head(mountpoint, json, Heads.GetValueOrDefault(mountpoint)) is { } head) Heads[mountpoint] = head;
                else Heads.Remove(mountpoint);
                break;
            case "gone":
                Heads.Remove(mountpoint);
                break;
            case "behind":
                var kept = json.GetProperty("kept");
                Behind[mountpoint] = new BehindHead(kept.ValueKind == JsonValueKind.Null ? null : Head(mountpoint, kept, null), Marked: false);
                break;
            case "marked" when Behind.TryGetValue(mountpoint, out var behind):
                Behind[mountpoint] = behind with { Marked = true };
                break;
            case "decided":
                Behind.Remove(mountpoint);
                break;
        }
    }

    /// <summary>A head with all its attachments.</summary>
    public static void WriteFull(Utf8JsonWriter json, KeptHead head)
    {
        WriteState(json, head);
        json.WriteStartArray("all");
        foreach (var attachment in head.State.Attachments) WriteAttachment(json, attachment);
        json.WriteEndArray();
    }

    /// <summary>A head with what has changed since the line before.</summary>
    public static void WriteChange(Utf8JsonWriter json, KeptHead head, long before, AttachmentChanges changes)
    {
        WriteState(json, head);
        json.WriteNumber("from", before);
        json.WriteStartArray("add");
        foreach (var attachment in changes.Added) WriteAttachment(json, attachment);
        json.WriteEndArray();
        json.WriteStartArray("remove");
        foreach (var key in changes.Removed)
        {
            json.WriteStartArray();
            json.WriteStringValue(key.Volume);
            json.WriteStringValue(key.Consumer);
            json.WriteEndArray();
        }
        json.WriteEndArray();
        json.WriteBoolean("confirm", changes.ConfirmAll);
    }

    private static void WriteState(Utf8JsonWriter json, KeptHead head)
    {
        json.WriteNumber("v", head.State.Version);
        json.WriteNumber("g", head.State.Generation);
        json.WriteString("h", head.Hash);
        json.WriteString("at", head.State.UpdatedAt);
        json.WritePropertyName("state");
        json.WriteRawValue(MountStateCodec.Encode(head.State));
    }

    private static void WriteAttachment(Utf8JsonWriter json, Attachment attachment)
    {
        json.WriteStartArray();
        json.WriteStringValue(attachment.Volume);
        json.WriteStringValue(attachment.Consumer);
        json.WriteStringValue(attachment.OnFailure.ToString());
        json.WriteBooleanValue(attachment.Confirmed);
        json.WriteBooleanValue(attachment.First);
        json.WriteStringValue(attachment.Since);
        json.WriteStringValue(attachment.Actor);
        json.WriteEndArray();
    }

    private KeptHead? Head(string mountpoint, JsonElement json, KeptHead? before)
    {
        AttachmentSet attachments;
        if (json.TryGetProperty("all", out var all))
        {
            attachments = AttachmentSet.Of(all.EnumerateArray().Select(Read));
        }
        else
        {
            // Only what has changed is touched: a line is read for each change, and there may be ten thousand attachments.
            if (before?.State.Version != json.GetProperty("from").GetInt64()) return null;
            var removed = json.GetProperty("remove").EnumerateArray().Select(item => new AttachmentKey(item[0].GetString()!, item[1].GetString()!));
            attachments = before!.State.Attachments.Without(removed).With(json.GetProperty("add").EnumerateArray().Select(Read));
            if (json.GetProperty("confirm").GetBoolean()) attachments = attachments.Confirmed();
        }
        var state = MountStateCodec.Decode(
            new StreamKey(host, mountpoint), json.GetProperty("v").GetInt64(), json.GetProperty("g").GetInt64(), JsonMarshal.GetRawUtf8Value(json.GetProperty("state")),
            json.GetProperty("at").GetDateTimeOffset()) with
        { Attachments = attachments };
        return new KeptHead(state, json.GetProperty("h").GetString());
    }

    private static Attachment Read(JsonElement item) => new(
        item[0].GetString()!, item[1].GetString()!, Enum.Parse<OnFailure>(item[2].GetString()!), item[3].GetBoolean(), item[4].GetBoolean(),
        item[5].GetDateTimeOffset(), item[6].GetString()!);
}
