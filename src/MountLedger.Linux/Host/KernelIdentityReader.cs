using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>Which boot, mount namespace, machine and kernel this process runs in.</summary>
public static class KernelIdentityReader
{
    /// <summary>
    /// The boot id and the mount namespace: its id that is never reused in this boot, before Linux 6.11 its inode number, which is
    /// unique among the namespaces that live.
    /// </summary>
    /// <exception cref="IOException">/proc is not there.</exception>
    public static KernelIdentity Read()
    {
        var number = PathCalls.OpenAt(PathCalls.AT_FDCWD, "/proc/self/ns/mnt", PathCalls.O_RDONLY, 0, out _);
        if (number >= 0)
        {
            using var opened = new Descriptor(number);
            if (IdentityCalls.MountNamespaceId(number) is { } id) return new KernelIdentity(ReadBootId(), id);
        }
        var link = PathCalls.ReadLink("/proc/self/ns/mnt") ?? throw new IOException("/proc/self/ns/mnt cannot be read: is /proc mounted?");
        var start = link.IndexOf('[', StringComparison.Ordinal) + 1;
        return new KernelIdentity(ReadBootId(), ulong.Parse(link.AsSpan(start, link.Length - start - 1)));
    }

    /// <summary>The random id that the kernel made at boot.</summary>
    public static string ReadBootId() => File.ReadAllText("/proc/sys/kernel/random/boot_id").Trim();

    /// <summary>
    /// The machine's id (machine-id(5)); on a machine that has none, such as a minimal container, the boot id: then only a
    /// restart within one boot is known to be the same machine.
    /// </summary>
    public static string ReadMachineId(string path = "/etc/machine-id")
    {
        try
        {
            var text = File.ReadAllText(path).Trim();
            if (text.Length == 32 && text.All(char.IsAsciiHexDigitLower)) return text;
        }
        catch (IOException) { }
        catch (UnauthorizedAccessException) { }
        return ReadBootId();
    }

    /// <summary>Such as <c>6.12.9-amd64</c>.</summary>
    public static string ReadKernelRelease() => File.ReadAllText("/proc/sys/kernel/osrelease").Trim();
}
