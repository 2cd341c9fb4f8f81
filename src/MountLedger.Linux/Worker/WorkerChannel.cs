using System.Buffers;
using System.Buffers.Binary;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// One end of the stream between agent and worker: frames of a 4-byte little-endian length and that many bytes of JSON.
/// Many threads may send; one at a time may receive.
/// </summary>
internal sealed class WorkerChannel(Descriptor socket) : IDisposable
{
    /// <summary>1 MiB: a longer frame means that the stream is broken.</summary>
    public const int FrameMax = 1 << 20;

    private const int HeaderSize = 4;
    private readonly Lock sending = new();
    private byte[] buffer = new byte[16 * 1024];
    private int start;
    private int end;

    /// <summary>Sends one message; 0 or the error number, after which the stream is of no use any more.</summary>
    /// <exception cref="ArgumentException">The message is longer than a frame may be.</exception>
    public int Send<T>(T message, JsonTypeInfo<T> type)
    {
        var bytes = new ArrayBufferWriter<byte>(512);
        bytes.GetSpan(HeaderSize);
        bytes.Advance(HeaderSize);
        using (var writer = new Utf8JsonWriter(bytes)) JsonSerializer.Serialize(writer, message, type);
        var length = bytes.WrittenCount - HeaderSize;
        if (length > FrameMax) throw new ArgumentException($"a message of {length} bytes is longer than {FrameMax}");
        var frame = System.Runtime.InteropServices.MemoryMarshal.AsMemory(bytes.WrittenMemory);
        BinaryPrimitives.WriteInt32LittleEndian(frame.Span, length);
        lock (sending) return socket.Use(frame, static (number, all) => SocketCalls.SendAll(number, all.Span), Errno.EPIPE);
    }

    /// <summary>Waits for the next message; null at the end of the stream.</summary>
    /// <exception cref="InvalidDataException">What came is not a frame, or not this message.</exception>
    public T? Receive<T>(JsonTypeInfo<T> type) where T : class
    {
        if (!Fill(HeaderSize)) return null;
        var length = BinaryPrimitives.ReadInt32LittleEndian(buffer.AsSpan(start));
        if (length is <= 0 or > FrameMax) throw new InvalidDataException($"a frame of {length} bytes");
        if (!Fill(HeaderSize + length)) return null;
        var json = buffer.AsSpan(start + HeaderSize, length);
        start += HeaderSize + length;
        try
        {
            return JsonSerializer.Deserialize(json, type) ?? throw new InvalidDataException("a frame that says null");
        }
        catch (JsonException problem)
        {
            throw new InvalidDataException($"a frame of {length} bytes that is no message: {problem.Message}", problem);
        }
    }

    /// <summary>Ends the stream; a thread that waits in <see cref="Receive"/> returns.</summary>
    public void Shutdown() => socket.Use(0, static (number, _) => SocketCalls.Shutdown(number), 0);

    public void Dispose() => socket.Dispose();

    private bool Fill(int needed)
    {
        if (start == end) start = end = 0;
        if (end - start >= needed) return true;
        if (start + needed > buffer.Length)
        {
            var larger = needed > buffer.Length ? new byte[Math.Max(needed, buffer.Length * 2)] : buffer;
            buffer.AsSpan(start, end - start).CopyTo(larger);
            (buffer, end, start) = (larger, end - start, 0);
        }
        while (end - start < needed)
        {
            var received = SocketCalls.Receive(socket.Number, buffer.AsSpan(end));
            if (received == 0) return false;
            end += received;
        }
        return true;
    }
}
