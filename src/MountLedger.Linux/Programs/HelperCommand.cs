using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// What a helper is started with. The one place where the source and the options of a spec become a program's arguments
/// (and files, for values that must not be arguments); the convention is that of mount(8):
/// <c>mount.TYPE SOURCE DIRECTORY [-n] -o OPTION,OPTION…</c>.
/// </summary>
internal sealed record HelperCommand(string Program, IReadOnlyList<string> Arguments) : IDisposable
{
    /// <summary>Everything that a helper gets: a fixed PATH, and a locale in which its messages can be read.</summary>
    public static readonly IReadOnlyList<string> Environment = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"];

    /// <summary>The words of a mount's attributes that every helper knows; the others are set on the finished mount.</summary>
    private static readonly (ulong Attribute, string Word)[] Words =
    [
        (MountCalls.MOUNT_ATTR_RDONLY, "ro"), (MountCalls.MOUNT_ATTR_NOSUID, "nosuid"), (MountCalls.MOUNT_ATTR_NODEV, "nodev"),
        (MountCalls.MOUNT_ATTR_NOEXEC, "noexec"),
    ];

    /// <summary>Helpers that would write a table of mounts of their own, in which the staging directory would stay for ever.</summary>
    private static readonly HashSet<string> KeepsTable = new(StringComparer.Ordinal) { "nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs" };

    /// <summary>Those that show their own name as the source unless they are told what to show.</summary>
    private static readonly HashSet<string> HidesSource = new(StringComparer.Ordinal) { "fuse.s3fs" };

    /// <param name="program">Absolute path.</param>
    /// <param name="plan">What shall be mounted; its values were checked at the edge, and are checked here once more.</param>
    /// <param name="directory">Where it mounts.</param>
    /// <exception cref="KernelFailure">A value could be read as something else than a value.</exception>
    public static HelperCommand Of(string program, MountPlan plan, string directory)
    {
        var source = plan.Spec.Source;
        if (source.StartsWith('-')) throw new KernelFailure(Errno.EINVAL, "source: a helper would take it for a flag; give one that does not begin with '-'");
        var options = Words.Where(word => (plan.Attributes & word.Attribute) != 0).Select(word => word.Word).ToList();
        if (HidesSource.Contains(plan.Spec.FsType)) options.Add($"fsname={Whole("source", source)}");
        foreach (var (key, value) in plan.Parameters) options.Add(value is null ? Whole("option", key) : $"{key}={Whole($"option {key}", value)}");

        var arguments = new List<string> { source, directory };
        if (KeepsTable.Contains(plan.Spec.FsType)) arguments.Add("-n");
        if (options.Count > 0) arguments.AddRange(["-o", string.Join(',', options)]);
        return new HelperCommand(program, arguments);
    }

    /// <summary>What the helper printed, fit for an error: nothing in it that was given to it in confidence.</summary>
    public static string Shown(string output) => output;

    public void Dispose() { }

    /// <summary>A list of options is taken apart at commas, and libfuse undoes backslashes while it does.</summary>
    private static string Whole(string what, string value) =>
        value.AsSpan().IndexOfAny(",\\\n\0") < 0 ? value : throw new KernelFailure(Errno.EINVAL, $"{what}: a value for a helper has no comma and no backslash");
}
