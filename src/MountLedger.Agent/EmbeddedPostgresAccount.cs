using System.Globalization;
using System.Runtime.Versioning;

[assembly: SupportedOSPlatform("linux")]

namespace MountLedger.Agent;

/// <summary>
/// Under whose name the agent's own PostgreSQL runs, since it refuses to run as root: as the account <c>postgres</c> (else <c>nobody</c>) when we are
/// root; in a nested user namespace, under the name of one of these, when we are root only of a user namespace that has no other
/// account, when the account cannot pass through a directory above the state directory (a fresh temporary directory is its
/// owner's alone), or when nobody knows our own name (a container's arbitrary user: initdb wants one); as ourselves otherwise.
/// </summary>
/// <remarks>
/// In a nested namespace under a real root the server has none of root's capabilities, but it owns what root owns. That is
/// weaker than an account of its own, so it is the second choice, and docs/operating.md says how to get the first.
/// </remarks>
internal sealed class EmbeddedPostgresAccount
{
    private static readonly string[] Names = ["postgres", "nobody"];

    private readonly IReadOnlyList<string> prefix;
    private readonly (uint Uid, uint Gid)? owner;

    private EmbeddedPostgresAccount(string description, IReadOnlyList<string> prefix, (uint, uint)? owner)
    {
        Description = description;
        this.prefix = prefix;
        this.owner = owner;
    }

    public string Description { get; }

    /// <summary>The files of the server belong to another account than the agent's.</summary>
    public bool IsOther => owner is not null;

    /// <param name="stateDirectory">Absolute, without links. A cluster that is in it already stays with the account that it was made by.</param>
    /// <param name="cancellationToken">Gives up asking the system.</param>
    public static async Task<EmbeddedPostgresAccount> ChooseAsync(string stateDirectory, CancellationToken cancellationToken)
    {
        var accounts = Names
            .Select(name => (Name: name, Ids: FindAccount(File.ReadLines("/etc/passwd"), name)))
            .Where(account => account.Ids is not null).Select(account => (account.Name, Ids: account.Ids!.Value)).ToList();
        if (Environment.IsPrivilegedProcess)
        {
            var users = UidMap.Parse(File.ReadAllLines("/proc/self/uid_map"));
            var groups = UidMap.Parse(File.ReadAllLines("/proc/self/gid_map"));
            var others = accounts.Where(account => users.Contains(account.Ids.Uid) && groups.Contains(account.Ids.Gid));
            var owner = await OwnerOfClusterAsync(stateDirectory, cancellationToken);
            var isNested = owner is 0 || (owner is null && ClosedAbove(stateDirectory) is not null && FindProgram("unshare") is not null);
            foreach (var (name, ids) in isNested ? [] : others)
                return new($"the account {name}", SwitchTo(name, ids.Uid, ids.Gid), ids);
        }
        else if (await HasNameAsync(cancellationToken))
        {
            return new("the agent's account", [], null);
        }
        if (accounts.Count == 0)
            throw new EmbeddedPostgresException("neither of the accounts postgres and nobody is in /etc/passwd: PostgreSQL has no name to run under");
        var (nested, (uid, gid)) = accounts[0];
        return new($"{nested} in a nested user namespace", [Program("unshare"), "--user", $"--map-user={uid}", $"--map-group={gid}", "--"], null);
    }

    /// <summary>The command as this account runs it, in the caller's session.</summary>
    public IReadOnlyList<string> Command(params IEnumerable<string> command) => [.. prefix, .. command];

    /// <summary>The command as this account runs it, in a session of its own: a terminal's ctrl-C does not reach it.</summary>
    public IReadOnlyList<string> DetachedCommand(params IEnumerable<string> command) => [Program("setsid"), .. prefix, .. command];

    /// <summary>
    /// Makes a directory of this account. Its group is the agent's, so that an agent that has given up its capabilities can still use what is in it:
    /// <paramref name="mode"/> is octal, like <c>0710</c>.
    /// </summary>
    public async Task MakeDirectoryAsync(string path, string mode, CancellationToken cancellationToken)
    {
        List<string> command = [Program("install"), "-d", "-m", mode];
        if (owner is { } account) command.AddRange(["-o", account.Uid.ToString(CultureInfo.InvariantCulture)]);
        var result = await BoundedProcess.RunAsync([.. command, "--", path], TimeSpan.FromSeconds(10), cancellationToken);
        if (result.ExitCode != 0) throw new EmbeddedPostgresException($"{path} cannot be created: {result.Output.Trim()}");
    }

    /// <summary>Lets this account pass through the agent's state directory; refuses when it cannot pass through one above.</summary>
    /// <exception cref="EmbeddedPostgresException">Names the directory that is closed.</exception>
    public void OpenWayTo(string stateDirectory)
    {
        if (!IsOther) return;
        // Search permission only: names in it can be opened by who knows them, if their own mode allows; nothing can be listed.
        File.SetUnixFileMode(stateDirectory, File.GetUnixFileMode(stateDirectory) | UnixFileMode.OtherExecute);
        if (ClosedAbove(stateDirectory) is not { } above) return;
        throw new EmbeddedPostgresException(
            $"{Description}, which runs the agent's own PostgreSQL, cannot pass {above} on the way to {stateDirectory}: "
            + $"chmod o+x {above}, choose another --state-dir, or give a connection string (--postgres)");
    }

    /// <summary>The nearest directory above that only its owner and group can pass through, or null.</summary>
    private static string? ClosedAbove(string stateDirectory)
    {
        for (var above = Path.GetDirectoryName(stateDirectory); above is not null; above = Path.GetDirectoryName(above))
        {
            if (!File.GetUnixFileMode(above).HasFlag(UnixFileMode.OtherExecute)) return above;
        }
        return null;
    }

    /// <summary>The user id that an existing cluster belongs to, or null when there is none yet.</summary>
    private static async Task<uint?> OwnerOfClusterAsync(string stateDirectory, CancellationToken cancellationToken)
    {
        var data = Path.Combine(stateDirectory, "postgres", "data");
        if (!Directory.Exists(data)) return null;
        var result = await BoundedProcess.RunAsync([Program("stat"), "-c", "%u", "--", data], TimeSpan.FromSeconds(10), cancellationToken);
        return result.ExitCode == 0 && uint.TryParse(result.Output.Trim(), CultureInfo.InvariantCulture, out var uid) ? uid : null;
    }

    /// <summary>The ids of an account of a passwd file, or null.</summary>
    internal static (uint Uid, uint Gid)? FindAccount(IEnumerable<string> passwd, string name)
    {
        foreach (var fields in passwd.Select(line => line.Split(':')))
        {
            if (fields.Length >= 4 && fields[0] == name
                && uint.TryParse(fields[2], NumberStyles.None, CultureInfo.InvariantCulture, out var uid)
                && uint.TryParse(fields[3], NumberStyles.None, CultureInfo.InvariantCulture, out var gid))
            {
                return (uid, gid);
            }
        }
        return null;
    }

    /// <summary>Whether the system knows a name for our user id, from wherever it gets them.</summary>
    private static async Task<bool> HasNameAsync(CancellationToken cancellationToken)
    {
        var result = await BoundedProcess.RunAsync([Program("id"), "-un"], TimeSpan.FromSeconds(10), cancellationToken);
        return result.ExitCode == 0;
    }

    private static IReadOnlyList<string> SwitchTo(string name, uint uid, uint gid) => FindProgram("setpriv") is { } setpriv
        ? [setpriv, $"--reuid={uid}", $"--regid={gid}", "--clear-groups", "--inh-caps=-all", "--no-new-privs", "--"]
        : [Program("runuser"), "-u", name, "--"];

    private static string Program(string name) => FindProgram(name)
        ?? throw new EmbeddedPostgresException($"the program {name} is missing: install util-linux and coreutils (apt-get install util-linux coreutils)");

    private static string? FindProgram(string name) =>
        ((string[])["/usr/bin", "/bin", "/usr/sbin", "/sbin"]).Select(directory => Path.Combine(directory, name)).FirstOrDefault(File.Exists);
}

/// <summary>The ids that exist in a user namespace; see user_namespaces(7).</summary>
internal sealed class UidMap
{
    private readonly List<(uint First, uint Count)> ranges = [];

    /// <summary>Lines of <c>/proc/self/uid_map</c>: first id inside, first id outside, count.</summary>
    public static UidMap Parse(IEnumerable<string> lines)
    {
        var map = new UidMap();
        foreach (var fields in lines.Select(line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries)))
        {
            if (fields.Length == 3 && uint.TryParse(fields[0], CultureInfo.InvariantCulture, out var first)
                && uint.TryParse(fields[2], CultureInfo.InvariantCulture, out var count))
            {
                map.ranges.Add((first, count));
            }
        }
        return map;
    }

    public bool Contains(uint id) => ranges.Any(range => id >= range.First && id - range.First < range.Count);
}
