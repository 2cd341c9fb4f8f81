using System.Collections.Immutable;
using MountLedger.Tests;

namespace MountLedger.Linux.Tests;

/// <summary>
/// Every option of every kernel filesystem, mounted for real: the kernel either refuses it by a message, or the mount that it made
/// compares as the one that was asked for. So no option of the tables can show up as drift of itself.
/// </summary>
public sealed class OptionMeaningTests : KernelTest
{
    /// <summary>What an option needs to be accepted at all, and values where the first that comes to mind is none.</summary>
    private static readonly Dictionary<(string Type, string Option), string[]> Samples = new()
    {
        [("tmpfs", "nr_blocks")] = ["nr_blocks=4k"],
        [("tmpfs", "mpol")] = ["mpol=default", "mpol=local", "mpol=interleave:0"],
        [("tmpfs", "mode")] = ["mode=0750", "mode=1777", "mode=0"],
        [("ext4", "journal_async_commit")] = ["journal_async_commit"],
        [("btrfs", "subvol")] = ["subvol=/"],
        [("btrfs", "subvolid")] = ["subvolid=5"],
        [("xfs", "sunit")] = ["sunit=16,swidth=16"],
        [("xfs", "swidth")] = ["sunit=8,swidth=32"],
        [("xfs", "logbsize")] = ["logbsize=32k", "logbsize=65536"],
        [("xfs", "norecovery")] = ["norecovery,ro"],
        [("xfs", "swalloc")] = ["swalloc,sunit=8,swidth=32"],
        [("ext4", "sb")] = ["sb=1", "sb=8193"],
        [("squashfs", "threads")] = ["threads=single", "threads=2"],
    };

    public static TheoryData<string> Types => [.. FilesystemCatalog.All.Where(filesystem => filesystem is { ByHelper: false, Type: not "bind" }).Select(filesystem => filesystem.Type).Order(StringComparer.Ordinal)];

    [RootTheory]
    [MemberData(nameof(Types))]
    public void Every_option_that_the_kernel_takes_is_recognised_in_the_mount(string type)
    {
        var filesystem = FilesystemCatalog.Find(type)!;
        var plain = Plain(type);
        var held = 0;
        var problems = new List<string>();
        foreach (var rule in filesystem.Options.Values.OrderBy(rule => rule.Name, StringComparer.Ordinal))
        {
            foreach (var sample in SamplesOf(filesystem, rule))
            {
                if (Mounted(type, sample) is not { } mount) continue;
                held++;
                if (!mount.Shown.Matches)
                    problems.Add($"{sample}: wanted {string.Join(',', mount.Wanted.Options)}; shown {string.Join(',', mount.Shown.MountOptions)} - {string.Join(',', mount.Shown.SuperOptions)}");
                // What is shown makes a difference: a mount without it is another one. Overlays differ in their directories already.
                if (type == "overlay" || ChosenByTheKernel.Contains(sample) || plain.Mount.SuperOptions.ToHashSet().SetEquals(mount.Shown.SuperOptions)) continue;
                if (!MountComparison.Differences(mount.Wanted, plain).Contains("options")) problems.Add($"{sample} is seen where it is not");
            }
        }
        Assert.True(problems.Count == 0, string.Join("\n", problems));
        Assert.True(held >= 15, $"the kernel took {held} options of {type} only");
    }

    /// <summary>
    /// Wishes, of which the kernel shows what it made of them; defaults that it shows when they are asked for; and what it shows only where
    /// it differs from the default that is written on the disk or follows from the processors, so that its absence proves nothing.
    /// </summary>
    private static readonly HashSet<string> ChosenByTheKernel = new(StringComparer.Ordinal)
    {
        "size=10%", "max_inline=64k", "max_inline=1m", "dax", "dax=always", "dax=inode", "dax=never", "data=ordered", "inode64",
        "errors=remount-ro", "data=journal", "data=writeback", "sb=8193", "thread_pool=5",
    };

    /// <summary>What the filesystem shows without any option; gone already, because two copies of one image disturb each other.</summary>
    private MountTable.Found Plain(string type)
    {
        var source = SourceOf(type, out var needed, "plain.img");
        var attached = Mount(Point("plain"), SpecRules.Spec(source, type, needed, Policy, new InputErrors())!);
        var found = Assert.Single(MountTable.ByPath(Point("plain")));
        Assert.IsType<UnmountResult.Unmounted>(Unmount(Point("plain"), attached.MountId));
        return found;
    }

    private InputPolicy Policy => new("h", [Root]) { AllowDev = true, AllowSuid = true, AllowedOptions = [.. FilesystemCatalog.OffByDefault] };

    /// <summary>The spec and the mount that it made, which is gone already; null when the kernel refused it with a message.</summary>
    private (MountSpec Wanted, ObservedMount Shown)? Mounted(string type, string sample)
    {
        var errors = new InputErrors();
        var source = SourceOf(type, out var needed, "copy.img");
        var wanted = SpecRules.Spec(source, type, [.. needed, .. sample.Split(',')], Policy, errors);
        Assert.True(wanted is not null, $"{sample}: refused at the edge: {string.Join("; ", errors)}");
        var result = Operations.Prepare(++tokens, Point("p"), wanted);
        if (result is PrepareResult.Failed failed)
        {
            Assert.Contains("EINVAL (", failed.Error.Message, StringComparison.Ordinal);
            return null;
        }
        var attached = Assert.IsType<AttachResult.Attached>(Operations.Attach(((PrepareResult.Ready)result).Mount));
        var shown = Top(Point("p"), wanted)!;
        Assert.IsType<UnmountResult.Unmounted>(Unmount(Point("p"), attached.MountId));
        return (wanted, shown);
    }

    private long tokens = 1_000_000;
    private int image;

    private static IEnumerable<string> SamplesOf(Filesystem filesystem, OptionRule rule)
    {
        if (filesystem.ReadOnly && rule.Name == "rw") return [];
        if (rule.Name is "lowerdir" or "upperdir" or "workdir") return [];
        if (Samples.TryGetValue((filesystem.Type, rule.Name), out var given)) return given;
        var values = rule.Syntax switch
        {
            ValueSyntax.Size => ["64k", "1m"],
            ValueSyntax.SizeOrPercent => ["1M", "10%", "1234567"],
            ValueSyntax.OctalMode => ["0755"],
            ValueSyntax.Number or ValueSyntax.LongNumber => ["0", "5"],
            ValueSyntax.Word => rule.Words.Except(rule.RefusedWords),
            ValueSyntax.Words => rule.Words,
            ValueSyntax.Compression => rule.Words.SelectMany(word => word is "zlib" or "zstd" ? new[] { word, word + ":5" } : [word]),
            _ => (IEnumerable<string>)[],
        };
        var with = values.Select(value => $"{rule.Name}={value}");
        return rule.Need == ValueNeed.Always ? with : [rule.Name, .. rule.Need == ValueNeed.Never ? [] : with];
    }

    private string SourceOf(string type, out ImmutableArray<string> needed, string name)
    {
        needed = [];
        string Layer(string name) => Directory.CreateDirectory(Path.Combine(Sources, name)).FullName;
        switch (type)
        {
            case "tmpfs" or "ramfs": return type;
            case "overlay":
                var n = ++image;
                needed = [$"lowerdir={Layer("l1")}:{Layer("l2")}", $"upperdir={Layer($"u{n}")}", $"workdir={Layer($"w{n}")}"];
                return "overlay";
        }
        var template = Path.Combine(Sources, type + ".img");
        if (!File.Exists(template))
        {
            switch (type)
            {
                case "squashfs": Run("mksquashfs", Layer("s"), template, "-quiet"); break;
                case "erofs": Run("mkfs.erofs", "--quiet", template, Layer("s")); break;
                case "xfs": Image("xfs.img", 320 << 20, "mkfs.xfs", "-q"); break;
                case "btrfs": Image("btrfs.img", 128 << 20, "mkfs.btrfs", "-q"); break;
                default: Image(type + ".img", 16 << 20, "mkfs." + type, "-q"); break;
            }
        }
        var copy = Path.Combine(Sources, name);
        File.Delete(copy);
        Run("cp", "--sparse=always", template, copy);
        return copy;
    }
}
