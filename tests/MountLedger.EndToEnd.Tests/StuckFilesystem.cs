using System.Diagnostics;
using System.Globalization;

namespace MountLedger.EndToEnd;

/// <summary>
/// The server of tests/Shared/Programs/stuckfs.c as a mount helper (<c>fuse.stuck</c>) that an agent finds by its configuration, with a loop device for the kind
/// that needs one. Disposal ends every server that is left, and frees the device.
/// </summary>
public sealed class StuckFilesystem : IDisposable
{
    private readonly DirectoryInfo directory = Directory.CreateTempSubdirectory("mountledger-stuck-");

    /// <param name="destroy">It is to stop when the last mount goes, which takes a block device as its source.</param>
    public StuckFilesystem(bool destroy = false)
    {
        Program("mount.fuse.stuck", null);
        Config = Path.Combine(directory.FullName, "config.json");
        File.WriteAllText(Config, $$"""{ "helperTypes": { "fuse.stuck": ["at"] }, "helperDirs": ["{{directory.FullName}}", "/usr/bin"] }""");
        if (!destroy) return;
        var image = Path.Combine(directory.FullName, "image");
        using (var file = File.Create(image)) file.SetLength(1 << 20);
        Device = Shell.Run("losetup", "--find", "--show", image).Trim();
    }

    /// <summary>A configuration file that names the type and the directory of the program.</summary>
    public string Config { get; }

    /// <summary>A block device; empty: none was asked for.</summary>
    public string Device { get; } = "";

    /// <summary>Where the programs are.</summary>
    public string Programs => directory.FullName;

    /// <summary>A source by which the servers of this one are known among the processes.</summary>
    public string Source(string at) => $"{directory.Name}-{at}";

    /// <summary>A program that helpers are looked for among, before those of the system: a script, or the server.</summary>
    public void Program(string name, string? script)
    {
        var path = Path.Combine(directory.FullName, name);
        if (script is not null) File.WriteAllText(path, script);
        else File.Copy(RootProgram.Path("stuckfs"), path);
        File.SetUnixFileMode(path, (UnixFileMode)Convert.ToInt32("755", 8));
    }

    /// <summary>SIGKILL to every server of this source.</summary>
    public static void Kill(string source)
    {
        foreach (var pid in ProcessesGiven(source)) RootSignal.Send(pid, "KILL");
    }

    /// <summary>The processes that have this word among their arguments.</summary>
    public static int[] ProcessesGiven(string argument) =>
    [
        .. from process in Directory.GetDirectories("/proc")
           where char.IsAsciiDigit(Path.GetFileName(process)[0])
           where Read(Path.Combine(process, "cmdline")).Split('\0').Contains(argument)
           select int.Parse(Path.GetFileName(process), CultureInfo.InvariantCulture),
    ];

    /// <summary>proc(5): T stopped, t stopped by who traces it, D waiting in the kernel, …; ? when it is gone.</summary>
    public static char StateOf(int pid)
    {
        var text = Read($"/proc/{pid}/stat");
        return text.Length == 0 ? '?' : text[text.LastIndexOf(')') + 2];
    }

    public void Dispose()
    {
        if (Device.Length > 0)
        {
            Kill(Device);
            Shell.Run("losetup", "--detach", Device);
        }
        directory.Delete(recursive: true);
    }

    private static string Read(string file)
    {
        try
        {
            return File.ReadAllText(file);
        }
        catch (IOException)
        {
            return "";
        }
    }
}
