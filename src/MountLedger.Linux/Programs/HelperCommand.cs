using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// What a helper is started with. The one place where the source and the options of a spec become a program's arguments
/// (and files, for values that must not be arguments); the convention is that of mount(8):
/// <c>mount.TYPE SOURCE DIRECTORY [-n] -o OPTION,OPTION…</c>.
/// </summary>
internal sealed class HelperCommand(string program, IReadOnlyList<string> arguments) : IDisposable
{
    private readonly List<Secret> _secrets = [];
    private List<string> _environment = [];

    public string Program => program;

    public IReadOnlyList<string> Arguments => arguments;

    /// <summary>What it reads from its standard input, and nothing else reads; null: nothing.</summary>
    public Secret? Input { get; private set; }

    /// <summary>The fixed environment, and for some programs the number of the descriptor where a secret is.</summary>
    public IReadOnlyList<string> FullEnvironment => [.. Environment, .. _environment];

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
    /// <param name="place">Where it mounts, and where the files of secrets go.</param>
    /// <param name="secrets">Where those are read that the plan names.</param>
    /// <exception cref="KernelFailure">A value could be read as something else than a value, or a secret cannot be used.</exception>
    public static HelperCommand Of(string program, MountPlan plan, Staging.Place place, SecretStore secrets)
    {
        var source = plan.Spec.Source;
        if (source.StartsWith('-')) throw new KernelFailure(Errno.EINVAL, "source: a helper would take it for a flag; give one that does not begin with '-'");
        var options = Words.Where(word => (plan.Attributes & word.Attribute) != 0).Select(word => word.Word).ToList();
        if (HidesSource.Contains(plan.Spec.FsType)) options.Add($"fsname={Whole("source", source)}");

        var arguments = new List<string> { source, place.Path };
        var command = new HelperCommand(program, arguments);
        try
        {
            foreach (var (key, value) in plan.Parameters)
            {
                if (SecretRules.NameIn(value) is { } name) options.AddRange(command.Confide(plan.Spec.FsType, key, secrets.Read(name), place));
                else options.Add(value is null ? Whole("option", key) : $"{key}={Whole($"option {key}", value)}");
            }
        }
        catch
        {
            command.Dispose();
            throw;
        }
        if (KeepsTable.Contains(plan.Spec.FsType)) arguments.Add("-n");
        if (options.Count > 0) arguments.AddRange(["-o", string.Join(',', options)]);
        return command;
    }

    /// <summary>
    /// Gives a secret to the program in the narrowest way that it takes: its standard input, else a file. Never an argument, and
    /// never the environment, which every process of root can read for as long as the program, or the daemon that it becomes, runs.
    /// </summary>
    /// <returns>What the program is told of it in its options.</returns>
    private IEnumerable<string> Confide(string type, string key, Secret secret, Staging.Place place)
    {
        _secrets.Add(secret);
        switch (type, key)
        {
            // mount.cifs(8): the descriptor that it reads the password from.
            case ("cifs" or "smb3", "password"):
                Input = secret;
                _environment = ["PASSWD_FD=0"];
                return [];
            // sshfs(1)
            case ("fuse.sshfs", "password"):
                Input = secret;
                return ["password_stdin"];
            // mount.ceph(8)
            case ("ceph", "secret"):
                return [$"secretfile={place.WriteSecret(secret)}"];
            default:
                return [$"{key}={Whole("the staging directory", place.WriteSecret(secret))}"];
        }
    }

    /// <summary>What the helper printed, fit for an error: nothing in it that was given to it in confidence.</summary>
    /// <param name="output">What is left of it.</param>
    /// <param name="cut">Its beginning is missing, so what stands first may be the rest of a secret.</param>
    public string Shown(string output, bool cut)
    {
        if (_secrets.Count == 0) return output;
        return SecretScrubber.Scrub(cut ? output[Math.Min(SecretStore.BytesMax, output.Length)..] : output, _secrets);
    }

    public void Dispose()
    {
        foreach (var secret in _secrets) secret.Dispose();
    }

    /// <summary>A list of options is taken apart at commas, and libfuse undoes backslashes while it does.</summary>
    private static string Whole(string what, string value) =>
        value.AsSpan().IndexOfAny(",\\\n\0") < 0 ? value : throw new KernelFailure(Errno.EINVAL, $"{what}: a value for a helper has no comma and no backslash");
}
