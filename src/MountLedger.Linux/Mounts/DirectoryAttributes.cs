namespace MountLedger.Linux;

/// <summary>What directories get that are made for mountpoints.</summary>
/// <param name="Mode">Permission bits, exactly; no umask applies.</param>
/// <param name="Owner">User and group by number; null: who makes them, which is root.</param>
public sealed record DirectoryAttributes(uint Mode, (uint Uid, uint Gid)? Owner)
{
    /// <summary>rwxr-xr-x, of root.</summary>
    public static DirectoryAttributes Default { get; } = new(0b111_101_101, null);

    /// <summary>Reads an octal mode such as <c>0755</c> or <c>1770</c>: what mkdir(2) takes, which is no set-id bits.</summary>
    public static bool TryMode(string text, out uint mode)
    {
        mode = 0;
        if (text.Length is 0 or > 5 || text.Any(digit => digit is < '0' or > '7')) return false;
        mode = Convert.ToUInt32(text, 8);
        return mode <= 0b001_111_111_111;
    }

    /// <summary>Reads <c>UID:GID</c>.</summary>
    public static bool TryOwner(string text, out (uint Uid, uint Gid) owner)
    {
        owner = default;
        // The largest number means "leave it as it is" to chown(2).
        bool Number(ReadOnlySpan<char> digits, out uint value) =>
            uint.TryParse(digits, System.Globalization.NumberStyles.None, System.Globalization.CultureInfo.InvariantCulture, out value) && value != uint.MaxValue;
        return text.Split(':') is [var user, var group] && Number(user, out owner.Uid) && Number(group, out owner.Gid);
    }
}
