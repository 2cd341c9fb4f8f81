using System.Diagnostics;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// Makes a mount that is attached nowhere with a program's help: the program mounts in a staging directory, a detached copy
/// of that mount is taken, and the staging directory is unmounted and removed. From there on it is as any other prepared mount:
/// only we put it into place, and closing its descriptor ends it.
/// </summary>
internal sealed class HelperMount(HelperOptions options)
{
    /// <summary>A program may end a moment before its daemon has mounted.</summary>
    private static readonly TimeSpan LateMax = TimeSpan.FromSeconds(2);

    private const int LinesShownMax = 8;
    private const int LineLengthMax = 300;

    private readonly Staging staging = new(options.StagingDirectory);
    private readonly SecretStore secrets = new(options.SecretsDirectory);

    /// <summary>What programs print for an error number, where that number is worth more than EIO.</summary>
    private static readonly (string Text, int Number)[] Known =
    [
        ("Connection refused", 111), ("No route to host", 113), ("Network is unreachable", 101), ("Connection timed out", Errno.ETIMEDOUT),
        ("Connection reset", Errno.ECONNRESET), ("Could not resolve", 113), ("Name or service not known", 113),
        ("Host key verification failed", Errno.EACCES), ("ermission denied", Errno.EACCES), ("access denied", Errno.EACCES),
        ("Operation not permitted", Errno.EPERM), ("No such file or directory", Errno.ENOENT), ("No such device", Errno.ENODEV),
        ("unknown option", Errno.EINVAL), ("nvalid argument", Errno.EINVAL),
    ];

    /// <summary>Whether a program is to mount this type: one that is known to need it, or one that the kernel's table lacks and a program has.</summary>
    public bool Mounts(string type) =>
        !MountPlan.IsKernelType(type) && (FilesystemCatalog.Find(type) is { ByHelper: true } || HelperProgram.Find(type, options.Directories) is not null);

    /// <exception cref="KernelFailure">There is no such program, it failed, or it took too long. Nothing of it is left then.</exception>
    public Descriptor Make(MountPlan plan)
    {
        var type = plan.Spec.FsType;
        var program = HelperProgram.Find(type, options.Directories) ?? throw new KernelFailure(
            Errno.ENOENT,
            $"no program mounts {type} here: install it, or add its directory to helperDirs (looked for {string.Join(", ", HelperProgram.NamesOf(type))} in {string.Join(", ", options.Directories)})");
        using var place = staging.Open();
        using var command = HelperCommand.Of(program, plan, place, secrets);
        var done = false;
        try
        {
            var clock = Stopwatch.StartNew();
            KillPoint.Reached("worker-before-helper");
            var end = HelperProcess.Run(command, options.Deadline, place.Note);
            KillPoint.Reached("worker-helper-done");
            if (!end.InTime)
                throw new KernelFailure(
                    Errno.ETIMEDOUT, $"{program} did not end within {options.Deadline.TotalSeconds:0.###} s and was killed{Said(command, end)}");
            if (end.Status != 0)
                throw new KernelFailure(
                    NumberOf(end.Output), end.Status > 0 ? $"{program} ended with status {end.Status}{Said(command, end)}" : $"{program} was ended by signal {-end.Status}{Said(command, end)}");
            var mount = Take(place, plan, options.Deadline - clock.Elapsed)
                ?? throw new KernelFailure(Errno.EIO, $"{program} ended with status 0 and mounted nothing{Said(command, end)}");
            done = true;
            KillPoint.Reached("worker-helper-taken");
            return mount;
        }
        finally
        {
            if (!done) HelperSearch.Kill(place.Path);
        }
    }

    /// <returns>Null when nothing is mounted there, and nothing comes.</returns>
    private static Descriptor? Take(Staging.Place place, MountPlan plan, TimeSpan left)
    {
        var clock = Stopwatch.StartNew();
        var patience = left < LateMax ? left : LateMax;
        Descriptor? mounted;
        while ((mounted = place.Mounted()) is null)
        {
            if (clock.Elapsed > patience) return null;
            Thread.Sleep(2);
        }
        using (mounted)
        {
            var clone = MountCalls.CloneTree(mounted.Number, recursive: false, out var errno);
            KernelFailure.ThrowIf(clone < 0 ? errno : 0, "open_tree of what the helper mounted");
            var mount = new Descriptor(clone);
            try
            {
                DetachedMount.SetAttributes(mount, plan);
                return mount;
            }
            catch
            {
                mount.Dispose();
                throw;
            }
        }
    }

    private static int NumberOf(string output)
    {
        foreach (var (text, number) in Known)
            if (output.Contains(text, StringComparison.Ordinal)) return number;
        return Errno.EIO;
    }

    /// <summary>The last lines that it printed, as part of one line.</summary>
    private static string Said(HelperCommand command, HelperProcess.End end)
    {
        var lines = command.Shown(end.Output, end.Cut).Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries)
            .Select(line => new string([.. line.Take(LineLengthMax).Select(c => char.IsControl(c) ? '?' : c)]))
            .TakeLast(LinesShownMax).ToList();
        return lines.Count == 0 ? ", and said nothing" : $", and said: {string.Join(" | ", lines)}";
    }
}
