using System.Text;
using Microsoft.Win32.SafeHandles;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>Loop devices for filesystem images; each goes away by itself when its mount does (AUTOCLEAR).</summary>
internal static class LoopDevices
{
    private const int AttemptsMax = 32;
    private const int DevicesMax = 4096;
    private const string BlockDirectory = "/sys/block";

    private static readonly Lock Attaching = new();

    /// <summary>
    /// Ties a free device to an image. Two writable devices over one file would ruin it, so an image that has a device
    /// already is refused unless both are read-only.
    /// </summary>
    /// <returns>The open device, which must stay open until it is mounted, and its path.</returns>
    public static (Descriptor Device, string Path) Attach(Descriptor image, string imagePath, bool readOnly)
    {
        // Looking for another user and becoming one is one step: two requests for one image may come at the same moment.
        lock (Attaching) return AttachAlone(image, imagePath, readOnly);
    }

    private static (Descriptor Device, string Path) AttachAlone(Descriptor image, string imagePath, bool readOnly)
    {
        RefuseSecondWriter(imagePath, readOnly);
        using var control = Open("/dev/loop-control", "is the loop driver there?");
        for (var attempt = 1; ; attempt++)
        {
            var number = LoopCalls.FindFree(control.Number, out var errno);
            if (number < 0) throw new KernelFailure(errno, "no loop device is free");
            var path = $"/dev/loop{number}";
            var device = Open(path, "its node is missing in /dev");
            errno = LoopCalls.Configure(device.Number, image.Number, readOnly, Encoding.UTF8.GetBytes(imagePath));
            if (errno == 0) return (device, path);
            device.Dispose();
            // Free a moment ago, and somebody else's now.
            if (errno != Errno.EBUSY || attempt == AttemptsMax)
                throw new KernelFailure(errno, $"loop device {path} cannot take {imagePath}");
        }
    }

    /// <summary>The file behind a loop device, or null when the path is not that of a loop device in use.</summary>
    public static string? BackingFile(string devicePath) =>
        devicePath.StartsWith("/dev/loop", StringComparison.Ordinal) && !devicePath.AsSpan(5).Contains('/')
            ? ReadAttribute($"{BlockDirectory}/{devicePath.AsSpan(5)}/loop/backing_file", out _)
            : null;

    /// <summary>Loop devices whose file lies at or below a path, as <c>/dev/loop3 (/srv/a/disk.img)</c>; at most eight.</summary>
    public static IReadOnlyList<string> WithFilesBelow(string path)
    {
        try
        {
            return [.. InUse().Where(pair => pair.File.StartsWith(path + "/", StringComparison.Ordinal)).Select(pair => $"{pair.Device} ({pair.File})").Take(8)];
        }
        catch (KernelFailure)
        {
            return [];
        }
    }

    private static void RefuseSecondWriter(string imagePath, bool readOnly)
    {
        const int WaitsMax = 10;
        const int WaitMs = 10;
        for (var wait = 0; ; wait++)
        {
            var other = InUse().FirstOrDefault(pair => pair.File == imagePath && !(readOnly && IsReadOnly(pair.Device)));
            if (other.Device is null) return;
            // A device that is just being cleared after an unmount needs a moment.
            if (wait == WaitsMax)
                throw new KernelFailure(
                    Errno.EBUSY, $"{imagePath} is in use by {other.Device}: two mounts of one image are possible read-only only");
            Thread.Sleep(WaitMs);
        }
    }

    /// <summary>The devices that are tied to a file, with their files.</summary>
    /// <exception cref="KernelFailure">It cannot be told for one of them.</exception>
    private static List<(string Device, string File)> InUse()
    {
        var found = new List<(string, string)>();
        string[] entries;
        try
        {
            entries = Directory.GetFileSystemEntries(BlockDirectory, "loop*");
        }
        catch (DirectoryNotFoundException)
        {
            return found;
        }
        catch (Exception problem) when (problem is IOException or UnauthorizedAccessException)
        {
            throw new KernelFailure(Errno.EIO, $"{BlockDirectory} cannot be read, so it cannot be told which images are in use: {problem.Message}");
        }
        foreach (var entry in entries.Take(DevicesMax))
        {
            var file = ReadAttribute($"{entry}/loop/backing_file", out var errno);
            if (file is not null) found.Add(($"/dev/{Path.GetFileName(entry)}", file));
            else if (errno is not (Errno.ENOENT or Errno.ENODEV or Errno.ENXIO))
                throw new KernelFailure(errno, $"{entry} cannot be read, so it cannot be told which image it has");
        }
        return found;
    }

    private static bool IsReadOnly(string device) => ReadAttribute($"{BlockDirectory}/{Path.GetFileName(device)}/ro", out _) == "1";

    private static string? ReadAttribute(string path, out int errno)
    {
        const int SizeMax = 4096;
        var number = PathCalls.OpenAt(PathCalls.AT_FDCWD, path, PathCalls.O_RDONLY, 0, out errno);
        if (number < 0) return null;
        using var handle = new SafeFileHandle(number, ownsHandle: true);
        try
        {
            Span<byte> bytes = stackalloc byte[SizeMax];
            return Encoding.UTF8.GetString(bytes[..RandomAccess.Read(handle, bytes, 0)]).TrimEnd('\n');
        }
        catch (Exception problem) when (problem is IOException or UnauthorizedAccessException)
        {
            // ENODEV: the device was let go between opening and reading; .NET gives the error number of what it has no exception of its own for.
            errno = problem.HResult == Errno.ENODEV ? Errno.ENODEV : Errno.EIO;
            return null;
        }
    }

    private static Descriptor Open(string path, string hint)
    {
        var descriptor = PathCalls.OpenAt(PathCalls.AT_FDCWD, path, PathCalls.O_RDWR, 0, out var errno);
        return descriptor >= 0 ? new Descriptor(descriptor) : throw new KernelFailure(errno, $"{path} cannot be opened: {hint}");
    }
}
