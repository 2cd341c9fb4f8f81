using System.Diagnostics;

namespace MountLedger.EndToEnd;

/// <summary>How long an agent takes to answer while something else hangs.</summary>
public static class Promptly
{
    private const int AtOnceMs = 3000;

    public static async Task<Answer> AtOnceAsync(Func<Task<Answer>> request)
    {
        var clock = Stopwatch.StartNew();
        var answer = await request();
        Assert.InRange(clock.ElapsedMilliseconds, 0, AtOnceMs);
        return answer;
    }

    /// <summary>The best of ten: what the agent takes, not what a loaded machine adds.</summary>
    public static async Task<long> FastestMsAsync(Func<Task<Answer>> request)
    {
        var fastest = long.MaxValue;
        for (var i = 0; i < 10; i++)
        {
            var clock = Stopwatch.StartNew();
            Assert.Equal(200, (await request()).Status);
            fastest = Math.Min(fastest, clock.ElapsedMilliseconds);
        }
        return fastest;
    }
}
