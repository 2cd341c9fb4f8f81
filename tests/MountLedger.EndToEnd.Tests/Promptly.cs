using System.Diagnostics;

namespace MountLedger.EndToEnd;

/// <summary>How long an agent takes to answer while something else hangs.</summary>
public static class Promptly
{
    /// <summary>
    /// Longer than an answer takes on a machine that stands still for some seconds, and shorter than the deadline that would be waited out: that is
    /// <see cref="DeadlineSeconds"/> or more.
    /// </summary>
    private const int AtOnceMs = 6000;

    /// <summary>The least deadline that tells an answer that waited for it from one that did not.</summary>
    public const int DeadlineSeconds = 8;

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
