using System.Globalization;

namespace MountLedger.Tests.Rules;

/// <summary>
/// Whatever order commands, outcomes, crashes and drift come in, the rules hold: seeded sequences against
/// <see cref="SimulatedMountpoint"/>, which knows the truth. A failure prints the seed and the sequence up to it.
/// </summary>
public sealed class RuleProperties
{
    private const int StepsPerSequence = 60;

    [Theory]
    [InlineData(0, 1_500)]
    [InlineData(1_500, 1_500)]
    public void No_sequence_breaks_a_rule(int firstSeed, int count)
    {
        for (var seed = firstSeed; seed < firstSeed + count; seed++) Run(seed);
    }

    private static void Run(int seed)
    {
        var mountpoint = new SimulatedMountpoint(seed);
        try
        {
            for (var step = 0; step < StepsPerSequence; step++) mountpoint.Step();
            mountpoint.EndWell();
        }
        catch (Exception e)
        {
            var steps = string.Join('\n', mountpoint.Log.Select((line, number) => string.Create(CultureInfo.InvariantCulture, $"{number,3} {line}")));
            throw new InvalidOperationException($"seed {seed}: {e.Message}\n{steps}", e);
        }
    }
}
