using System.Diagnostics;

namespace MountLedger.Bench;

/// <summary>The client as people call it: a whole process, from the start of the program to its end.</summary>
internal static class ClientMeasures
{
    public static async Task<IReadOnlyList<Row>> RunAsync(MeasureContext context)
    {
        var agent = await AgentUnderTest.StartAsync(context);
        var client = Path.Combine(context.Options.Artifacts, "mountledger");
        (string Name, string Program, string[] Arguments)[] programs =
        [
            ("mount --version", "/bin/mount", ["--version"]), ("findmnt", "/bin/findmnt", []), ("dotnet --version", "dotnet", ["--version"]),
        ];
        var each = context.Options.Size(10, 2);
        Milliseconds(client, ["ls", "--socket", agent.Socket], each);
        var ours = new List<double>();
        var others = programs.Select(_ => new List<double>()).ToArray();
        for (var round = 0; round < context.Options.Rounds; round++)
        {
            ours.Add(Milliseconds(client, ["ls", "--socket", agent.Socket], each));
            for (var i = 0; i < programs.Length; i++) others[i].Add(Milliseconds(programs[i].Program, programs[i].Arguments, each));
        }
        await agent.StopAsync();
        return [.. programs.Select((program, i) => Row.Against("mountledger ls, whole process", "ms", ours, program.Name, others[i], "", _ => true) with { Met = null })];
    }

    private static double Milliseconds(string program, string[] arguments, int count)
    {
        var times = new List<double>();
        for (var i = 0; i < count; i++)
        {
            var start = Stopwatch.GetTimestamp();
            Programs.Must(program, arguments);
            times.Add(Stopwatch.GetElapsedTime(start).TotalMilliseconds);
        }
        times.Sort();
        return Figure.Quantile(times, 0.5);
    }
}
