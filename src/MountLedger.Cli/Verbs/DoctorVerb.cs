using System.CommandLine;
using System.Text;
using System.Text.Json;
using MountLedger.Wire;

namespace MountLedger.Cli.Verbs;

/// <summary>
/// <c>mountledger doctor</c>: what this host has and lacks, with a remedy for each shortfall. Where no agent answers, it says what
/// the client can find out by itself.
/// </summary>
internal static class DoctorVerb
{
    private const string Examples = """
          mountledger doctor
          mountledger doctor --all
          mountledger doctor --json
        """;

    private const int NameWidthMax = 24;

    public static Command Define(CommandLine line)
    {
        var all = new Option<bool>("--all") { Description = "Also show what is as it should be" };
        var command = line.Verb(
            "doctor", "Show what this host has and lacks, with remedies; exits with 1 when there is a shortfall.", Examples, ShowAsync);
        command.Add(all);
        return command;

        async Task<int> ShowAsync(Run run, CancellationToken cancellationToken)
        {
            if (run.Host is not null)
                throw new ExitException(ExitCode.BadUsage, "--host: the doctor looks at the host of the agent that it asks — use --socket to ask another");
            var view = await AskAsync(run, cancellationToken);
            if (run.Json)
                await run.Output.WriteDocumentAsync(JsonSerializer.SerializeToUtf8Bytes(view, Answers.Json.DoctorView));
            else
                await run.Output.WriteAsync(Lines(view, run.Value(all)));
            return view.Well ? ExitCode.Done : ExitCode.OperationFailed;
        }
    }

    private static async Task<DoctorView> AskAsync(Run run, CancellationToken cancellationToken)
    {
        try
        {
            var answer = await run.Agent.GetAsync("/v1/doctor", cancellationToken);
            return answer.Read(AnswerJson.Default.DoctorView);
        }
        catch (ExitException away) when (away.Code is ExitCode.Unavailable or ExitCode.NotPermitted)
        {
            return new DoctorView(Host: null, [Away(run, away), .. OwnFindings()]);
        }
    }

    private static DoctorFinding Away(Run run, ExitException away)
    {
        if (away.Code == ExitCode.NotPermitted)
            return DoctorFinding.Shortfall("agent", "serving", away.Message, "ask as root, or have the socket opened for a group of yours");
        var socket = DoctorFinding.Quoted(run.Socket);
        return DoctorFinding.Shortfall(
            "agent", "serving", away.Message,
            $"start the agent (systemctl start mountledger, or mountledgerd --socket {socket}), or name the socket of the one that runs");
    }

    /// <summary>What files say to everybody; the agent, when it runs, says the same and more.</summary>
    private static IEnumerable<DoctorFinding> OwnFindings()
    {
        if (ReadLine("/proc/sys/kernel/osrelease") is { } release)
            yield return DoctorFinding.Ok("kernel", "release", $"Linux {release}");
        yield return File.Exists("/dev/loop-control")
            ? DoctorFinding.Ok("devices", "loop", "/dev/loop-control is there")
            : DoctorFinding.Note("devices", "loop", "there is no /dev/loop-control here: images cannot be mounted", "load the module loop", "modprobe loop");
        yield return File.Exists("/dev/fuse")
            ? DoctorFinding.Ok("devices", "fuse", "/dev/fuse is there")
            : DoctorFinding.Note("devices", "fuse", "there is no /dev/fuse here: FUSE filesystems cannot be mounted", "load the module fuse", "modprobe fuse");
        if (ReadLine("/proc/sys/fs/mount-max") is { } most)
            yield return DoctorFinding.Ok("limits", "fs.mount-max", $"{most} mounts are allowed in a namespace");
        yield return Environment.IsPrivilegedProcess
            ? DoctorFinding.Ok("permissions", "user", "asked by root")
            : DoctorFinding.Note("permissions", "user", "not asked by root: the agent has to be started by root");
    }

    private static string? ReadLine(string file)
    {
        try
        {
            return File.ReadAllText(file).Trim();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    private static string Lines(DoctorView view, bool all)
    {
        var shown = view.Findings.Where(finding => all || finding.Level != DoctorLevel.Ok).OrderByDescending(finding => finding.Level).ToList();
        var text = new StringBuilder();
        foreach (var finding in shown)
        {
            var name = $"{finding.Area}: {finding.Name}";
            Line($"{Text.Name(finding.Level),-9}  {name.PadRight(NameWidthMax)}  {finding.Says}");
            if (finding.Remedy is { } remedy) Line($"{"",-9}    remedy: {remedy}");
            if (finding.Command is { } command) Line($"{"",-9}    run:    {command}");
        }

        var (shortfalls, notes) = (Count(DoctorLevel.Shortfall), Count(DoctorLevel.Note));
        Line($"{(view.Host is { } host ? $"host {host}" : "this host")}: {Text.Count(shortfalls, "shortfall")}, {Text.Count(notes, "note")}, "
            + $"{Text.Count(Count(DoctorLevel.Ok), "thing")} as it should be{(all ? "" : " (--all shows them)")}");
        return text.ToString();

        void Line(string line) => text.Append(Text.OneLine(line)).Append('\n');

        int Count(DoctorLevel level) => view.Findings.Count(finding => finding.Level == level);
    }
}
