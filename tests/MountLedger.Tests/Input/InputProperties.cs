using System.Collections.Immutable;
using FsCheck;
using FsCheck.Fluent;
using MountLedger.Wire;
using static MountLedger.Tests.Input.Requests;

namespace MountLedger.Tests.Input;

/// <summary>What holds for every text, not only for the examples: FsCheck prints the seed of what fails.</summary>
public sealed class InputProperties
{
    private static readonly DateTimeOffset Now = new(2026, 1, 31, 8, 0, 0, TimeSpan.Zero);

    /// <summary>Any UTF-16 at all, lone surrogates and null included, mixed with pieces that come close to being right.</summary>
    private static readonly Arbitrary<string?> AnyText = Gen.OneOf(
        Gen.Constant<string?>(null),
        Gen.Choose(0, 0xFFFF).Select(code => (char)code).ListOf().Select(characters => (string?)new string([.. characters])),
        Gen.Elements(
                "/srv/ml", "/", "..", ".", "a", "-", ",", "=", ":", "%", "size", "password=", "tmpfs", "ext4", "nfs", "1g", "9", "T", "Z", "m",
                "\0", "\n", "\ud800", "\udc00", "\ufffd", "😀", " ", "\"", "\\")
            .ListOf().Select(pieces => (string?)string.Concat(pieces))).ToArbitrary();

    private static readonly Arbitrary<ImmutableArray<string>> AnyOptions = Gen.Choose(0, 5).SelectMany(count => AnyOption().ListOf(count))
        .Select(options => options.Distinct().ToImmutableArray()).ToArbitrary();

    [Fact]
    public void No_text_makes_a_rule_throw() => Run(2000, Prop.ForAll(AnyText, AnyText, AnyText, (first, second, third) =>
    {
        var errors = new InputErrors();
        InputRules.HostName("f", first, errors);
        InputRules.AbsolutePath("f", first, errors);
        InputRules.EventType("f", first, errors);
        InputRules.Time("f", first, Now, errors);
        InputRules.Time("f", first, DateTimeOffset.MinValue, errors);
        InputRules.Limit("f", first, errors);
        InputRules.IdempotencyKey("f", first, errors);
        InputRules.Version("f", first, errors);
        InputRules.Reason("f", first, errors);
        InputRules.Actor("f", first, errors);
        var type = FilesystemCatalog.Types[(first?.Length ?? 0) % FilesystemCatalog.Types.Count];
        _ = ErrorsOf(new MountRequest(first, second, third, first, [second!, third!], third, first, null, first?.Length - 1.5));
        _ = ErrorsOf(new MountRequest(null, second, third, type, [first!, second + "=" + third], second, third, null, double.NaN));
        Assert.All(errors, error => Assert.True(error.Value is null || (error.Value.Length <= 128 && !error.Value.Any(char.IsControl))));
    }));

    [Fact]
    public void An_uninitialised_list_of_options_is_an_empty_one() =>
        Assert.Empty(ErrorsOf(Mount() with { Options = default(ImmutableArray<string>) }));

    [Fact]
    public void A_valid_path_stays_below_its_root() => Run(5000, Prop.ForAll(AnyText, text =>
    {
        foreach (var path in new[] { text, "/srv/ml/" + text, "/srv/ml" + text })
        {
            var errors = new InputErrors();
            var valid = InputRules.MountpointPath("mountpoint", path, Policy, errors);
            Assert.Equal(valid is null, errors.Count > 0);
            if (valid is null) continue;
            Assert.Equal(path, valid);
            Assert.StartsWith("/srv/ml/", Path.GetFullPath(valid), StringComparison.Ordinal);
            Assert.Equal(valid, Path.GetFullPath(valid));
        }
    }));

    [Fact]
    public void What_is_canonical_stays_as_it_is() => Run(3000, Prop.ForAll(AnyOptions, options =>
    {
        foreach (var policy in new[] { Policy, Policy with { AllowSuid = true, AllowDev = true } })
        {
            foreach (var type in FilesystemCatalog.Types)
            {
                var valid = InputRules.Mount(Options(type, "/dev/sda1", [.. options]), policy, out _);
                if (valid is not null) Assert.Equal(valid.Spec, SpecOf(Options(type, "/dev/sda1", [.. valid.Spec.Options]), policy));
            }
        }
    }));

    [Fact]
    public void The_order_of_options_means_nothing() => Run(3000, Prop.ForAll(AnyOptions, options =>
    {
        foreach (var type in FilesystemCatalog.Types)
        {
            var one = InputRules.Mount(Options(type, "/srv/x.img", [.. options]), Policy, out _);
            var other = InputRules.Mount(Options(type, "/srv/x.img", [.. options.Reverse()]), Policy, out _);
            Assert.Equal(one?.Spec, other?.Spec);
        }
    }));

    [Fact]
    public void Canonical_options_are_unique_ordered_and_known() => Run(1000, Prop.ForAll(AnyOptions, options =>
    {
        foreach (var type in FilesystemCatalog.Types)
        {
            if (InputRules.Mount(Options(type, "/srv/x.img", [.. options]), Policy, out _) is not { } valid) continue;
            Assert.Equal(valid.Spec.Options.Distinct().Order(StringComparer.Ordinal), valid.Spec.Options.AsEnumerable());
            Assert.All(valid.Spec.Options, option => Assert.NotNull(FilesystemCatalog.Find(type)!.RuleOf(option)));
            Assert.Contains("nosuid", valid.Spec.Options);
            Assert.Contains("nodev", valid.Spec.Options);
        }
    }));

    /// <summary>Few options at a time, each of which is right for some filesystem, so that many sets are valid.</summary>
    private static Gen<string> AnyOption() => Gen.Elements(
        "ro", "rw", "noexec", "exec", "noatime", "relatime", "suid", "dev", "nosuid", "nodev", "defaults", "nodiratime", "size=1g",
        "size=1024m", "size=50%", "mode=0755", "mode=755", "uid=5", "loop", "rbind", "bind", "lowerdir=/a:/b", "lowerdir=/b:/a", "upperdir=/u",
        "workdir=/w", "acl", "noacl", "discard", "discard=async", "compress", "compress=zstd:3", "compress=zlib", "norecovery", "noload",
        "usrquota", "uquota", "bsdgroups", "grpid", "subvol=a", "subvol=/a", "dax", "dax=always", "async", "sync", "barrier=0", "logbsize=256K",
        "logbsize=262144");

    private static void Run(int cases, Property property) => Check.One(Config.QuickThrowOnFailure.WithMaxTest(cases), property);
}
