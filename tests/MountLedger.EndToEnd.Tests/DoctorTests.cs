using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using MountLedger.Wire;

namespace MountLedger.EndToEnd;

/// <summary>
/// <c>mountledger doctor</c> on a real host: each shortfall is caused, the remedy is carried out as it is printed, and the shortfall is gone.
/// </summary>
[Collection(AgentSuite.Name)]
public sealed class DoctorTests(AgentSuite suite)
{
    /// <summary>A mount namespace of the agent's own, with a /dev that lacks what images and FUSE need.</summary>
    private static readonly string[] PoorDevices =
    [
        "unshare", "--mount", "--propagation", "private", "sh", "-c",
        """
        mount -t tmpfs -o mode=755 dev /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/zero c 1 5 && mknod -m 666 /dev/random c 1 8 \
        && mknod -m 666 /dev/urandom c 1 9 && exec "$0" "$@"
        """,
    ];

    [RootFact]
    public async Task A_host_as_it_should_be_has_no_shortfall_and_exit_code_0()
    {
        await using var agent = await suite.StartAsync();
        var (code, view) = await DoctorAsync(agent);
        Assert.Empty(view.Findings.Where(finding => finding.Level == DoctorLevel.Shortfall));
        Assert.Equal((0, true, AgentProcess.HostName), (code, view.Well, view.Host));
        foreach (var area in (string[])["agent", "worker", "postgres", "kernel", "namespace", "permissions", "roots", "limits", "devices", "helpers", "disk"])
            Assert.Contains(view.Findings, finding => finding.Area == area);
        Assert.All(view.Findings, finding => Assert.True(finding.Level != DoctorLevel.Shortfall || finding.Remedy is not null));

        var text = await RunAsync(agent, "doctor");
        Assert.Equal(0, text.Code);
        Assert.Contains($"host {AgentProcess.HostName}: 0 shortfalls", text.Out, StringComparison.Ordinal);
        Assert.Contains("fsopen, fsconfig", (await RunAsync(agent, "doctor", "--all")).Out, StringComparison.Ordinal);
    }

    [RootFact]
    public async Task Risky_and_missing_roots_are_found_and_the_printed_command_mends_them()
    {
        await using var agent = await suite.StartAsync();
        var parent = Path.GetDirectoryName(agent.Root)!;

        Shell.Run("chmod", "g+w,o+w", parent);
        await MendedAsync(agent, "roots", parent);

        Shell.Run("chown", "65534", parent);
        var theirs = await MendedAsync(agent, "roots", parent);
        Assert.Contains("belongs to nobody", theirs.Says, StringComparison.Ordinal);

        Directory.Delete(agent.Root);
        await MendedAsync(agent, "roots", agent.Root);

        // A link instead of the root has no command: whether to configure the real path is the operator's to say.
        Directory.Delete(agent.Root);
        File.CreateSymbolicLink(agent.Root, "/usr");
        Assert.Contains("realpath", (await FoundAsync(agent, "roots", agent.Root)).Remedy, StringComparison.Ordinal);
        File.Delete(agent.Root);
        Directory.CreateDirectory(agent.Root);
        await GoneAsync(agent, "roots", agent.Root);
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task Limits_that_are_too_low_are_found_and_the_printed_command_raises_them()
    {
        await using var agent = await suite.StartAsync();
        Shell.Run("prlimit", "--pid", agent.Pid.ToString(CultureInfo.InvariantCulture), "--nofile=1024:");
        await MendedAsync(agent, "limits", "nofile");

        const string File = "/proc/sys/fs/mount-max";
        var before = System.IO.File.ReadAllText(File);
        try
        {
            // One below the kernel's default: enough to be said, too little to be in anybody's way.
            System.IO.File.WriteAllText(File, "99999");
            await MendedAsync(agent, "limits", "fs.mount-max");
        }
        finally
        {
            System.IO.File.WriteAllText(File, before);
        }
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task A_given_server_that_may_forget_is_found_and_the_printed_commands_make_it_remember()
    {
        // A server whose settings are its administrator's; the agent's own has these on its command line, where nobody can change them.
        await using var agent = AgentProcess.Create("Host=/nonexistent");
        using var server = new PlainPostgres(agent.Below("pg"));
        agent.Postgres = $"Host={server.Directory};Username=postgres;Database=postgres";
        await agent.StartAgainAsync();
        foreach (var setting in (string[])["fsync", "full_page_writes", "synchronous_commit"])
        {
            server.Run($"alter system set {setting} = off");
            server.Run("select pg_reload_conf()");
            await agent.UntilAsync(async () => (await DoctorAsync(agent)).Code == 1, $"{setting} is found");
            await MendedAsync(agent, "postgres", setting);
        }
        Assert.Equal(0, await agent.TerminateAsync());
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task Missing_device_nodes_are_found_and_the_printed_commands_make_them()
    {
        await using var agent = AgentProcess.Create(await suite.Server.CreateLedgerAsync());
        agent.Wrapper = PoorDevices;
        await agent.StartAgainAsync();

        await MendedAsync(agent, "devices", "loop", last: false);
        var fuse = Finding((await DoctorAsync(agent)).View, "devices", "fuse");
        Assert.NotEqual(DoctorLevel.Ok, fuse.Level);
        InNamespaceOf(agent, fuse.Command!);
        await GoneAsync(agent, "devices", "fuse", DoctorLevel.Ok);

        var propagation = Finding((await DoctorAsync(agent)).View, "roots", $"propagation of {agent.Root}");
        Assert.Equal(DoctorLevel.Note, propagation.Level);
        InNamespaceOf(agent, propagation.Command!);
        await GoneAsync(agent, "roots", propagation.Name, DoctorLevel.Ok);
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task A_worker_without_its_capability_is_found_and_with_it_all_is_well()
    {
        await using var agent = AgentProcess.Create(await suite.Server.CreateLedgerAsync());
        agent.Wrapper = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"];
        await agent.StartAgainAsync();
        var lacking = await FoundAsync(agent, "permissions", "CAP_SYS_ADMIN");
        Assert.Contains("bounding set", lacking.Remedy, StringComparison.Ordinal);
        Assert.Equal(0, await agent.TerminateAsync());

        agent.Wrapper = [];
        await agent.StartAgainAsync();
        await GoneAsync(agent, "permissions", "capabilities", DoctorLevel.Ok);
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task A_full_disk_below_the_state_directory_is_found_until_there_is_room()
    {
        await using var agent = AgentProcess.Create(await suite.Server.CreateLedgerAsync());
        Directory.CreateDirectory(agent.StateDir);
        Shell.Run("mount", "-t", "tmpfs", "-o", "size=300M", "state", agent.StateDir);
        await agent.StartAgainAsync();
        var filler = Path.Combine(agent.StateDir, "filler");
        Shell.Run("fallocate", "-l", "100M", filler);
        Assert.Contains("256 MiB", (await FoundAsync(agent, "disk", "stateDir")).Remedy, StringComparison.Ordinal);
        File.Delete(filler);
        await GoneAsync(agent, "disk", "stateDir");
        await agent.TerminateAsync();
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task A_worker_that_does_not_answer_is_a_shortfall_and_the_next_one_does()
    {
        await using var agent = await suite.StartAsync(environment => environment["MOUNTLEDGER_OPERATION_SECONDS"] = "3");
        RootSignal.Send(agent.Workers()[0], "STOP");
        await FoundAsync(agent, "worker", "answer");
        await GoneAsync(agent, "worker", "answer", last: false);
        // A machine that stands still for that long costs another one.
        Assert.Matches("written off [1-9]", Finding((await DoctorAsync(agent)).View, "worker", "counters").Says);
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task A_worker_that_the_kernel_holds_is_a_shortfall_until_the_connection_is_aborted_as_it_says()
    {
        using var stuck = new StuckFilesystem(destroy: true);
        await using var agent = await suite.StartAsync(environment =>
        {
            environment["MOUNTLEDGER_OPERATION_SECONDS"] = "6";
            environment["MOUNTLEDGER_CONFIG"] = stuck.Config;
        });
        var device = stuck.Device;
        Assert.Equal("mounted", (await agent.MountAsync("stuck", "c", device, "fuse.stuck", ["at=destroy"])).Outcome);
        var number = ConnectionOf(agent.PathOf("stuck"));
        Assert.Equal(202, (await agent.UnmountAsync("stuck", "c", wait: 0)).Status);
        await agent.UntilPhaseAsync("stuck", "uncertain");
        await agent.UntilAsync(
            async () => Finding((await DoctorAsync(agent)).View, "worker", "counters").Says.Contains("stuck 1", StringComparison.Ordinal), "doctor finds it");
        var found = await FoundAsync(agent, "worker", "counters");

        Assert.Contains("mount -t fusectl fusectl /sys/fs/fuse/connections", found.Remedy, StringComparison.Ordinal);
        InNamespaceOf(agent, "mountpoint -q /sys/fs/fuse/connections || mount -t fusectl fusectl /sys/fs/fuse/connections");
        Assert.Contains("echo 1 > /sys/fs/fuse/connections/N/abort", found.Remedy, StringComparison.Ordinal);
        // Its own one: other tests beside this one have servers that hang, too.
        var connection = $"/sys/fs/fuse/connections/{number}";
        Assert.NotEqual("0", File.ReadAllText($"{connection}/waiting").Trim());
        InNamespaceOf(agent, $"echo 1 > {connection}/abort");
        await GoneAsync(agent, "worker", "counters", DoctorLevel.Ok);
        await agent.UntilPhaseAsync("stuck", "absent");
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task A_launcher_that_is_stopped_is_a_shortfall_and_the_printed_command_lets_it_go_on()
    {
        await using var agent = await suite.StartAsync();
        Assert.Equal(DoctorLevel.Ok, Finding((await DoctorAsync(agent)).View, "permissions", "agent").Level);
        RootSignal.Send(agent.Launcher()!.Value, "STOP");
        await MendedAsync(agent, "launcher", "answer");
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task A_missing_machine_id_is_noted_and_the_printed_command_makes_one()
    {
        await using var agent = AgentProcess.Create(await suite.Server.CreateLedgerAsync());
        // Its own /etc: what is removed and made in it is nobody else's.
        var (upper, work) = (agent.Below("etc-upper"), agent.Below("etc-work"));
        agent.Wrapper =
        [
            "unshare", "--mount", "--propagation", "private", "sh", "-c",
            $"mount -t overlay -o lowerdir=/etc,upperdir={upper},workdir={work} overlay /etc && rm -f /etc/machine-id && exec \"$0\" \"$@\"",
        ];
        await agent.StartAgainAsync();
        var missing = Finding((await DoctorAsync(agent)).View, "host", "machine-id");
        Assert.Equal((DoctorLevel.Note, "systemd-machine-id-setup"), (missing.Level, missing.Command));
        InNamespaceOf(agent, missing.Command!);
        await GoneAsync(agent, "host", "machine-id", DoctorLevel.Ok);
        Assert.Equal(0, await agent.TerminateAsync());
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task User_namespaces_that_are_not_allowed_are_noted_and_the_printed_command_allows_them()
    {
        await using var agent = AgentProcess.Create(await suite.Server.CreateLedgerAsync());
        // The limit is one of a user namespace: in one of the agent's own it is in nobody else's way.
        agent.Wrapper =
        [
            "unshare", "--user", "--map-root-user", "--mount", "--propagation", "private", "sh", "-c",
            "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" \"$@\"",
        ];
        await agent.StartAgainAsync();
        // There root keeps what it has, which is worth nothing outside.
        Assert.Null(agent.Launcher());
        var none = Finding((await DoctorAsync(agent)).View, "limits", "user-namespaces");
        Assert.Equal(DoctorLevel.Note, none.Level);
        Shell.Run("nsenter", "--target", agent.Pid.ToString(CultureInfo.InvariantCulture), "--user", "--mount", "sh", "-c", none.Command!);
        await GoneAsync(agent, "limits", "user-namespaces", DoctorLevel.Ok);
        Assert.Equal("mounted", (await agent.MountAsync("a", "c")).Outcome);
        Assert.Equal("unmounted", (await agent.UnmountAsync("a", "c")).Outcome);
        Assert.Equal(0, await agent.TerminateAsync());
    }

    [RootFact]
    public async Task An_agent_that_waits_for_its_ledger_says_so()
    {
        await using var agent = AgentProcess.Create("Host=/nonexistent;Username=nobody;Database=none");
        agent.Launch();
        await agent.UntilAsync(async () => (await agent.ReadyAsync()).Status == 503, "the agent listens");
        await agent.UntilAsync(
            async () => Finding((await DoctorAsync(agent)).View, "postgres", "server").Says.Contains("/nonexistent", StringComparison.Ordinal), "the server is named");
        Assert.Contains("the agent is starting", (await FoundAsync(agent, "agent", "serving")).Says, StringComparison.Ordinal);
    }

    /// <summary>It is there, its command is run by a shell in the agent's mount namespace as it was printed, and it is gone.</summary>
    private static async Task<DoctorFinding> MendedAsync(AgentProcess agent, string area, string name, bool last = true)
    {
        var found = await FoundAsync(agent, area, name);
        Assert.NotNull(found.Command);
        Assert.Contains($"run:    {found.Command}", (await RunAsync(agent, "doctor")).Out, StringComparison.Ordinal);
        InNamespaceOf(agent, found.Command!);
        await GoneAsync(agent, area, name, last: last);
        return found;
    }

    private static async Task<DoctorFinding> FoundAsync(AgentProcess agent, string area, string name)
    {
        var (code, view) = await DoctorAsync(agent);
        var finding = Finding(view, area, name);
        Assert.Equal((DoctorLevel.Shortfall, 1), (finding.Level, code));
        Assert.NotNull(finding.Remedy);
        return finding;
    }

    private static async Task GoneAsync(AgentProcess agent, string area, string name, DoctorLevel? level = null, bool last = true)
    {
        DoctorFinding? still = null;
        await agent.UntilAsync(
            async () =>
            {
                var (code, view) = await DoctorAsync(agent);
                still = view.Findings.FirstOrDefault(finding => finding.Area == area && finding.Name == name);
                return level is { } wanted ? still?.Level == wanted : still?.Level != DoctorLevel.Shortfall && (code == 0 || !last);
            },
            $"{area}: {name} is well");
    }

    /// <summary>The number of a FUSE connection is that of its filesystem's device, as the kernel has it within.</summary>
    private static uint ConnectionOf(string mountpoint)
    {
        var entry = Linux.MountInfoReader.Read(out _).Single(entry => entry.Mount.Path == mountpoint);
        return (entry.DeviceMajor << 20) | entry.DeviceMinor;
    }

    private static DoctorFinding Finding(DoctorView view, string area, string name) =>
        view.Findings.FirstOrDefault(finding => finding.Area == area && finding.Name == name)
        ?? throw new Xunit.Sdk.XunitException($"no finding {area}: {name} in\n{string.Join('\n', view.Findings)}");

    private static void InNamespaceOf(AgentProcess agent, string command) =>
        Shell.Run("nsenter", "--target", agent.Pid.ToString(CultureInfo.InvariantCulture), "--mount", "sh", "-c", command);

    private static async Task<(int Code, DoctorView View)> DoctorAsync(AgentProcess agent)
    {
        var (code, text) = await RunAsync(agent, "doctor", "--json");
        return (code, JsonSerializer.Deserialize(text, AnswerJson.Default.DoctorView)!);
    }

    private static async Task<(int Code, string Out)> RunAsync(AgentProcess agent, params string[] arguments)
    {
        var start = new ProcessStartInfo(Path.Combine(AppContext.BaseDirectory, "MountLedger.Cli"), [.. arguments, "--socket", agent.Socket])
        {
            RedirectStandardOutput = true,
        };
        using var process = Process.Start(start)!;
        var output = await process.StandardOutput.ReadToEndAsync();
        await process.WaitForExitAsync();
        return (process.ExitCode, output);
    }

    /// <summary>A PostgreSQL with the settings that it comes with, on a unix socket in its directory.</summary>
    private sealed class PlainPostgres : IDisposable
    {
        private readonly string binaries = System.IO.Directory.GetDirectories("/usr/lib/postgresql").Order(StringComparer.Ordinal).Last() + "/bin";

        public PlainPostgres(string directory)
        {
            Directory = directory;
            Shell.Run("chown", "postgres", directory);
            AsPostgres("initdb", "-D", $"{directory}/data", "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale", "C");
            AsPostgres("pg_ctl", "-D", $"{directory}/data", "-w", "-l", $"{directory}/log", "-o", $"-k {directory} -h ''", "start");
        }

        public string Directory { get; }

        public void Run(string sql) => Shell.Run("psql", "-X", "-q", "-h", Directory, "-U", "postgres", "-d", "postgres", "-c", sql);

        public void Dispose() => AsPostgres("pg_ctl", "-D", $"{Directory}/data", "-w", "-m", "immediate", "stop");

        private void AsPostgres(string program, params string[] arguments) => Shell.Run(
            "setpriv", ["--reuid", "postgres", "--regid", "postgres", "--clear-groups", $"{binaries}/{program}", .. arguments]);
    }
}
