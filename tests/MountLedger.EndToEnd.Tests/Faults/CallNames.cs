using System.Globalization;

namespace MountLedger.EndToEnd;

/// <summary>Names of system calls by the system's headers, and the errors that each of them plausibly gives.</summary>
public static class CallNames
{
    private static readonly Lazy<Dictionary<int, string>> Names = new(Read);

    /// <summary>
    /// What a call fails with in life: lack of something, lack of permission, a broken device, somebody else's race. Not what would be a lie about
    /// the world (ENOENT of a directory that is there, ENOTEMPTY of one that is empty): such answers have to be believed.
    /// </summary>
    private static readonly Dictionary<string, string> Plausible = new(StringComparer.Ordinal)
    {
        ["openat2"] = "EACCES EMFILE ENOMEM EIO",
        ["openat"] = "EACCES EMFILE EIO",
        ["statx"] = "ENOMEM EACCES EIO",
        ["statmount"] = "ENOMEM EPERM EINTR EOVERFLOW",
        ["listmount"] = "ENOMEM EPERM",
        ["fsopen"] = "EPERM ENOMEM EMFILE ENODEV",
        ["fsconfig"] = "EINVAL EPERM ENOMEM EIO EINTR",
        ["fsmount"] = "EPERM ENOMEM EMFILE ENOSPC",
        ["open_tree"] = "EPERM ENOMEM EMFILE",
        ["mount_setattr"] = "EPERM EINVAL ENOMEM",
        ["move_mount"] = "EPERM ENOSPC ENOMEM EBUSY EINVAL",
        ["umount2"] = "EBUSY EPERM EAGAIN EINVAL EIO",
        ["mount"] = "EBUSY EPERM EINVAL ENOMEM EIO",
        ["mkdirat"] = "EACCES ENOSPC EROFS EDQUOT EIO",
        ["fchownat"] = "EPERM EROFS EIO",
        ["unlinkat"] = "EACCES EBUSY EROFS ENOMEM EIO",
        ["ioctl"] = "EBUSY ENXIO EPERM ENOMEM EIO",
        ["sendto"] = "EPIPE ENOBUFS EINTR",
        ["recvfrom"] = "ECONNRESET ENOMEM EINTR",
        ["read"] = "EIO EINTR",
        ["pread64"] = "EIO EINTR",
        ["getdents64"] = "EIO ENOMEM",
        ["execve"] = "EACCES ENOMEM",
        ["vfork"] = "EAGAIN ENOMEM",
    };

    /// <summary>For a call that nobody has thought of yet.</summary>
    private const string PlausibleAlways = "EPERM EIO ENOMEM";

    public static string Of(int number) => Names.Value.GetValueOrDefault(number) ?? $"call {number}";

    /// <summary>Numbers of the names, with the names.</summary>
    public static IEnumerable<(string Name, int Errno)> Errors(int number) =>
        Plausible.GetValueOrDefault(Of(number), PlausibleAlways).Split(' ').Select(name => (name, Numbers[name]));

    private static readonly Dictionary<string, int> Numbers = new(StringComparer.Ordinal)
    {
        ["EPERM"] = 1,
        ["EINTR"] = 4,
        ["EIO"] = 5,
        ["ENXIO"] = 6,
        ["EAGAIN"] = 11,
        ["ENOMEM"] = 12,
        ["EACCES"] = 13,
        ["EBUSY"] = 16,
        ["ENODEV"] = 19,
        ["EINVAL"] = 22,
        ["EMFILE"] = 24,
        ["ENOSPC"] = 28,
        ["EROFS"] = 30,
        ["EPIPE"] = 32,
        ["EOVERFLOW"] = 75,
        ["ECONNRESET"] = 104,
        ["ENOBUFS"] = 105,
        ["EDQUOT"] = 122,
    };

    private static Dictionary<int, string> Read()
    {
        // What came after the installed headers.
        var names = new Dictionary<int, string> { [457] = "statmount", [458] = "listmount" };
        foreach (var line in Shell.Run("gcc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null").Split('\n'))
        {
            var words = line.Split(' ');
            if (words is ["#define", var name, var number] && name.StartsWith("__NR_", StringComparison.Ordinal)
                && int.TryParse(number, CultureInfo.InvariantCulture, out var value))
                names.TryAdd(value, name[5..]);
        }
        return names;
    }
}
