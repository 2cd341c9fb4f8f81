using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using MountLedger.Linux.Interop;
using MountLedger.Tests;

namespace MountLedger.Linux.Tests;

/// <summary>
/// Somebody who owns a directory above a mountpoint attacks for real: a process of another user exchanges a component with
/// a symbolic link (or with another directory) as fast as the machine lets it, while mounts and unmounts go through that component. The naive
/// way is attacked in the same way, so that it is known that the attack bites.
/// </summary>
public sealed partial class PathAttackTests : KernelTest
{
    private const int Attacker = 65534;
    private const int Tries = 1000;
    private const int TriesMax = 20 * Tries;

    private readonly string victim;
    private readonly string attackers;

    /// <summary>What is mounted: below a directory that the attacker owns.</summary>
    private readonly string point;

    public PathAttackTests()
    {
        victim = Directory.CreateDirectory(Path.Combine(Base, "victim", "leaf")).FullName;
        attackers = Directory.CreateDirectory(Point("theirs")).FullName;
        point = Directory.CreateDirectory(Path.Combine(attackers, "dir", "leaf")).FullName;
        Directory.CreateDirectory(Path.Combine(attackers, "other", "leaf"));
        Directory.CreateSymbolicLink(Path.Combine(attackers, "link"), Path.Combine(Base, "victim"));
        Run("chown", "-hR", $"{Attacker}:{Attacker}", attackers);
        // The temporary directory is the tests' own; the other user must be able to walk through.
        File.SetUnixFileMode(Base, (UnixFileMode)Convert.ToInt32("755", 8));
    }

    [RootFact]
    public void No_mount_out_of_a_thousand_lands_outside_the_root_while_a_component_is_swapped_for_a_link()
    {
        var (outside, landed, left, naive) = (0, 0, 0, 0);
        using (SwapOf("dir", "link"))
        {
            // One in a hundred succeeds, more or less: as many tries more as one success takes.
            for (var i = 0; i < TriesMax && (i < Tries || landed == 0); i++)
            {
                if (Operations.Prepare(10_000 + i, point, Tmpfs()) is not PrepareResult.Ready ready) continue;
                var attached = Operations.Attach(ready.Mount) is AttachResult.Attached;
                if (attached) landed++;
                if (IsMounted(ready.Mount.MountId!.Value, out var where))
                {
                    if (!attached) left++;
                    if (!where.StartsWith(Root + "/", StringComparison.Ordinal)) outside++;
                    TakeDown(where);
                }
            }
            for (var i = 0; i < TriesMax && (i < Tries || naive == 0); i++) naive += NaiveMount();
        }
        Assert.Equal((0, 0), (outside, left));
        Assert.True(landed > 0, "no mount succeeded at all: nothing has been tried");
        Assert.True(naive > 0, "the naive way was never led astray: the attack does not bite");
    }

    [RootFact]
    public void No_unmount_out_of_a_thousand_takes_another_mount_while_a_component_is_swapped_for_a_link()
    {
        var leaf = PathCalls.OpenAt(PathCalls.AT_FDCWD, point, PathCalls.O_PATH, 0, out _);
        using var real = new Descriptor(leaf);
        var (taken, lied, done, naive) = (0, 0, 0, 0);
        var precious = MountVictim();
        using (SwapOf("dir", "link"))
        {
            for (var i = 0; i < TriesMax && (i < Tries || done == 0); i++)
            {
                var ours = AttachTo(real);
                var result = Unmount(point, ours);
                if (!IsMounted(precious, out _))
                {
                    taken++;
                    precious = MountVictim();
                }
                var gone = !IsMounted(ours, out var where);
                if (gone != result is UnmountResult.Unmounted) lied++;
                if (gone) done++;
                else TakeDown(where);
            }
            for (var i = 0; i < TriesMax && (i < Tries || naive == 0); i++)
            {
                var ours = AttachTo(real);
                MountCalls.Unmount(point, MountCalls.UMOUNT_NOFOLLOW);
                if (!IsMounted(precious, out _))
                {
                    naive++;
                    precious = MountVictim();
                }
                if (IsMounted(ours, out var where)) TakeDown(where);
            }
        }
        Assert.Equal((0, 0), (taken, lied));
        Assert.True(done > 0, "no unmount succeeded at all: nothing has been tried");
        Assert.True(naive > 0, "the naive way was never led astray: the attack does not bite");
    }

    [RootFact]
    public void A_swap_of_two_real_directories_is_found_by_reading_back_and_rolled_back()
    {
        var (rolledBack, landed, left) = (0, 0, 0);
        using (SwapOf("dir", "other"))
        {
            for (var i = 0; i < TriesMax && (i < Tries || rolledBack == 0); i++)
            {
                if (Operations.Prepare(10_000 + i, point, Tmpfs()) is not PrepareResult.Ready ready) continue;
                var result = Operations.Attach(ready.Mount);
                if (result is AttachResult.Failed { Error: { Errno: "ESTALE" } error })
                {
                    rolledBack++;
                    Assert.Contains("it was taken away again", error.Message, StringComparison.Ordinal);
                }
                if (!IsMounted(ready.Mount.MountId!.Value, out var where)) continue;
                landed++;
                if (result is not AttachResult.Attached) left++;
                TakeDown(where);
            }
        }
        Assert.Equal(0, left);
        Assert.True(landed > 0 && rolledBack > 0, $"{landed} landed, {rolledBack} were rolled back: nothing has been tried");
    }

    [RootFact]
    public void Directories_get_the_configured_mode_and_owner_whatever_the_umask_is()
    {
        var operations = new MountOperations([Root], new DirectoryAttributes(Convert.ToUInt32("1750", 8), (1234, 4321)));
        PathCalls.ClearUmask();
        var ready = Assert.IsType<PrepareResult.Ready>(operations.Prepare(1, Point("a/b"), Tmpfs()));
        var attached = Assert.IsType<AttachResult.Attached>(operations.Attach(ready.Mount));
        Assert.IsType<UnmountResult.Unmounted>(operations.Unmount(new UnmountOrder(Point("a/b"), attached.MountId, UnmountMode.Normal, [])));

        foreach (var directory in attached.DirectoriesCreated)
            Assert.Equal("1750 1234 4321", Run("stat", "-c", "%a %u %g", directory).Trim());
        Assert.Equal(2, attached.DirectoriesCreated.Length);
    }

    [RootFact]
    public void Only_a_directory_that_was_just_made_is_given_away()
    {
        var operations = new MountOperations([Root], DirectoryAttributes.Default with { Owner = (1234, 4321) });
        var ready = Assert.IsType<PrepareResult.Ready>(operations.Prepare(1, Point("a/b"), Tmpfs()));
        // Somebody makes the outer one in between: it stays theirs.
        Directory.CreateDirectory(Point("a"));
        Assert.IsType<AttachResult.Attached>(operations.Attach(ready.Mount));
        Assert.Equal("0 0", Run("stat", "-c", "%u %g", Point("a")).Trim());
    }

    /// <summary>Starts the attack on two names in the attacker's directory; ends it when disposed.</summary>
    private Attack SwapOf(string one, string other)
    {
        var start = new ProcessStartInfo(
            RootProgram.Path("swap"),
            [Attacker.ToString(CultureInfo.InvariantCulture), Path.Combine(attackers, one), Path.Combine(attackers, other)])
        { RedirectStandardOutput = true, RedirectStandardError = true };
        var process = Process.Start(start)!;
        if (process.StandardOutput.ReadLine() != "swapping") Assert.Fail(process.StandardError.ReadToEnd());
        return new Attack(process);
    }

    private sealed class Attack(Process process) : IDisposable
    {
        public void Dispose()
        {
            Assert.False(process.HasExited, "the attacker has ended by itself");
            process.Kill();
            process.WaitForExit();
            process.Dispose();
        }
    }

    /// <summary>What <c>mkdir -p</c> and mount(8) do: 1 when that mounted over the victim.</summary>
    private int NaiveMount()
    {
        try
        {
            Directory.CreateDirectory(point);
        }
        catch (IOException)
        {
            return 0;
        }
        if (MountByPath("naive", point, "tmpfs", 0, null) != 0) return 0;
        var astray = false;
        foreach (var mount in MountInfoReader.Read(out _).Select(entry => entry.Mount).Where(mount => mount.Source == "naive"))
        {
            if (!mount.Path.StartsWith(Root + "/", StringComparison.Ordinal)) astray = true;
            TakeDown(mount.MountId is { } id && IsMounted(id, out var where) ? where : mount.Path);
        }
        return astray ? 1 : 0;
    }

    private ulong MountVictim()
    {
        Assert.Equal(0, MountByPath("precious", victim, "tmpfs", 0, null));
        return InTable(victim)!.MountId!.Value;
    }

    /// <summary>A mount of ours, put onto the real directory through its descriptor, where no name is looked up.</summary>
    private static ulong AttachTo(Descriptor leaf)
    {
        using var mount = DetachedMount.Make(MountPlan.Of(Tmpfs()));
        Assert.Equal(0, MountQueryCalls.Describe(mount.Number, out var facts));
        Assert.Equal(0, MountCalls.Attach(mount.Number, leaf.Number));
        return facts.MountId!.Value;
    }

    private static bool IsMounted(ulong id, out string where)
    {
        where = MountTable.ById(id)?.Point ?? "";
        return where.Length > 0;
    }

    /// <summary>Takes down whatever is at either of the names that a mount may have by now.</summary>
    private void TakeDown(string where)
    {
        if (!where.StartsWith(attackers, StringComparison.Ordinal))
        {
            Assert.Equal(0, MountCalls.Unmount(where, MountCalls.MNT_DETACH));
            return;
        }
        for (var n = 0; MountInfoReader.Read(out _).Select(entry => entry.Mount).FirstOrDefault(
            mount => mount.Path.StartsWith(attackers, StringComparison.Ordinal)) is { } ours; n++)
        {
            Assert.True(n < 100_000, $"{ours.Path} cannot be taken down");
            // A name that is a link just now leads to no mount, or to the victim's, which NOFOLLOW does not protect; the real one does not.
            using var parent = PathWalk.OpenChild(Theirs, Path.GetFileName(Path.GetDirectoryName(ours.Path)!), out _);
            if (parent is not null) MountCalls.Unmount($"/proc/self/fd/{parent.Number}/leaf", MountCalls.MNT_DETACH | MountCalls.UMOUNT_NOFOLLOW);
        }
    }

    private Descriptor Theirs => theirs ??= new Descriptor(PathCalls.OpenAt(PathCalls.AT_FDCWD, attackers, PathCalls.O_PATH, 0, out _));

    private Descriptor? theirs;

    public override void Dispose()
    {
        theirs?.Dispose();
        base.Dispose();
    }

    [LibraryImport("libc", EntryPoint = "mount", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int MountByPath(string source, string target, string fsType, nuint flags, string? data);
}
