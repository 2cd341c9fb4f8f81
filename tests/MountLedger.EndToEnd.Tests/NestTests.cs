using System.Collections.Concurrent;
using System.Diagnostics;

namespace MountLedger.EndToEnd;

/// <summary>
/// Rule 14 under load: mountpoints in mountpoints, many callers at once. Whoever holds one sees his own mount at its path, and
/// no mount is ever made above one that it would hide.
/// </summary>
public sealed class NestTests(PostgresServer server) : IClassFixture<PostgresServer>
{
    private const int Callers = 24;
    private static readonly TimeSpan Duration = TimeSpan.FromSeconds(6);

    /// <summary>On a loaded machine, until each kind of answer was met.</summary>
    private static readonly TimeSpan DurationMax = TimeSpan.FromSeconds(40);

    private static readonly string[] ToBeMet = ["mounted", "would-hide", "parent in use"];

    [RootFact]
    public async Task Nested_mountpoints_under_load_are_never_hidden_and_end_clean()
    {
        await using var host = await TestHost.StartAsync(server);
        string[] shapes = ["{0}", "{0}/b", "{0}/b/c", "{0}/b/d", "{0}/e"];
        var paths = new[] { "n0", "n1" }.SelectMany(top => shapes.Select(shape => host.PathOf(string.Format(null, shape, top)))).ToArray();
        var violations = new ConcurrentQueue<string>();
        var answers = new ConcurrentDictionary<string, int>();
        var started = Stopwatch.GetTimestamp();

        await Task.WhenAll(Enumerable.Range(0, Callers).Select(caller => Task.Run(() => CallAsync(caller))));

        Assert.True(violations.IsEmpty, string.Join("\n", violations.Take(10)));
        foreach (var path in paths)
            for (var caller = 0; caller < Callers; caller++) await host.UnmountAsync(path, $"c{caller}");
        foreach (var path in paths) await host.UntilAsync(path, state => state.Phase == Phase.Absent, secondsMax: 30);
        // A directory that a sibling still needed when its maker went stays (rule 6); nothing else does.
        Assert.DoesNotContain(MountLedger.Linux.MountInfoReader.Read(out _), entry => MountPath.IsBelow(entry.Mount.Path, host.Root));
        Assert.Empty(Directory.EnumerateFiles(host.Root, "*", SearchOption.AllDirectories));
        Assert.Equal(host.Kernel.Mounts, host.Kernel.Unmounts);
        // The load has met the rule in each of its ways.
        foreach (var answer in ToBeMet)
            Assert.True(answers.ContainsKey(answer), $"never: {answer} (seen: {string.Join(", ", answers)})");

        async Task CallAsync(int caller)
        {
            var random = new Random(caller);
            var consumer = $"c{caller}";
            while (Stopwatch.GetElapsedTime(started) is var elapsed && (elapsed < Duration || (elapsed < DurationMax && !ToBeMet.All(answers.ContainsKey))))
            {
                var path = paths[random.Next(paths.Length)];
                switch (await host.MountAsync(path, consumer))
                {
                    case CommandResult.Done done:
                        Count(done.Outcome == Outcome.Mounted ? "mounted" : "attached");
                        Check(path);
                        if (random.Next(4) == 0) await Task.Delay(random.Next(20));
                        Check(path);
                        Count(await host.UnmountAsync(path, consumer) switch
                        {
                            CommandResult.Done => "detached",
                            CommandResult.Failed { Error.Message: var why } when why.Contains("below it is in use", StringComparison.Ordinal) => "parent in use",
                            var other => Violation($"unmount {path}: {other}"),
                        });
                        break;
                    case CommandResult.Rejected { Rejection.Name: "would-hide" }:
                        Count("would-hide");
                        break;
                    // It was asked for while the mount here was on its way out (rule 8), and a child came first.
                    case CommandResult.Failed { Error: { Errno: "EBUSY", Message: var why } } when why.Contains("would hide the managed mountpoint", StringComparison.Ordinal):
                        Count("would-hide");
                        break;
                    case var other:
                        Violation($"mount {path}: {other}");
                        break;
                }
            }
        }

        // While it is held nothing above it may come or go: so its parent in the kernel is the nearest mount above.
        void Check(string path)
        {
            var mounts = MountLedger.Linux.MountInfoReader.Read(out _).Select(entry => entry.Mount).ToList();
            var here = mounts.Where(mount => mount.Path == path).ToList();
            if (here.Count != 1)
            {
                Violation($"{path} is held and mounted {here.Count} times");
                return;
            }
            var above = mounts.Where(mount => MountPath.IsBelow(path, mount.Path)).MaxBy(mount => mount.Path.Length)!;
            if (here[0].OldParentId != above.OldId) Violation($"{path} is hidden by {above.Path}");
        }

        void Count(string answer) => answers.AddOrUpdate(answer, 1, (_, count) => count + 1);

        string Violation(string text)
        {
            violations.Enqueue(text);
            return "violation";
        }
    }
}
