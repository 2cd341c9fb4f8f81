using System.CommandLine;
using System.CommandLine.Help;
using System.CommandLine.Invocation;
using System.CommandLine.Parsing;
using System.Text;

namespace MountLedger.Cli;

/// <summary>
/// The command line as a whole: what all verbs share, and how a run ends, whatever happens, with one of the documented
/// exit codes and at most one line (and its details) on stderr.
/// </summary>
internal sealed class CommandLine
{
    private const int BrokenPipe = 32; // EPIPE, which is what .NET puts into IOException.HResult on Linux

    private const string Examples = """
          mountledger mount -t tmpfs -o size=1G tmpfs /srv/scratch --volume scratch --consumer job-17
          mountledger ls
          mountledger history /srv/scratch
        """;

    private readonly Option<bool> _json = new("--json")
    {
        Description = "Print the agent's JSON instead of text: one document, or one per line where it streams",
        Recursive = true,
    };

    private readonly Option<string?> _host = new("--host")
    {
        Description = "The host that is meant (default: the agent's own; '*' lists all)",
        HelpName = "HOST",
        Recursive = true,
    };

    private readonly Option<string?> _socket = new("--socket")
    {
        Description = $"The agent's unix socket (default: ${AgentClient.SocketVariable}, else {AgentClient.DefaultSocket})",
        HelpName = "PATH",
        Recursive = true,
    };

    private readonly Dictionary<Command, string> _examples = [];

    private readonly Surroundings _surroundings;

    private CommandLine(Surroundings surroundings) => _surroundings = surroundings;

    public TimeProvider Clock => _surroundings.Clock;

    /// <summary>Parses, runs the verb that was asked for, and returns the exit code. Never throws for what a user or an agent does.</summary>
    public static async Task<int> RunAsync(string[] args, Surroundings surroundings, params Func<CommandLine, Command>[] verbs)
    {
        var line = new CommandLine(surroundings);
        var output = new StringWriter { NewLine = "\n" };
        try
        {
            ArgumentBytes.RefuseInvalidUtf8(args);
            var parsed = line.Root(verbs).Parse(args, new ParserConfiguration { ResponseFileTokenReplacer = null });
            RefuseErrors(parsed, args);
            var code = await parsed.InvokeAsync(new InvocationConfiguration
            {
                EnableDefaultExceptionHandler = false,
                ProcessTerminationTimeout = null,
                Output = output,
                Error = surroundings.Error,
            });
            await surroundings.Out.WriteAsync(Encoding.UTF8.GetBytes(output.ToString()));
            return code;
        }
        catch (ExitException end)
        {
            return await line.EndAsync(end, args);
        }
        catch (IOException e) when (e.HResult == BrokenPipe)
        {
            // Whoever read our output has enough. What was asked of the agent is done and recorded.
            return ExitCode.Done;
        }
        catch (IOException e)
        {
            line.Say($"cannot write the output: {e.Message} — the request itself was answered, see 'mountledger history'");
            return ExitCode.OperationFailed;
        }
    }

    /// <summary>A verb with its examples, whose action gets a <see cref="Run"/> instead of a raw parse result.</summary>
    public Command Verb(string name, string description, string examples, Func<Run, CancellationToken, Task<int>>? action)
    {
        var command = new Command(name, description);
        _examples.Add(command, examples);
        if (action is not null)
        {
            command.SetAction((parsed, cancellationToken) => action(
                new Run(parsed, _surroundings, parsed.GetValue(_json), parsed.GetValue(_host), Socket(parsed)), cancellationToken));
        }

        return command;
    }

    private Command Root(Func<CommandLine, Command>[] verbs)
    {
        // Not a RootCommand: that one would take its name from the file that runs, and understand directives in brackets.
        var root = new Command("mountledger", "Asks the mount coordinator of this host to mount and unmount, and what it knows.");
        _examples.Add(root, Examples);
        foreach (var verb in verbs)
        {
            root.Add(verb(this));
        }

        var help = new HelpOption { Recursive = true };
        help.Action = new HelpWithExamples((HelpAction)help.Action!, _examples);
        root.Add(_json);
        root.Add(_host);
        root.Add(_socket);
        root.Add(help);
        root.Add(new VersionOption());
        return root;
    }

    private string Socket(ParseResult parsed) => parsed.GetValue(_socket)
        ?? (_surroundings.Variable(AgentClient.SocketVariable) is { Length: > 0 } socket ? socket : AgentClient.DefaultSocket);

    private static void RefuseErrors(ParseResult parsed, string[] args)
    {
        if (parsed.Action is HelpWithExamples)
            return;
        var help = $"see '{Path(parsed.CommandResult)} --help'";
        if (!args.Contains("--"))
        {
            // The parser takes a misspelt option for a positional argument while there is room for one.
            var option = parsed.CommandResult.Children.OfType<ArgumentResult>()
                .SelectMany(static argument => argument.Tokens).FirstOrDefault(static token => token.Value.StartsWith('-'));
            if (option is not null)
            {
                throw new ExitException(
                    ExitCode.BadUsage, $"there is no option '{option.Value}' — {help}; a name that begins with '-' goes after '--'");
            }
        }

        if (parsed.Errors.Count == 0)
            return;
        // Among several, an argument that nobody knows explains the others.
        var error = parsed.Errors.FirstOrDefault(static e => e.Message.StartsWith("Unrecognized", StringComparison.Ordinal))
            ?? parsed.Errors[0];
        throw new ExitException(
            ExitCode.BadUsage,
            error.Message.Contains('—', StringComparison.Ordinal) ? error.Message : $"{error.Message.TrimEnd('.')} — {help}");
    }

    private static string Path(SymbolResult? result) => result is System.CommandLine.Parsing.CommandResult command
        ? $"{Path(command.Parent)} {command.Command.Name}".TrimStart()
        : "";

    private async Task<int> EndAsync(ExitException end, string[] args)
    {
        Say(end.Message);
        foreach (var detail in end.Details)
        {
            _surroundings.Error.WriteLine("  " + Text.OneLine(detail));
        }

        if (end.Document is not null && args.TakeWhile(static a => a != "--").Contains("--json"))
        {
            try
            {
                await new Output(_surroundings).WriteDocumentAsync(end.Document);
            }
            catch (IOException)
            {
                // Nobody reads the document; the line and the exit code say it too.
            }
        }

        return end.Code;
    }

    private void Say(string line) => _surroundings.Error.WriteLine("mountledger: " + Text.OneLine(line));

    private sealed class HelpWithExamples(HelpAction inner, Dictionary<Command, string> examples) : SynchronousCommandLineAction
    {
        public override bool ClearsParseErrors => true;

        public override int Invoke(ParseResult parseResult)
        {
            inner.Invoke(parseResult);
            var output = parseResult.InvocationConfiguration.Output;
            output.WriteLine("Examples:");
            output.WriteLine(examples[parseResult.CommandResult.Command]);
            output.WriteLine();
            output.WriteLine(ExitCode.Help);
            return ExitCode.Done;
        }
    }
}

/// <summary>What a verb's action works with.</summary>
internal sealed record Run(ParseResult Parsed, Surroundings Surroundings, bool Json, string? Host, string Socket)
{
    public Output Output { get; } = new(Surroundings);

    public AgentClient Agent { get; } = new(Socket, Surroundings.AnswerMargin);

    public T? Value<T>(Option<T> option) => Parsed.GetValue(option);

    public T Value<T>(Argument<T> argument) => Parsed.GetRequiredValue(argument);
}
