using static MountLedger.Tests.Input.Requests;

namespace MountLedger.Tests.Input;

/// <summary>Specs that mean the same are equal, and nothing that matters is lost on the way.</summary>
public sealed class CanonicalSpecTests
{
    [Theory]
    [InlineData("", "nodev,nosuid")]
    [InlineData("defaults", "nodev,nosuid")]
    [InlineData("rw,exec,relatime,diratime,symfollow", "nodev,nosuid")]
    [InlineData("nosuid,nodev,nosuid", "nodev,nosuid")]
    [InlineData("ro,noexec,noatime,nodiratime,nosymfollow", "noatime,nodev,nodiratime,noexec,nosuid,nosymfollow,ro")]
    [InlineData("size=1024m", "nodev,nosuid,size=1g")]
    [InlineData("size=1G", "nodev,nosuid,size=1g")]
    [InlineData("size=1073741824", "nodev,nosuid,size=1g")]
    [InlineData("size=1500", "nodev,nosuid,size=1500")]
    [InlineData("size=0", "nodev,nosuid,size=0")]
    [InlineData("size=0k", "nodev,nosuid,size=0")]
    [InlineData("size=50%", "nodev,nosuid,size=50%")]
    [InlineData("mode=0755,mode=755", "mode=755,nodev,nosuid")]
    [InlineData("mode=0000", "mode=0,nodev,nosuid")]
    [InlineData("uid=1000,gid=0", "gid=0,nodev,nosuid,uid=1000")]
    [InlineData("mpol=prefer=static:0-3", "mpol=prefer=static:0-3,nodev,nosuid")]
    public void Options_of_a_tmpfs(string options, string canonical) => AssertCanonical("tmpfs", "tmpfs", options, canonical);

    [Theory]
    [InlineData("ext4", "/dev/sda1", "loop", "loop,nodev,nosuid")]
    [InlineData("ext4", "/srv/x.img", "loop,async,nolazytime", "nodev,nosuid")]
    [InlineData("ext4", "/srv/x.img", "noload,norecovery", "nodev,norecovery,nosuid")]
    [InlineData("ext4", "/srv/x.img", "errors=remount-ro,barrier=1", "barrier=1,errors=remount-ro,nodev,nosuid")]
    [InlineData("ext3", "/srv/x.img", "bsdgroups,grpid,data=ordered", "data=ordered,grpid,nodev,nosuid")]
    [InlineData("ext2", "/srv/x.img", "noacl", "noacl,nodev,nosuid")]
    [InlineData("xfs", "/srv/x.img", "nouuid,logbsize=256k,uquota", "logbsize=256k,nodev,nosuid,nouuid,usrquota")]
    [InlineData("btrfs", "/srv/x.img", "subvol=a/b,compress=zstd:3", "compress=zstd:3,nodev,nosuid,subvol=/a/b")]
    [InlineData("btrfs", "/srv/x.img", "compress,rescue=all:nologreplay", "compress,nodev,nosuid,rescue=all:nologreplay")]
    [InlineData("squashfs", "/srv/x.img", "loop", "nodev,nosuid,ro")]
    [InlineData("squashfs", "/srv/x.img", "ro,errors=continue", "errors=continue,nodev,nosuid,ro")]
    [InlineData("erofs", "/srv/x.img", "dax=always", "dax=always,nodev,nosuid,ro")]
    [InlineData("bind", "/srv/data", "bind,ro", "nodev,nosuid,ro")]
    [InlineData("bind", "/", "rbind", "nodev,nosuid,rbind")]
    [InlineData("overlay", "o", "lowerdir=/b:/a", "lowerdir=/b:/a,nodev,nosuid")]
    [InlineData("overlay", "o", "workdir=/w,upperdir=/u,lowerdir=/l=1", "lowerdir=/l=1,nodev,nosuid,upperdir=/u,workdir=/w")]
    [InlineData("ramfs", "none", "mode=1777", "mode=1777,nodev,nosuid")]
    public void Options_of_the_other_filesystems(string fstype, string source, string options, string canonical) =>
        AssertCanonical(fstype, source, options, canonical);

    [Fact]
    public void Layers_of_an_overlay_keep_their_order() =>
        Assert.NotEqual(SpecOf(Options("overlay", "o", "lowerdir=/a:/b")), SpecOf(Options("overlay", "o", "lowerdir=/b:/a")));

    [Fact]
    public void Suid_and_dev_are_kept_when_policy_allows_them_and_the_caller_asks()
    {
        var policy = Policy with { AllowSuid = true, AllowDev = true };

        Assert.Equal(new("t", "tmpfs", ["dev", "suid"]), SpecOf(Options("tmpfs", "t", "suid", "dev"), policy));
        Assert.Equal(new("t", "tmpfs", ["nodev", "nosuid"]), SpecOf(Options("tmpfs", "t"), policy));
        Assert.Equal(new("t", "tmpfs", ["nodev", "nosuid"]), SpecOf(Options("tmpfs", "t", "nosuid", "nodev"), policy));
    }

    [Fact]
    public void Options_that_are_off_by_default_are_taken_when_the_configuration_names_them()
    {
        foreach (var option in FilesystemCatalog.OffByDefault)
        {
            var type = FilesystemCatalog.All.First(filesystem => filesystem.RuleOf(option) is { } rule && (rule.ByPolicy is not null || !rule.RefusedWords.IsEmpty));
            var source = type.Source == SourceKind.DeviceOrImage ? "/dev/sda1" : "o";
            string[] options = type.Type == "overlay" ? ["lowerdir=/l", "upperdir=/u", "workdir=/w", option] : [option];
            Assert.Contains(option, SpecOf(Options(type.Type, source, options), Policy with { AllowedOptions = [option] }).Options);
        }
    }

    [Theory]
    [InlineData("siez=1g", "did you mean size?")]
    [InlineData("noexce", "did you mean noexec?")]
    [InlineData("nodevs", "did you mean nodev?")]
    [InlineData("frobnicate", "give an option of tmpfs")]
    public void An_unknown_option_is_refused_with_the_name_that_was_probably_meant(string option, string remedy)
    {
        var errors = new InputErrors();
        Assert.Null(SpecRules.Spec("t", "tmpfs", [option], Policy, errors));
        Assert.StartsWith(remedy, Assert.Single(errors).Remedy, StringComparison.Ordinal);
    }

    [Fact]
    public void A_long_lowerdir_is_accepted()
    {
        var layers = "lowerdir=" + string.Join(':', Enumerable.Range(100, 400).Select(i => $"/l/{i}/fs"));

        Assert.Equal(new("o", "overlay", [layers, "nodev", "nosuid"]), SpecOf(Options("overlay", "o", layers)));
    }

    [Fact]
    public void Every_option_of_the_catalogue_is_consistent() => Assert.All(FilesystemCatalog.All, filesystem =>
    {
        Assert.All(filesystem.RequiredOptions, required => Assert.Contains(required, filesystem.Options.Keys));
        Assert.All(filesystem.Options, pair =>
        {
            var rule = pair.Value;
            Assert.Equal(pair.Key, rule.Name);
            Assert.Equal(rule.Need == ValueNeed.Never, rule.Syntax == ValueSyntax.None);
            Assert.True(
                rule.Words.IsEmpty != rule.Syntax is ValueSyntax.Word or ValueSyntax.Words or ValueSyntax.Compression,
                $"{filesystem.Type} {rule.Name}: words go with a syntax of words");
            Assert.False(rule.IsDefault && rule.Need != ValueNeed.Never, "only a flag can be left out as a default");
            Assert.True(rule.AliasOf is null || filesystem.Options[rule.AliasOf].Group == rule.Group, "an alias is of its own group");
        });
    });

    private static void AssertCanonical(string fstype, string source, string options, string canonical)
    {
        var given = options.Split(',', StringSplitOptions.RemoveEmptyEntries);

        var spec = SpecOf(Options(fstype, source, given));
        var reversed = SpecOf(Options(fstype, source, [.. given.Reverse()]));

        Assert.Equal(canonical, string.Join(',', spec.Options));
        Assert.Equal(spec, reversed);
        Assert.Equal(spec, SpecOf(Options(fstype, source, [.. spec.Options])));
    }
}
