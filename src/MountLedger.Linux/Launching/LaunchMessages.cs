using System.Buffers.Binary;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// All that the agent can ask its launcher for. None of it has an argument: which program is run, with which arguments, as whom, the
/// launcher knows from the settings that it has read itself.
/// </summary>
public enum LaunchVerb
{
    /// <summary>A worker.</summary>
    Worker = 1,

    /// <summary>The start of the agent's own PostgreSQL; the program that does it ends when it is done.</summary>
    StartPostgres = 2,

    /// <summary>Its stop.</summary>
    StopPostgres = 3,

    /// <summary>A group of fanotify that tells what changes in the mount table.</summary>
    MountEvents = 4,

    /// <summary>An answer, to see that there is one.</summary>
    Nothing = 5,
}

/// <summary>A program that was started for the agent. Whoever has this closes both.</summary>
/// <param name="Pid">Its number.</param>
/// <param name="Process">A pidfd of it.</param>
/// <param name="Channel">The agent's end of its channel.</param>
internal sealed record Launched(int Pid, Descriptor Process, Descriptor Channel) : IDisposable
{
    public void Dispose()
    {
        Channel.Dispose();
        Process.Dispose();
    }
}

/// <summary>The two messages between agent and launcher, little-endian: a request (number, verb), and its answer (number, error number, pid).</summary>
internal static class LaunchMessages
{
    public const int RequestSize = 8;
    public const int AnswerSize = 12;

    public static byte[] Request(int number, LaunchVerb verb)
    {
        var message = new byte[RequestSize];
        BinaryPrimitives.WriteInt32LittleEndian(message, number);
        BinaryPrimitives.WriteInt32LittleEndian(message.AsSpan(4), (int)verb);
        return message;
    }

    public static (int Number, LaunchVerb Verb) ReadRequest(ReadOnlySpan<byte> message) =>
        (BinaryPrimitives.ReadInt32LittleEndian(message), (LaunchVerb)BinaryPrimitives.ReadInt32LittleEndian(message[4..]));

    public static byte[] Answer(int number, int errno, int pid)
    {
        var message = new byte[AnswerSize];
        BinaryPrimitives.WriteInt32LittleEndian(message, number);
        BinaryPrimitives.WriteInt32LittleEndian(message.AsSpan(4), errno);
        BinaryPrimitives.WriteInt32LittleEndian(message.AsSpan(8), pid);
        return message;
    }

    public static (int Number, int Errno, int Pid) ReadAnswer(ReadOnlySpan<byte> message) =>
        (BinaryPrimitives.ReadInt32LittleEndian(message), BinaryPrimitives.ReadInt32LittleEndian(message[4..]),
            BinaryPrimitives.ReadInt32LittleEndian(message[8..]));
}
