using System.Diagnostics;
using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using Npgsql;

namespace MountLedger.EndToEnd;

/// <summary>
/// Looks for a secret wherever one could be: the database's dump, its tables and WAL as files, logs, answers, history, the process table
/// while a helper runs, and each system call of agent, worker and helper. Each search also looks for something that is to be found.
/// </summary>
[Collection(AgentSuite.Name)]
public sealed partial class SecretSearchTests(AgentSuite suite) : IDisposable
{
    private readonly DirectoryInfo _scratch = Directory.CreateTempSubdirectory("mountledger-secrets-");
    private readonly string _secret = "s3cr3t" + Guid.NewGuid().ToString("N");
    private readonly string _clear = "cl3ar" + Guid.NewGuid().ToString("N");

    public void Dispose() => _scratch.Delete(recursive: true);

    private string At(string name) => Path.Combine(_scratch.FullName, name);

    private static IEnumerable<string> FormsOf(string secret) =>
        [secret, Convert.ToBase64String(Encoding.UTF8.GetBytes(secret))[..^4], Convert.ToHexStringLower(Encoding.UTF8.GetBytes(secret))];

    private static void IsNotIn(string text, string secret, string where) =>
        Assert.All(FormsOf(secret), form => Assert.False(text.Contains(form, StringComparison.OrdinalIgnoreCase), $"{where} holds it:\n{Around(text, form)}"));

    private static string Around(string text, string form) =>
        text.IndexOf(form, StringComparison.OrdinalIgnoreCase) is >= 0 and var at ? text[Math.Max(0, at - 300)..Math.Min(text.Length, at + 100)] : "";

    private void Program(string name, string script)
    {
        File.WriteAllText(At(name), "#!/bin/sh\n" + script);
        File.SetUnixFileMode(At(name), (UnixFileMode)Convert.ToInt32("755", 8));
    }

    private async Task<AgentProcess> StartAsync()
    {
        // One prints all that it was given and fails; one waits while it is looked at, and then mounts.
        const string Find = "for last; do :; done\nfile=$(printf %s \"$last\" | sed 's/.*passfile=//; s/,.*//')\n";
        Program("mount.fuse.leaky", $"{Find}echo \"arguments $*\"; tr '\\0' '\\n' </proc/$$/environ; cat \"$file\"; echo; base64 \"$file\" >&2; od -An -tx1 \"$file\"; echo leaky >&2; exit 32\n");
        Program("mount.cifs", "read -r it; echo \"the password was $it\" >&2; exit 32\n");
        Program("mount.fuse.vault", $"{Find}cat \"$file\" | sha256sum >{At("sum")}\necho $$ >{At("running")}\nwhile [ -e {At("running")} ] && [ ! -e {At("go")} ]; do sleep 0.05; done\nexec bindfs \"$1\" \"$2\"\n");
        Directory.CreateDirectory(At("secrets"), (UnixFileMode)Convert.ToInt32("700", 8));
        File.WriteAllText(At("secrets/name-of-it"), _secret);
        File.SetUnixFileMode(At("secrets/name-of-it"), (UnixFileMode)Convert.ToInt32("600", 8));
        File.WriteAllText(At("config"), $$"""
            { "helperTypes": { "fuse.leaky": ["passfile=secret"], "fuse.vault": ["passfile=secret"] },
              "helperDirs": ["{{_scratch.FullName}}", "/usr/bin"], "secretsDir": "{{At("secrets")}}" }
            """);
        return await suite.StartAsync(environment => environment["MOUNTLEDGER_CONFIG"] = At("config"));
    }

    [RootFact]
    [Trait("Category", "Long")]
    public async Task A_secret_is_found_where_the_helper_gets_it_and_nowhere_else()
    {
        await using var agent = await StartAsync();
        var worker = Assert.Single(agent.Workers());
        var agentThreads = ThreadsOf(agent.Pid);
        // Workers are started by the launcher.
        using var strace = await TraceAsync([agent.Pid, worker, .. agent.Launcher() is { } launcher ? (int[])[launcher] : []]);
        var answers = new StringBuilder();

        async Task<Answer> Keep(Task<Answer> asked)
        {
            var answer = await asked;
            answers.AppendLine(answer.ToString());
            return answer;
        }

        // Helpers that fail, and say all that they know.
        var source = agent.Below("source");
        var leaky = await Keep(agent.MountAsync("leaky", "c", source, "fuse.leaky", ["passfile=secret:name-of-it"]));
        Assert.Equal((422, "mount-failed"), (leaky.Status, leaky.Problem));
        Assert.Contains("<masked>", leaky.Detail, StringComparison.Ordinal);
        Assert.Contains("leaky", leaky.Detail, StringComparison.Ordinal);
        var cifs = await Keep(agent.MountAsync("cifs", "c", "//server/share", "cifs", ["username=bob", "password=secret:name-of-it"]));
        Assert.Contains("the password was <masked>", cifs.Detail, StringComparison.Ordinal);

        // One that works, looked at while it runs and while it is mounted.
        Assert.Equal(202, (await Keep(agent.MountAsync("vault", "c", source, "fuse.vault", ["passfile=secret:name-of-it"], wait: 0))).Status);
        await agent.UntilAsync(() => Task.FromResult(File.Exists(At("running")) && File.ReadAllText(At("running")).Length > 0), "the helper runs");
        Assert.Equal(Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData(Encoding.UTF8.GetBytes(_secret))), File.ReadAllText(At("sum")).Split(' ')[0]);
        LookThroughProcesses();
        Assert.Single(Directory.GetFiles(Path.Combine(agent.StateDir, "staging"), "*.secret", SearchOption.AllDirectories));
        File.WriteAllText(At("go"), "");
        await agent.UntilPhaseAsync("vault", "mounted");
        LookThroughProcesses();
        Assert.Empty(Directory.GetFiles(Path.Combine(agent.StateDir, "staging"), "*.secret", SearchOption.AllDirectories));

        // Secrets in clear.
        foreach (var (type, from, option) in ((string, string, string)[])
            [("cifs", "//server/share", $"password={_clear}"), ("cifs", $"//bob:{_clear}@server/share", "ro"), ("fuse.vault", source, $"passfile={_clear}"),
            ("fuse.s3fs", "bucket", $"url=https://u:{_clear}@h/"), ("tmpfs", "tmpfs", $"key={_clear}"), ("fuse.nothing", "x", $"token={_clear}")])
        {
            var refused = await Keep(agent.MountAsync("clear", "c", from, type, [option]));
            Assert.Equal((400, true), (refused.Status, refused.Text.Contains("=secret:NAME", StringComparison.Ordinal)));
        }

        Assert.Equal(400, (await Keep(agent.MountAsync("clear", "c", options: [$"size=1,key={_clear}"]))).Status);

        await Keep(agent.StatusAsync("vault"));
        await Keep(agent.StatusAsync("leaky"));
        await Keep(agent.GetAsync("/v1/mountpoints"));
        await Keep(agent.GetAsync("/v1/history?limit=1000"));
        Assert.Contains("passfile=secret:name-of-it", answers.ToString(), StringComparison.Ordinal);
        Assert.Equal("unmounted", (await Keep(agent.UnmountAsync("vault", "c"))).Outcome);
        agentThreads.UnionWith(ThreadsOf(agent.Pid));
        EndTrace(strace);

        var dump = Dump(agent);
        Assert.Contains("secret:name-of-it", dump, StringComparison.Ordinal);
        foreach (var secret in (string[])[_secret, _clear])
        {
            IsNotIn(answers.ToString(), secret, "an answer");
            IsNotIn(agent.Log, secret, "the log");
            IsNotIn(dump, secret, "the database");
        }
        LookThroughFiles(agent.StateDir);
        // The tests' own server is on this machine, a given one may not be.
        if (ClusterOf(agent) is { } cluster)
            Assert.Contains(LookThroughFiles(cluster), file => file.Contains("/pg_wal/", StringComparison.Ordinal));
        LookThroughTrace(agentThreads, worker);
    }

    private void LookThroughProcesses()
    {
        var seen = 0;
        foreach (var directory in Directory.GetDirectories("/proc").Where(directory => char.IsAsciiDigit(Path.GetFileName(directory)[0])))
        {
            foreach (var name in (string[])["cmdline", "environ"])
            {
                var text = ReadOf(Path.Combine(directory, name));
                if (text.Contains(_scratch.FullName, StringComparison.Ordinal)) seen++;
                IsNotIn(text, _secret, $"{directory}/{name}");
            }
        }
        // The agent's own environment names the configuration there.
        Assert.NotEqual(0, seen);
    }

    private static string ReadOf(string path)
    {
        try
        {
            return File.ReadAllText(path);
        }
        catch (Exception gone) when (gone is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }

    /// <summary>As they are on disk: tables and WAL of a cluster, epoch, staging, records.</summary>
    /// <returns>Those in which the secret's recorded name is found, as the value would be.</returns>
    private List<string> LookThroughFiles(string directory)
    {
        var named = new List<string>();
        foreach (var file in Directory.EnumerateFiles(directory, "*", SearchOption.AllDirectories))
        {
            // Sockets and what is deleted meanwhile are no files.
            string text;
            try
            {
                if ((File.GetAttributes(file) & FileAttributes.Device) != 0) continue;
                text = Encoding.Latin1.GetString(File.ReadAllBytes(file));
            }
            catch (Exception gone) when (gone is IOException or UnauthorizedAccessException)
            {
                continue;
            }
            if (text.Contains("secret:name-of-it", StringComparison.Ordinal)) named.Add(file);
            IsNotIn(text, _secret, file);
            IsNotIn(text, _clear, file);
        }
        return named;
    }

    private static string Dump(AgentProcess agent)
    {
        var settings = new NpgsqlConnectionStringBuilder(agent.Postgres);
        return Shell.Run("pg_dump", "-h", settings.Host!, "-p", $"{settings.Port}", "-U", settings.Username!, "-d", settings.Database!);
    }

    private static string? ClusterOf(AgentProcess agent) =>
        PostgresPresence.Given is null ? Path.Combine(Path.GetDirectoryName(new NpgsqlConnectionStringBuilder(agent.Postgres).Host)!, "data") : null;

    private static HashSet<int> ThreadsOf(int pid) =>
        [.. Directory.GetDirectories($"/proc/{pid}/task").Select(task => int.Parse(Path.GetFileName(task), CultureInfo.InvariantCulture))];

    /// <summary>Every system call of these and of all that they start, in a file for each thread.</summary>
    private async Task<Process> TraceAsync(params int[] processes)
    {
        Directory.CreateDirectory(At("trace"));
        List<string> arguments = ["-f", "-ff", "-s", "4096", "-o", At("trace/t"), .. processes.SelectMany(pid => (string[])["-p", pid.ToString(CultureInfo.InvariantCulture)])];
        var strace = Process.Start(new ProcessStartInfo("strace", arguments) { RedirectStandardError = true })!;
        strace.ErrorDataReceived += (_, _) => { };
        strace.BeginErrorReadLine();
        var clock = Stopwatch.StartNew();
        while (processes.Any(pid => ThreadsOf(pid).Any(thread => !File.Exists(At($"trace/t.{thread}")))))
        {
            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(20) && !strace.HasExited, "strace does not attach");
            await Task.Delay(20);
        }
        return strace;
    }

    private static void EndTrace(Process strace)
    {
        // It lets go of what it traces only when it is asked to end.
        RootSignal.Send(strace.Id, "TERM");
        Assert.True(strace.WaitForExit(20_000), "strace does not end");
    }

    private void LookThroughTrace(HashSet<int> agentThreads, int worker)
    {
        var traces = Directory.GetFiles(At("trace")).ToDictionary(
            file => int.Parse(Path.GetExtension(file)[1..], CultureInfo.InvariantCulture), File.ReadAllText);
        // The agent's threads, those that began meanwhile included; no worker, also none that it started meanwhile: that is what executes.
        var agent = new HashSet<int>(agentThreads);
        var open = new Queue<int>(agentThreads);
        while (open.TryDequeue(out var thread))
        {
            foreach (Match started in Started().Matches(traces.GetValueOrDefault(thread, "")))
                if (int.Parse(started.Groups[1].Value, CultureInfo.InvariantCulture) is var child && child != worker
                    && !traces.GetValueOrDefault(child, "").Contains("execve(", StringComparison.Ordinal) && agent.Add(child)) open.Enqueue(child);
        }
        var named = 0;
        foreach (var (thread, text) in traces.Where(trace => agent.Contains(trace.Key)))
        {
            IsNotIn(text, _secret, $"the agent's thread {thread}");
            named += text.Contains("secret:name-of-it", StringComparison.Ordinal) ? 1 : 0;
        }
        Assert.NotEqual(0, named);

        // Everything else is worker and helpers: there it is, and the worker neither sends it to the agent nor starts anything with it.
        var others = traces.Where(trace => !agent.Contains(trace.Key)).SelectMany(trace => trace.Value.Split('\n')).ToArray();
        var carrying = others.Where(line => line.Contains(_secret, StringComparison.Ordinal)).ToArray();
        Assert.Contains(carrying, line => line.StartsWith("read(", StringComparison.Ordinal));
        Assert.Contains(carrying, line => line.StartsWith("write(", StringComparison.Ordinal));
        Assert.All(carrying, line => Assert.Matches(@"^(read|write|pread64|\[|<\.\.\.)", line));
        // And strace sees what is sent and executed.
        Assert.Contains(others, line => line.StartsWith("execve(", StringComparison.Ordinal) && line.Contains("mount.fuse.vault", StringComparison.Ordinal));
        Assert.Contains(others, line => line.StartsWith("sendto(", StringComparison.Ordinal) && line.Contains("masked", StringComparison.Ordinal));
    }

    [GeneratedRegex(@"^(?:v?fork|clone3?)\(.*\) = (\d+)", RegexOptions.Multiline)]
    private static partial Regex Started();
}
