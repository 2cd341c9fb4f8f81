namespace MountLedger.EndToEnd;

/// <summary>A mount helper of the type <c>fuse.slow</c>, which is bindfs as soon as it is let go.</summary>
public sealed class SlowFuse : IDisposable
{
    private readonly string _scratch = Directory.CreateTempSubdirectory("mountledger-slow-").FullName;

    public SlowFuse()
    {
        var program = Path.Combine(_scratch, "mount.fuse.slow");
        File.WriteAllText(program, $"#!/bin/sh\ntouch {_scratch}/began\nwhile [ ! -e {_scratch}/go ]; do sleep 0.05; done\nexec bindfs \"$1\" \"$2\"\n");
        File.SetUnixFileMode(program, (UnixFileMode)Convert.ToInt32("755", 8));
        File.WriteAllText(Config, $$"""{ "helperTypes": { "fuse.slow": ["x"] }, "helperDirs": ["{{_scratch}}", "/usr/bin"] }""");
    }

    /// <summary>The configuration that an agent needs for it.</summary>
    public string Config => Path.Combine(_scratch, "config.json");

    public Task UntilItRunsAsync(AgentProcess agent) =>
        agent.UntilAsync(() => Task.FromResult(File.Exists(Path.Combine(_scratch, "began"))), "the helper runs");

    public void LetGo() => File.WriteAllText(Path.Combine(_scratch, "go"), "");

    public void Dispose() => Directory.Delete(_scratch, recursive: true);
}
