using System.Buffers;
using System.Collections.Immutable;
using System.Runtime.CompilerServices;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace MountLedger.Wire;

/// <summary>
/// The attachments in an answer. A mountpoint may have ten thousand of them, and all are in the answer each time that one more comes or goes: a megabyte of
/// text, which is written once for each run of the set and then kept as long as the run (ADR 0021).
/// </summary>
internal static class AttachmentsText
{
    /// <summary>Fewer runs are written faster than their keeping is worth.</summary>
    private const int KeptFrom = 5;

    /// <summary>Of each run: its attachments in JSON, with a comma before each.</summary>
    private static readonly ConditionalWeakTable<AttachmentSet.Run, byte[]> Texts = [];

    public static bool IsKept(AttachmentSet attachments) => attachments.Runs.Length >= KeptFrom;

    /// <summary><paramref name="document"/>, a mountpoint that was written with no attachments, with these.</summary>
    public static ReadOnlySequence<byte> Into(ReadOnlyMemory<byte> document, AttachmentSet attachments)
    {
        // Nothing else can be read as this: within a string each quotation mark would have a backslash before it.
        var empty = "\"attachments\":[]"u8;
        var at = document.Span.IndexOf(empty) + empty.Length - 1;
        var first = new Part(document[..at]);
        var last = first;
        foreach (var run in attachments.Runs)
        {
            var text = Texts.GetValue(run, static run => Write(run.Items)).AsMemory();
            last = last.Then(last == first ? text[1..] : text);
        }
        last = last.Then(document[at..]);
        return new(first, 0, last, last.Memory.Length);
    }

    private static byte[] Write(ImmutableArray<Attachment> attachments)
    {
        var json = JsonSerializer.SerializeToUtf8Bytes([.. attachments.Select(Views.Of)], Answers.Json.ImmutableArrayAttachmentView);
        json[0] = (byte)',';
        return json[..^1];
    }

    private sealed class Part : ReadOnlySequenceSegment<byte>
    {
        public Part(ReadOnlyMemory<byte> memory) => Memory = memory;

        public Part Then(ReadOnlyMemory<byte> memory)
        {
            var next = new Part(memory) { RunningIndex = RunningIndex + Memory.Length };
            Next = next;
            return next;
        }
    }
}

/// <summary>
/// Writes what there may be ten thousand of: the same document as by the serializer's own way, which goes through the description of each member.
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
