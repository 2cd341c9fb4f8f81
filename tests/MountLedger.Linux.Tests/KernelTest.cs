using System.Collections.Immutable;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using MountLedger.Tests;

namespace MountLedger.Linux.Tests;

/// <summary>
/// A directory below /tmp for one test, on a tmpfs of its own, so that everything in it goes away with the mount. Root of
/// what may be mounted is <see cref="Root"/>; images and bind sources live in <see cref="Sources"/>.
/// </summary>
public abstract class KernelTest : IDisposable
{
    protected KernelTest()
    {
        RootEnvironment.Require();
        Base = Directory.CreateTempSubdirectory("mountledger-test-").FullName;
        Run("mount", "-t", "tmpfs", "-o", "size=2G", "test", Base);
        Root = Directory.CreateDirectory(Path.Combine(Base, "root")).FullName;
        Sources = Directory.CreateDirectory(Path.Combine(Base, "sources")).FullName;
        Operations = new MountOperations([Root]);
    }

    protected string Base { get; }

    protected string Root { get; }

    protected string Sources { get; }

    internal MountOperations Operations { get; }

    private long token;

    public virtual void Dispose()
    {
        // Everything below, the nested ones first.
        foreach (var mount in MountInfoReader.Read(out _).Select(entry => entry.Mount.Path)
            .Where(path => path == Base || path.StartsWith(Base + "/", StringComparison.Ordinal)).OrderByDescending(path => path.Length))
            Interop.MountCalls.Unmount(mount, Interop.MountCalls.MNT_DETACH);
        Directory.Delete(Base);
        GC.SuppressFinalize(this);
    }

    protected static MountSpec Tmpfs(params string[] options) => new("tmpfs", "tmpfs", [.. options]);

    /// <summary>Same members in the same order, whatever the collections are.</summary>
    protected static void Same(IEnumerable<string> expected, IEnumerable<string> actual) => Assert.Equal(expected.ToArray(), actual.ToArray());

    protected string Point(string name) => Path.Combine(Root, name);

    internal PreparedMount Prepare(string mountpoint, MountSpec spec)
    {
        var result = Operations.Prepare(++token, mountpoint, spec);
        return result is PrepareResult.Ready ready ? ready.Mount : throw new Xunit.Sdk.XunitException(result.ToString());
    }

    internal AttachResult.Attached Mount(string mountpoint, MountSpec spec)
    {
        var result = Operations.Attach(Prepare(mountpoint, spec));
        return result as AttachResult.Attached ?? throw new Xunit.Sdk.XunitException(result.ToString());
    }

    internal KernelError PrepareFails(string mountpoint, MountSpec spec) =>
        Assert.IsType<PrepareResult.Failed>(Operations.Prepare(++token, mountpoint, spec)).Error;

    internal UnmountResult Unmount(string mountpoint, ulong? id, params string[] directories) =>
        Operations.Unmount(new UnmountOrder(mountpoint, id, UnmountMode.Normal, [.. directories]));

    internal ObservedMount? Top(string mountpoint, MountSpec? wanted = null) => Operations.Observe(mountpoint, wanted).Top;

    /// <summary>The same mount as the whole table shows it.</summary>
    protected static ObservedMount? InTable(string mountpoint) =>
        MountInfoReader.Read(out _).Select(entry => entry.Mount).LastOrDefault(mount => mount.Path == mountpoint);

    /// <summary>An image file of this size with a filesystem made by a tool of the system.</summary>
    protected string Image(string name, long size, params string[] command)
    {
        var path = Path.Combine(Sources, name);
        using (var file = File.Create(path)) file.SetLength(size);
        Run(command[0], [.. command[1..], path]);
        return path;
    }

    /// <summary>A port of loopback where nobody listened a moment ago.</summary>
    internal static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }

    internal static string Run(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
        using var process = Process.Start(start)!;
        var error = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0 ? output : throw new Xunit.Sdk.XunitException($"{program}: {error.Result}");
    }
}
