using System.Buffers;
using System.Text;
using System.Text.Json;

namespace MountLedger.Agent;

/// <summary>The file of kept heads as a whole: read as far as it can be read, and written anew with all that is known.</summary>
internal sealed class HeadsFile(string path, string host, ILogger logger)
{
    private const int BufferMax = 1 << 16;

    /// <summary>False: what was read last is another host's.</summary>
    public bool MayBeOfThisHost { get; private set; } = true;

    /// <summary>The lines that can be read; none when the file is another host's.</summary>
    public List<HeadsLine> Lines(out int damaged)
    {
        damaged = 0;
        var lines = new List<HeadsLine>();
        byte[] bytes;
        try
        {
            if (!File.Exists(path)) return lines;
            bytes = File.ReadAllBytes(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            logger.HeadsUnwritable(path, e.Message);
            return lines;
        }
        var rest = bytes.AsMemory();
        while (!rest.IsEmpty)
        {
            var end = rest.Span.IndexOf((byte)'\n');
            if (end < 0 || HeadsLine.Parse(rest[..end]) is not { } line) damaged++;
            else lines.Add(line);
            rest = end < 0 ? default : rest[(end + 1)..];
        }
        var others = lines.Any(line => line.Document.Span.StartsWith("{\"k\":\"heads\""u8) && !Encoding.UTF8.GetString(line.Document.Span).Contains($"\"host\":\"{host}\"", StringComparison.Ordinal));
        if (others) MayBeOfThisHost = false;
        return others ? [] : lines;
    }

    public HeadsContent ReadContent()
    {
        var content = new HeadsContent(host);
        foreach (var line in Lines(out _))
        {
            try
            {
                content.Apply(line.Document);
            }
            catch (Exception e) when (e is JsonException or KeyNotFoundException or InvalidOperationException or FormatException or ArgumentException)
            {
                logger.HeadsDamaged(path, 1);
            }
        }
        return content;
    }

    /// <summary>Writes a new file from its beginning; the caller puts it in the old one's place.</summary>
    public void Write(FileStream file, (long Seq, string Hash)? newest, KeptHead[] heads, KeyValuePair<string, BehindHead>[] behind)
    {
        var buffer = new ArrayBufferWriter<byte>(BufferMax);
        HeadsLine.Write(buffer, newest?.Seq ?? 0, newest?.Hash, json =>
        {
            json.WriteString("k", "heads");
            json.WriteString("host", host);
        });
        foreach (var head in heads)
        {
            HeadsLine.Write(buffer, 0, null, json =>
            {
                json.WriteString("m", head.State.Mountpoint);
                json.WriteString("k", "head");
                HeadsContent.WriteFull(json, head);
            });
            Drain(above: BufferMax);
        }
        foreach (var (mountpoint, line) in behind)
        {
            WriteBehind(buffer, mountpoint, line);
            Drain(above: BufferMax);
        }
        Drain(above: 0);

        void Drain(int above)
        {
            if (buffer.WrittenCount <= above) return;
            file.Write(buffer.WrittenSpan);
            buffer.ResetWrittenCount();
        }
    }

    private static void WriteBehind(ArrayBufferWriter<byte> buffer, string mountpoint, BehindHead line)
    {
        HeadsLine.Write(buffer, 0, null, json =>
        {
            json.WriteString("m", mountpoint);
            json.WriteString("k", "behind");
            if (line.Kept is null)
            {
                json.WriteNull("kept");
                return;
            }
            json.WriteStartObject("kept");
            HeadsContent.WriteFull(json, line.Kept);
            json.WriteEndObject();
        });
        if (!line.Marked) return;
        HeadsLine.Write(buffer, 0, null, json =>
        {
            json.WriteString("m", mountpoint);
            json.WriteString("k", "marked");
        });
    }
}
