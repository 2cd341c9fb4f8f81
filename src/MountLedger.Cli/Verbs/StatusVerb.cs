using System.CommandLine;
using System.Globalization;
using System.Text;
using MountLedger.Wire;

namespace MountLedger.Cli.Verbs;

/// <summary><c>mountledger status</c>: all that is known of one mountpoint.</summary>
internal static class StatusVerb
{
    private const string Examples = """
          mountledger status /srv/scratch
          mountledger status /srv/scratch --json
        """;

    public static Command Define(CommandLine line)
    {
        var mountpoint = new Argument<string>("MOUNTPOINT") { Description = "The absolute path" };
        var command = line.Verb("status", "Show one mountpoint: what is mounted, who needs it, what failed.", Examples, ShowAsync);
        command.Add(mountpoint);
        return command;

        async Task<int> ShowAsync(Run run, CancellationToken cancellationToken)
        {
            var query = new Query("/v1/mountpoints/status").With("path", run.Value(mountpoint)).With("host", run.Host);
            var answer = await run.Agent.GetAsync(query.ToString(), cancellationToken);
            if (run.Json)
                await run.Output.WriteDocumentAsync(answer.Body);
            else
                await run.Output.WriteAsync(Lines(answer.Read(AnswerJson.Default.MountpointView)));
            return ExitCode.Done;
        }
    }

    private static string Lines(MountpointView m)
    {
        var text = new StringBuilder();
        text.Append(Text.OneLine($"{m.Mountpoint} on host {m.Host}")).Append('\n');
        Line("phase", Text.Name(m.Phase));
        Line("version", string.Create(CultureInfo.InvariantCulture, $"{m.Version}, generation {m.Generation}"));
        if (m.Fstype is not null)
        {
            var options = m.Options.IsDefaultOrEmpty ? "" : $" ({string.Join(",", m.Options)})";
            Line("mount", $"{m.Source} type {m.Fstype}{options}");
        }

        if (m.Kernel is { } kernel)
            Line("kernel", $"mount id {(kernel.MountId is { } id ? id.ToString(CultureInfo.InvariantCulture) : "unknown")}, boot {kernel.BootId}");
        foreach (var attachment in m.Attachments.IsDefault ? [] : m.Attachments)
        {
            Line("attached", $"{attachment.Volume} for {attachment.Consumer}, since {Text.Time(attachment.Since)} by {attachment.Actor}");
        }

        if (m.Error is { } error)
        {
            Line("error", $"{Text.Name(error.Operation)}: {error.Errno}: {error.Message}");
            foreach (var holder in Problems.Holders(error))
            {
                Line("", holder);
            }

            if (error.RetryAt is { } retryAt)
                Line("retry", Text.Time(retryAt));
        }

        if (m.UpdatedAt is { } updatedAt)
            Line("updated", Text.Time(updatedAt));
        return text.ToString();

        void Line(string name, string value) => text.Append("  ").Append(name.PadRight(10)).Append(Text.OneLine(value)).Append('\n');
    }
}
