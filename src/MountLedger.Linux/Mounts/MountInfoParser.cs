using System.Collections.Immutable;
using System.Text;

namespace MountLedger.Linux;

/// <summary>A line of mountinfo: the mount, and the device number of its filesystem.</summary>
public readonly record struct MountInfoEntry(ObservedMount Mount, uint DeviceMajor, uint DeviceMinor);

/// <summary>
/// Reads lines of /proc/self/mountinfo (proc_pid_mountinfo(5)) from bytes, with no I/O. One parser serves one pass over the
/// table: it shares the option lists that thousands of lines have in common.
/// </summary>
public sealed class MountInfoParser
{
    private readonly Dictionary<int, List<(byte[] Text, ImmutableArray<string> Options)>> seen = [];
    private readonly Dictionary<int, string> words = [];

    /// <summary>
    /// Parses one line, without its line end. Escapes (<c>\040</c>) are undone; a root that ends in <c>//deleted</c> keeps
    /// that mark, so that it never equals the path of a directory that exists.
    /// </summary>
    /// <param name="line">Bytes as the kernel wrote them; what is not UTF-8 is replaced by U+FFFD.</param>
    /// <param name="entry">The mount, without its unique id and without differences.</param>
    /// <param name="problem">What is wrong with the line when it is not one.</param>
    public bool TryParse(ReadOnlySpan<byte> line, out MountInfoEntry entry, out string? problem)
    {
        entry = default;
        var rest = line;
        if (!TryNumber(ref rest, out var id)) return Odd("the mount id is no number", out problem);
        if (!TryNumber(ref rest, out var parent)) return Odd("the parent id is no number", out problem);
        var device = Field(ref rest);
        var colon = device.IndexOf((byte)':');
        if (colon < 0 || !TryUnsigned(device[..colon], out var major) || !TryUnsigned(device[(colon + 1)..], out var minor))
            return Odd("the device is not major:minor", out problem);
        var root = Field(ref rest);
        var path = Field(ref rest);
        var mountOptions = Field(ref rest);
        if (root.IsEmpty || path.IsEmpty || mountOptions.IsEmpty) return Odd("a field is missing", out problem);

        // Optional fields (shared:1, master:2, …) in any number, then a lone dash.
        var dash = false;
        while (!rest.IsEmpty && !dash) dash = Field(ref rest).SequenceEqual("-"u8);
        if (!dash) return Odd("the separator is missing", out problem);

        var fsType = Field(ref rest);
        if (fsType.IsEmpty) return Odd("the filesystem type is missing", out problem);
        var source = Field(ref rest);
        // An old kernel or an odd filesystem may write spaces into the last field: it is all that is left.
        var superOptions = rest;

        problem = null;
        entry = new MountInfoEntry(
            new ObservedMount(
                null, id, parent, Text(path), Word(fsType), Word(source), Word(root), Options(mountOptions), Options(superOptions), null),
            major, minor);
        return true;
    }

    private static bool Odd(string what, out string? problem)
    {
        problem = what;
        return false;
    }

    private static ReadOnlySpan<byte> Field(ref ReadOnlySpan<byte> rest)
    {
        var end = rest.IndexOf((byte)' ');
        var field = end < 0 ? rest : rest[..end];
        rest = end < 0 ? [] : rest[(end + 1)..];
        return field;
    }

    private static bool TryNumber(ref ReadOnlySpan<byte> rest, out int value)
    {
        var field = Field(ref rest);
        return System.Buffers.Text.Utf8Parser.TryParse(field, out value, out var used) && used == field.Length;
    }

    private static bool TryUnsigned(ReadOnlySpan<byte> field, out uint value) =>
        System.Buffers.Text.Utf8Parser.TryParse(field, out value, out var used) && used == field.Length;

    internal static string Text(ReadOnlySpan<byte> field) =>
        field.IndexOf((byte)'\\') < 0 ? Encoding.UTF8.GetString(field) : Unescape(field);

    private static string Unescape(ReadOnlySpan<byte> field)
    {
        var bytes = new byte[field.Length];
        var length = 0;
        for (var i = 0; i < field.Length; i++)
        {
            if (field[i] == '\\' && i + 3 < field.Length && IsOctal(field[i + 1]) && IsOctal(field[i + 2]) && IsOctal(field[i + 3]))
            {
                bytes[length++] = (byte)(((field[i + 1] - '0') << 6) | ((field[i + 2] - '0') << 3) | (field[i + 3] - '0'));
                i += 3;
            }
            else
            {
                bytes[length++] = field[i];
            }
        }
        return Encoding.UTF8.GetString(bytes, 0, length);
    }

    private static bool IsOctal(byte value) => value is >= (byte)'0' and <= (byte)'7';

    /// <summary>A short text that many lines share (<c>tmpfs</c>, <c>/</c>): one string for all of them.</summary>
    private string Word(ReadOnlySpan<byte> field)
    {
        const int WordsMax = 4096;
        const int LengthMax = 32;
        if (field.Length > LengthMax) return Text(field);
        var hash = Hash(field);
        Span<byte> bytes = stackalloc byte[LengthMax];
        if (words.TryGetValue(hash, out var known) && Encoding.UTF8.TryGetBytes(known, bytes, out var length)
            && field.SequenceEqual(bytes[..length]))
            return known;
        var text = Text(field);
        if (words.Count < WordsMax) words[hash] = text;
        return text;
    }

    private ImmutableArray<string> Options(ReadOnlySpan<byte> field)
    {
        const int ListsMax = 4096;
        if (field.IsEmpty) return [];
        var hash = Hash(field);
        if (seen.TryGetValue(hash, out var candidates))
        {
            foreach (var (text, options) in candidates)
                if (field.SequenceEqual(text)) return options;
        }
        // Split before the escapes are undone: an escaped comma (\054) belongs to its value.
        var list = ImmutableArray.CreateBuilder<string>();
        foreach (var range in field.Split((byte)','))
            if (!field[range].IsEmpty) list.Add(Text(field[range]));
        var parsed = list.ToImmutable();
        if (seen.Count < ListsMax)
        {
            if (candidates is null) seen[hash] = candidates = [];
            candidates.Add((field.ToArray(), parsed));
        }
        return parsed;
    }

    private static int Hash(ReadOnlySpan<byte> field)
    {
        var hash = new HashCode();
        hash.AddBytes(field);
        return hash.ToHashCode();
    }
}
