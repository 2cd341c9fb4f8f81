#if KILL_POINTS
using System.Globalization;
using System.Runtime.InteropServices;

namespace MountLedger.Linux;

/// <summary>
/// What makes a process stop at a <see cref="KillPoint"/>: the setting <c>MOUNTLEDGER_KILL_POINT</c> names a file that says, in one line,
/// <c>NUMBER POINT COUNT</c>: stop when this point is reached for the COUNT-th time. The first process that does writes
/// <c>FILE.NUMBER</c> with its pid, and stops as if by SIGSTOP; whoever wrote the file then kills what is to die, and sends SIGCONT. A file
/// that is not there asks for nothing. Only in builds with KILL_POINTS.
/// </summary>
public static partial class KillPointSetting
{
    public const string Variable = "MOUNTLEDGER_KILL_POINT";

    private const int SIGSTOP = 19;

    private static readonly Lock Gate = new();
    private static string _armed = "";
    private static int _count;

    /// <summary>Does nothing without the setting.</summary>
    public static void Arm()
    {
        if (Environment.GetEnvironmentVariable(Variable) is { Length: > 0 } file) KillPoint.OnReached = point => Reached(file, point);
    }

    private static void Reached(string file, string point)
    {
        if (Read(file) is not { } armed || armed.Split(' ') is not [var number, var wanted, var count] || wanted != point) return;
        lock (Gate)
        {
            if (_armed != armed) (_armed, _count) = (armed, 0);
            if (++_count != int.Parse(count, CultureInfo.InvariantCulture)) return;
            try
            {
                using var mark = new FileStream($"{file}.{number}", FileMode.CreateNew, FileAccess.Write, FileShare.Read);
                mark.Write(System.Text.Encoding.ASCII.GetBytes(Environment.ProcessId.ToString(CultureInfo.InvariantCulture) + "\n"));
            }
            catch (IOException)
            {
                return; // Another process was first.
            }
            // To this thread: a signal to the process may find another one first, and this one would go on for a while.
            _ = Raise(SIGSTOP);
        }
    }

    private static string? Read(string file)
    {
        try
        {
            return File.ReadAllText(file);
        }
        catch (IOException)
        {
            return null;
        }
    }

    [LibraryImport("libc", EntryPoint = "raise")]
    private static partial int Raise(int signal);
}
#endif
