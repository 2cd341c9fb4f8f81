using System.Diagnostics;
using System.Globalization;

namespace MountLedger.EndToEnd;

/// <summary>A filesystem that is mounted and unmounted under faults.</summary>
public sealed record FaultKind(string Name, string Source, string FsType, string[] Options)
{
    public override string ToString() => Name;
}

/// <summary>One fault: the call that fails within the mount or the unmount of a kind, and how.</summary>
public sealed record Fault(FaultKind Kind, bool InUnmount, Call Call, string Error, int Errno)
{
    public override string ToString() =>
        $"{(InUnmount ? "unmount" : "mount")} of {Kind}: {CallNames.Of(Call.Number)} #{Call.Ordinal} fails with {Error}";
}

/// <summary>
/// An agent whose worker's calls can be made to fail, and what has to be true after each of them: answer, ledger and kernel agree, the
/// next request works, and nothing is left.
/// </summary>
public sealed class FaultBench : IAsyncDisposable
{
    private const string HelperType = "fuse.bindfs";

    /// <summary>A helper is waited for in turns, so how many calls that takes depends on time: only what comes in every trace can be made to fail.</summary>
    private const int HelperTraces = 3;

    private static readonly TimeSpan GoneMax = TimeSpan.FromSeconds(30);

    private readonly Dictionary<int, int> descriptors = [];
    private int next;

    private FaultBench(AgentProcess agent, Supervisor supervisor) => (Agent, Supervisor) = (agent, supervisor);

    public AgentProcess Agent { get; }

    public Supervisor Supervisor { get; }

    /// <summary>How the faulty requests were answered.</summary>
    public SortedDictionary<string, int> Answers { get; } = new(StringComparer.Ordinal);

    public static async Task<FaultBench> StartAsync(AgentSuite suite)
    {
        RootEnvironment.Require();
        var agent = AgentProcess.Create(
            await suite.Server.CreateLedgerAsync(), environment => environment["MOUNTLEDGER_OPERATION_SECONDS"] = "10");
        agent.RunBy = [RootProgram.Path("supervised")];
        agent.Launch();
        var bench = new FaultBench(agent, Supervisor.Of(agent.Pid));
        await agent.UntilReadyAsync();
        return bench;
    }

    public IReadOnlyList<FaultKind> Kinds()
    {
        File.WriteAllText(Path.Combine(Agent.Below("lower"), "file"), "below");
        var layers = new[] { $"lowerdir={Agent.Below("lower")}", $"upperdir={Agent.Below("upper")}", $"workdir={Agent.Below("work")}" };
        return
        [
            new("tmpfs", "scratch", "tmpfs", ["size=1M"]),
            new("a read-only bind", Agent.Below("bind-source"), "bind", ["ro"]),
            new("an overlay", "overlay", "overlay", layers),
            new("ext4 in an image", Agent.Image("ext4.img", 8 << 20, "mkfs.ext4", "-q"), "ext4", []),
        ];
    }

    /// <summary>What a program mounts: the calls are those of the worker that runs it, and of its child until that has become the program.</summary>
    public IReadOnlyList<FaultKind> HelperKinds() => [new("bindfs", Agent.Below("bindfs-source"), HelperType, [])];

    /// <summary>Every call of a mount and an unmount of each kind, with each error that is plausible for it.</summary>
    public async Task<IReadOnlyList<Fault>> AllFaultsAsync(IReadOnlyList<FaultKind> kinds)
    {
        var faults = new List<Fault>();
        foreach (var kind in kinds)
        {
            // The first time does things that later ones do not: probes, just-in-time compilation.
            await CycleAsync(kind);
            await CycleAsync(kind);
            var (mount, unmount) = await TraceAsync(kind);
            for (var trace = 1; kind.FsType == HelperType && trace < HelperTraces; trace++)
            {
                var again = await TraceAsync(kind);
                mount = [.. mount.Intersect(again.Mount)];
                unmount = [.. unmount.Intersect(again.Unmount)];
            }

            // What is known of the path shows that the trace is one.
            Assert.Contains(kind.FsType is "bind" or HelperType ? "open_tree" : "fsmount", mount.Select(call => CallNames.Of(call.Number)));
            Assert.Contains("move_mount", mount.Select(call => CallNames.Of(call.Number)));
            Assert.Contains("umount2", unmount.Select(call => CallNames.Of(call.Number)));
            foreach (var (calls, inUnmount) in new[] { (mount, false), (unmount, true) })
                faults.AddRange(calls.SelectMany(call => CallNames.Errors(call.Number).Select(error => new Fault(kind, inUnmount, call, error.Name, error.Errno))));
        }
        return faults;
    }

    /// <returns>False: the call did not come this time (a thread took another turn).</returns>
    public async Task<bool> RunAsync(Fault fault)
    {
        var point = NextPoint();
        if (fault.InUnmount) Assert.Equal("mounted", (await MountAsync(fault.Kind, point)).Outcome);
        Supervisor.Arm(fault.Call, fault.Errno);
        var answer = await (fault.InUnmount ? UnmountAsync(point) : MountAsync(fault.Kind, point));
        var fired = Supervisor.Disarm();
        if (fired) Count($"{CallNames.Of(fault.Call.Number)} in {(fault.InUnmount ? "an unmount" : "a mount")}: {answer.Status} {answer.Problem ?? answer.Outcome}");
        try
        {
            await (fault.InUnmount ? AgreeAfterUnmountAsync(answer, point) : AgreeAfterMountAsync(answer, point));
            await NextRequestsWorkAsync(fault.Kind, point);
            await NothingIsLeftAsync(fault.ToString());
        }
        catch (Exception e)
        {
            // Told once, not after each case that follows.
            foreach (var mount in Agent.Mounts().Reverse()) Shell.UnmountLazily(mount.Path);
            foreach (var directory in Directory.EnumerateDirectories(Agent.Root)) Directory.Delete(directory, recursive: true);
            descriptors.Clear();
            var log = Agent.Log.Split('\n').Where(line => line.Contains(Agent.PathOf(point), StringComparison.Ordinal) || !line.Contains(Agent.Root, StringComparison.Ordinal));
            throw new Xunit.Sdk.XunitException(
                $"{fault} ({(fired ? "it did" : "it did not")}), answered {answer}\nevents: {string.Join(' ', await Agent.EventsAsync(point))}\n"
                + $"{e.Message.Split('\n')[0]}\nlog: {string.Join("\n     ", log.TakeLast(12))}", e);
        }
        return fired;
    }

    public async ValueTask DisposeAsync()
    {
        // The supervisor last: without it the agent could not even end.
        await Agent.DisposeAsync();
        Supervisor.Dispose();
    }

    private string NextPoint() => string.Create(CultureInfo.InvariantCulture, $"f{++next}/x");

    private Task<Answer> MountAsync(FaultKind kind, string point) => Agent.MountAsync(point, "c", kind.Source, kind.FsType, kind.Options, wait: 40);

    private Task<Answer> UnmountAsync(string point) => Agent.UnmountAsync(point, "c", wait: 40);

    /// <summary>The calls of a mount and an unmount.</summary>
    private async Task<(IReadOnlyList<Call> Mount, IReadOnlyList<Call> Unmount)> TraceAsync(FaultKind kind)
    {
        var point = NextPoint();
        Supervisor.Trace();
        Assert.Equal("mounted", (await MountAsync(kind, point)).Outcome);
        var mount = Supervisor.Traced();
        Supervisor.Trace();
        Assert.Equal("unmounted", (await UnmountAsync(point)).Outcome);
        var unmount = Supervisor.Traced();
        await NothingIsLeftAsync(kind.ToString());
        return (mount, unmount);
    }

    private async Task CycleAsync(FaultKind kind)
    {
        var point = NextPoint();
        Assert.Equal("mounted", (await MountAsync(kind, point)).Outcome);
        Assert.Equal("unmounted", (await UnmountAsync(point)).Outcome);
        descriptors.Clear();
        await NothingIsLeftAsync(kind.ToString());
    }

    private async Task AgreeAfterMountAsync(Answer answer, string point)
    {
        var mounts = TestHost.MountsAt(Agent.PathOf(point));
        var status = await Agent.StatusAsync(point);
        if (answer.Status == 200)
        {
            Assert.Equal("mounted", answer.Outcome);
            Assert.Equal("mounted", status.Phase);
            Assert.Equal(Assert.Single(mounts).MountId, status.Json.GetProperty("kernel").GetProperty("mountId").GetUInt64());
            return;
        }
        Assert.Equal((422, "mount-failed"), (answer.Status, answer.Problem));
        Assert.Empty(mounts);
        if (status.Status == 404) return;
        Assert.Equal("absent", status.Phase);
        Assert.Empty(status.Json.GetProperty("attachments").EnumerateArray());
    }

    private async Task AgreeAfterUnmountAsync(Answer answer, string point)
    {
        if (answer.Status == 200)
        {
            Assert.Equal("unmounted", answer.Outcome);
            Assert.Empty(TestHost.MountsAt(Agent.PathOf(point)));
            Assert.Equal("absent", (await Agent.StatusAsync(point)).Phase);
            return;
        }
        Assert.Equal((422, "unmount-failed"), (answer.Status, answer.Problem));
        // It is tried again by itself after half a second; until then it is there, and said to be.
        var status = await Agent.StatusAsync(point);
        var mounts = TestHost.MountsAt(Agent.PathOf(point));
        if (status.Phase == "unmounting") Assert.True(mounts.Length <= 1, "it was mounted twice");
        else Assert.Equal(("absent", 0), (status.Phase, mounts.Length));
    }

    private async Task NextRequestsWorkAsync(FaultKind kind, string point)
    {
        var mounted = await MountAsync(kind, point);
        Assert.True(mounted.Status == 200, $"the next mount: {mounted}");
        Assert.Single(TestHost.MountsAt(Agent.PathOf(point)));
        var unmounted = await UnmountAsync(point);
        Assert.True(unmounted is { Status: 200, Outcome: "unmounted" }, $"the next unmount: {unmounted}");
        Assert.Empty(TestHost.MountsAt(Agent.PathOf(point)));
    }

    private async Task NothingIsLeftAsync(string after)
    {
        var started = Stopwatch.GetTimestamp();
        while (LeftOver() is { } left)
        {
            if (Stopwatch.GetElapsedTime(started) < GoneMax)
            {
                await Task.Delay(5);
                continue;
            }
            Assert.Fail($"left after {after}: {left}");
        }
    }

    private string? LeftOver()
    {
        if (Directory.EnumerateFileSystemEntries(Agent.Root).FirstOrDefault() is { } entry) return entry;
        foreach (var device in Directory.EnumerateDirectories("/sys/block", "loop*"))
        {
            var backing = Path.Combine(device, "loop", "backing_file");
            try
            {
                if (File.Exists(backing) && File.ReadAllText(backing).Contains("mountledger-agent-", StringComparison.Ordinal)) return device;
            }
            catch (IOException)
            {
                // Cleared in this moment.
            }
        }
        if (Daemons() is [var daemon, ..]) return $"process {daemon}, which serves a mount that is not there any more";
        foreach (var worker in Agent.Workers())
        {
            var open = OpenIn(worker);
            // The runtime opens it last at its start: a worker without it is still opening what it will always have.
            if (!open.Contains("/dev/urandom")) continue;
            if (!descriptors.TryGetValue(worker, out var usual)) descriptors[worker] = open.Length;
            else if (open.Length > usual) return $"{open.Length - usual} descriptors of the worker: {string.Join(' ', open)}";
        }
        return null;
    }

    /// <summary>What helpers have left running: each was started with its place below the staging directory.</summary>
    private List<string> Daemons()
    {
        var staging = Path.Combine(Agent.StateDir, "staging") + "/";
        var daemons = new List<string>();
        foreach (var process in Directory.GetDirectories("/proc"))
        {
            if (!char.IsAsciiDigit(Path.GetFileName(process)[0])) continue;
            try
            {
                if (File.ReadAllText(Path.Combine(process, "cmdline")).Contains(staging, StringComparison.Ordinal)) daemons.Add(Path.GetFileName(process));
            }
            catch (IOException)
            {
                // It has ended.
            }
        }
        return daemons;
    }

    /// <summary>
    /// What the worker has open, without the assemblies, symbols (of a trace that it prints) and caches that the runtime opens when it feels like it, and without
    /// its log, which is opened again with the first message.
    /// </summary>
    private string[] OpenIn(int pid)
    {
        try
        {
            return [.. Directory.GetFiles($"/proc/{pid}/fd").Select(file => new FileInfo(file).LinkTarget ?? "")
                .Where(target => target.Length > 0 && target != Agent.LogFile && !target.EndsWith(".dll", StringComparison.Ordinal)
                    && !target.EndsWith(".pdb", StringComparison.Ordinal) && !target.Contains("doublemapper", StringComparison.Ordinal))];
        }
        catch (IOException)
        {
            return [];
        }
    }

    private void Count(string answer) => Answers[answer] = Answers.GetValueOrDefault(answer) + 1;
}
