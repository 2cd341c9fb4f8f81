using System.Collections.Immutable;
using System.Globalization;
using MountLedger.Linux;
using MountLedger.Postgres;
using MountLedger.Wire;

namespace MountLedger.Agent;

/// <summary>
/// What <c>doctor</c> says: the agent looks at itself, its ledger and its state directory, and has its worker look at the kernel and the roots.
/// Each part has a deadline of its own, so that the answer comes whatever hangs.
/// </summary>
public sealed class AgentExamination(AgentSettings settings, NodeAccess access, LedgerAccess ledger, MountLedgerService service)
{
    private const long DescriptorsMin = 8192;
    private const long DescriptorsGood = 65536;
    private const long FreeBytesMin = 256L << 20;

    private static readonly TimeSpan PartMax = TimeSpan.FromSeconds(8);
    private static readonly TimeSpan LauncherMax = TimeSpan.FromSeconds(2);

    public async Task<DoctorView> RunAsync(CancellationToken cancellationToken)
    {
        var kernel = BoundedAsync("worker", KernelAsync, cancellationToken);
        var server = BoundedAsync("postgres", ServerAsync, cancellationToken);
        var launcher = BoundedAsync("launcher", LauncherAsync, cancellationToken);
        ImmutableArray<DoctorFinding> own = [.. Serving(), .. Privileges(), .. Worker(), .. Descriptors(), .. StateDirectory(), .. Machine()];
        return new DoctorView(settings.Host, [.. own, .. await launcher, .. await server, .. await kernel]);
    }

    private async Task<ImmutableArray<DoctorFinding>> KernelAsync(CancellationToken cancellationToken) =>
        service.MountHost is { } host
            ? await host.ExamineAsync(cancellationToken)
            : [DoctorFinding.Shortfall("worker", "answer", "no worker runs yet: the agent has not got so far", "see what the agent waits for")];

    private async Task<ImmutableArray<DoctorFinding>> ServerAsync(CancellationToken cancellationToken) =>
        ledger.Database is { } database
            ? await new ServerExamination(database).RunAsync(own: settings.Postgres is null, cancellationToken)
            : [DoctorFinding.Shortfall("postgres", "server", "there is no ledger yet", "see what the agent waits for")];

    private IEnumerable<DoctorFinding> Serving()
    {
        yield return access.Node switch
        {
            null => DoctorFinding.Shortfall("agent", "serving", $"commands are refused: {access.NotServing}", "remove what it waits for; the agent goes on by itself"),
            { Journal.IsFenced: true } => DoctorFinding.Shortfall(
                "agent", "serving", $"host {settings.Host} is served by another agent now", "stop one of the two, then restart this one"),
            { } node => DoctorFinding.Ok("agent", "serving", $"commands are taken, epoch {node.Agent.Epoch}"),
        };
    }

    private static IEnumerable<DoctorFinding> Privileges()
    {
        const string Area = "permissions";
        const string Name = "agent";
        var sets = Capabilities.SetsInUse();
        yield return (Launcher.OfThisProcess, sets) switch
        {
            (_, []) => DoctorFinding.Ok(Area, Name, "the agent has no capability, and can get none"),
            ({ }, ["CapBnd"]) => DoctorFinding.Note(
                Area, Name, "the agent has no capability; its bounding set is not empty, which no_new_privs keeps from being of use",
                "start mountledgerd with CAP_SETPCAP, which is needed to empty it (systemd: CapabilityBoundingSet; container: cap_add)"),
            _ when Capabilities.IsInUserNamespace() => DoctorFinding.Ok(Area, Name, "the agent has capabilities over its user namespace alone"),
            _ => DoctorFinding.Note(
                Area, Name, $"the agent has capabilities ({string.Join(", ", sets)}): it is a part of another program, which keeps its own",
                "run mountledgerd as a program of its own, and use it over its socket"),
        };
    }

    private static async Task<ImmutableArray<DoctorFinding>> LauncherAsync(CancellationToken cancellationToken)
    {
        if (Launcher.OfThisProcess is not { } launcher) return [];
        var pid = launcher.Pid.ToString(CultureInfo.InvariantCulture);
        return await launcher.ProblemAsync(LauncherMax, cancellationToken) is { } problem
            ? [DoctorFinding.Shortfall("launcher", "answer", $"{problem}: no worker can be started", "let it go on", $"kill -CONT {pid}")]
            : [DoctorFinding.Ok("launcher", "answer", $"process {pid} has the capabilities that the agent gave up")];
    }

    private IEnumerable<DoctorFinding> Worker()
    {
        if (service.MountHost is not { } host) yield break;
        var counters = host.Counters;
        var counted = $"started {counters.Started}, died {counters.Died}, written off {counters.WrittenOff}, stuck {counters.Stuck}";
        yield return counters.Stuck == 0
            ? DoctorFinding.Ok("worker", "counters", counted)
            : DoctorFinding.Shortfall(
                "worker", "counters", $"{counted}: the kernel does not let go of the stuck ones",
                "free the filesystems that they wait for: bring the server back, or abort its connection (echo 1 > /sys/fs/fuse/connections/N/abort)");
    }

    private static IEnumerable<DoctorFinding> Descriptors()
    {
        const string Label = "Max open files";
        var line = File.ReadLines("/proc/self/limits").First(line => line.StartsWith(Label, StringComparison.Ordinal));
        var values = line[Label.Length..].Split(' ', StringSplitOptions.RemoveEmptyEntries);
        var (soft, hard) = (values[0], long.TryParse(values[1], NumberStyles.None, CultureInfo.InvariantCulture, out var most) ? most : long.MaxValue);
        // The lower of the two limits may be raised up to the other without any privilege.
        var wanted = hard >= DescriptorsMin ? $"{Math.Min(hard, DescriptorsGood)}:" : $"{DescriptorsGood}:{DescriptorsGood}";
        // Connections of clients, of the pool, of workers: each is a descriptor.
        yield return !long.TryParse(soft, NumberStyles.None, CultureInfo.InvariantCulture, out var limit) || limit >= DescriptorsMin
            ? DoctorFinding.Ok("limits", "nofile", $"{soft} open files")
            : DoctorFinding.Shortfall(
                "limits", "nofile", $"{limit} open files are allowed, and 4096 clients may connect",
                "raise it, and set LimitNOFILE=65536 in the unit",
                string.Create(CultureInfo.InvariantCulture, $"prlimit --pid {Environment.ProcessId} --nofile={wanted}"));
    }

    private IEnumerable<DoctorFinding> StateDirectory()
    {
        DoctorFinding finding;
        try
        {
            var disk = new DriveInfo(settings.StateDir);
            var free = string.Create(CultureInfo.InvariantCulture, $"{disk.AvailableFreeSpace >> 20} MiB free for {settings.StateDir}");
            finding = disk.AvailableFreeSpace >= FreeBytesMin
                ? DoctorFinding.Ok("disk", "stateDir", free)
                : DoctorFinding.Shortfall(
                    "disk", "stateDir", $"{free}: a full disk stops {(settings.Postgres is null ? "the ledger" : "the records of epoch and workers")}",
                    string.Create(CultureInfo.InvariantCulture, $"have at least {FreeBytesMin >> 20} MiB free in the filesystem that holds it"));
        }
        catch (IOException e)
        {
            finding = DoctorFinding.Shortfall("disk", "stateDir", $"{settings.StateDir}: {e.Message}", "make the state directory accessible to the agent");
        }
        yield return finding;
    }

    private static IEnumerable<DoctorFinding> Machine()
    {
        yield return File.Exists("/etc/machine-id")
            ? DoctorFinding.Ok("host", "machine-id", "there is one")
            : DoctorFinding.Note(
                "host", "machine-id", "there is none: after a reboot this machine counts as another one, and waits until the old lease has run out",
                "make one that lasts", "systemd-machine-id-setup");
    }

    private static async Task<ImmutableArray<DoctorFinding>> BoundedAsync(
        string area, Func<CancellationToken, Task<ImmutableArray<DoctorFinding>>> look, CancellationToken cancellationToken)
    {
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        deadline.CancelAfter(PartMax);
        try
        {
            return await look(deadline.Token);
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            return [DoctorFinding.Shortfall(
                area, "answer", $"no answer within {PartMax.TotalSeconds:0} s", "see the agent's log: a filesystem or the network hangs")];
        }
    }
}
