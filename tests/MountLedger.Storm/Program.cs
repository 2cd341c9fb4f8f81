using System.Globalization;
using MountLedger.Storm;

// Kills a real agent, its workers and its PostgreSQL again and again while clients work, and checks everything after each kill.
var kills = 500;
var seed = Random.Shared.Next(1, 1_000_000);
for (var i = 0; i < args.Length; i++)
{
    var isLast = i + 1 >= args.Length;
    switch (args[i])
    {
        case "--kills" when !isLast && int.TryParse(args[i + 1], CultureInfo.InvariantCulture, out var count) && count > 0: kills = count; i++; break;
        case "--seed" when !isLast && int.TryParse(args[i + 1], CultureInfo.InvariantCulture, out var given): seed = given; i++; break;
        default:
            Console.Error.WriteLine(
                $"""
                there is no '{args[i]}' here, or its number is missing.
                usage: storm [--kills N] [--seed S]   N kills (default 500); the seed decides points and victims
                """);
            return 2;
    }
}

Console.WriteLine($"storm: {kills} kills, seed {seed}");
var result = await Storm.RunAsync(kills, seed, Console.WriteLine);
Console.Write(StormReport.Of(result));
return result.Violations.Count == 0 ? 0 : 1;
