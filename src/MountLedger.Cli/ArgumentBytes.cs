using System.Text;

namespace MountLedger.Cli;

/// <summary>
/// The runtime decodes the arguments and replaces invalid UTF-8 silently: a path would become another path. So where a
/// replacement character turns up, the raw bytes of this process's arguments are looked at again.
/// </summary>
internal static class ArgumentBytes
{
    public static void RefuseInvalidUtf8(string[] args) => RefuseInvalidUtf8(args, static () => File.ReadAllBytes("/proc/self/cmdline"));

    /// <summary><paramref name="commandLine"/>: all arguments, each ended by a zero byte, as in proc_pid_cmdline(5).</summary>
    internal static void RefuseInvalidUtf8(string[] args, Func<byte[]> commandLine)
    {
        var suspect = Array.FindIndex(args, static a => a.Contains('\uFFFD', StringComparison.Ordinal));
        if (suspect < 0)
            return;
        try
        {
            new UTF8Encoding(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true).GetCharCount(commandLine());
        }
        catch (DecoderFallbackException)
        {
            throw new ExitException(
                ExitCode.BadUsage, $"argument {suspect + 1} is not valid UTF-8 ('{args[suspect]}') — use a name that is");
        }
    }
}
