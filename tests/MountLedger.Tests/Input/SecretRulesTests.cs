using static MountLedger.Tests.Input.Requests;

namespace MountLedger.Tests.Input;

/// <summary>Secrets are named, never given: what is accepted, what is refused, and that what is refused is not repeated.</summary>
public sealed class SecretRulesTests
{
    private const string Value = "hunter2";

    private static void IsRefused(string fstype, string source, string? option, string field)
    {
        var errors = ErrorsOf(Options(fstype, source, option is null ? [] : [option]));
        var error = Assert.Single(errors, error => error.Field == field);
        Assert.Equal(InputRule.NoClearSecret, error.Rule);
        Assert.Contains("=secret:NAME", error.Remedy, StringComparison.Ordinal);
        Assert.DoesNotContain(errors, other => other.ToString().Contains(Value, StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("cifs", "//server/share", "password=secret:nas", "password=secret:nas")]
    [InlineData("cifs", "//server/share", "pass=secret:nas", "password=secret:nas")]
    [InlineData("smb3", "//server/share", "password=secret:nas.2026_a-b", "password=secret:nas.2026_a-b")]
    [InlineData("fuse.sshfs", "bob@server:/srv", "password=secret:bob", "password=secret:bob")]
    [InlineData("fuse.s3fs", "bucket", "passwd_file=secret:s3", "passwd_file=secret:s3")]
    [InlineData("ceph", "mon:/", "secretfile=secret:ceph", "secret=secret:ceph")]
    public void A_secret_is_recorded_by_its_name(string fstype, string source, string option, string canonical) =>
        Assert.Equal([canonical, "nodev", "nosuid"], SpecOf(Options(fstype, source, option)).Options.Order(StringComparer.Ordinal).OrderBy(o => o.StartsWith('n')));

    [Theory]
    [InlineData("password=hunter2")]
    [InlineData("pass=hunter2")]
    [InlineData("PassWord2=hunter2")]
    [InlineData("pw=hunter2")]
    [InlineData("pin=hunter2")]
    [InlineData("apikey=hunter2")]
    [InlineData("oauth_token=hunter2")]
    [InlineData("password=secret:hunter2!")]
    [InlineData("password=secret:../hunter2")]
    [InlineData("password=secret:/etc/hunter2")]
    [InlineData("password=secret:.hunter2")]
    [InlineData("password=secret:-hunter2")]
    [InlineData("password=Secret:hunter2")]
    [InlineData("username=secret:hunter2 ")]
    [InlineData("username=https://u:hunter2@h/")]
    [InlineData("domain=https://h/?sig=1&access_token=hunter2")]
    public void A_secret_in_clear_or_by_a_name_that_is_none_is_refused_unrepeated(string option) => IsRefused("cifs", "//server/share", option, "options[0]");

    [Theory]
    [InlineData("cifs", "//bob:hunter2@server/share")]
    [InlineData("fuse.sshfs", "bob:hunter2@server:/srv")]
    [InlineData("fuse.sshfs", "bob:x:hunter2@server:/srv")]
    [InlineData("tmpfs", "https://bob:hunter2@server/")]
    [InlineData("tmpfs", "https://server/?password=hunter2")]
    [InlineData("davfs", "https://bob:a@hunter2@server/")]
    [InlineData("fuse.s3fs", "s3://AKIA:hunter2@bucket")]
    public void Credentials_within_a_source_are_refused_unrepeated(string fstype, string source)
    {
        var policy = Policy with { HelperTypes = [HelperFilesystems.Configured("davfs", [])] };
        var errors = ErrorsOf(Options(fstype, source), policy);
        Assert.Contains(errors, error => error is { Field: "source", Rule: InputRule.NoClearSecret });
        Assert.DoesNotContain(errors, error => error.ToString().Contains(Value, StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("fuse.sshfs", "server:backup@2024/x")]
    [InlineData("fuse.sshfs", "[fe80::1]:/srv/a@b")]
    [InlineData("nfs", "server:/export/.snap@daily")]
    [InlineData("ceph", "admin@fsid.cephfs=/")]
    [InlineData("fuse.bindfs", "/srv/a:b@c:d")]
    public void What_only_looks_a_little_like_credentials_is_accepted(string fstype, string source) =>
        Assert.Equal(source, SpecOf(Options(fstype, source)).Source);

    [Theory]
    [InlineData("cifs", "//server/share", "username=secret:bob", InputRule.SecretUnsupported)]
    [InlineData("tmpfs", "tmpfs", "size=secret:big", InputRule.SecretUnsupported)]
    [InlineData("nfs", "server:/x", "ro=secret:a", InputRule.SecretUnsupported)]
    [InlineData("nfs", "server:/x", "password=secret:a", InputRule.KnownOption)]
    [InlineData("fuse.sshfs", "server:/x", "password", InputRule.OptionNeedsValue)]
    public void An_option_that_takes_no_secret_gets_none(string fstype, string source, string option, string rule) =>
        Assert.Equal(rule, Assert.Single(ErrorsOf(Options(fstype, source, option))).Rule);

    [Fact]
    public void An_option_that_the_configuration_marks_takes_a_secret_and_nothing_else()
    {
        Assert.True(HelperFilesystems.IsOptionName("passfile=secret"));
        Assert.True(HelperFilesystems.IsOptionName("password=secret"));
        Assert.False(HelperFilesystems.IsOptionName("password"));
        Assert.False(HelperFilesystems.IsOptionName("passfile=other"));
        var policy = Policy with { HelperTypes = [HelperFilesystems.Configured("fuse.gocryptfs", ["passfile=secret", "quiet"])] };

        Assert.Contains("passfile=secret:vault", SpecOf(Options("fuse.gocryptfs", "/srv/cipher", "passfile=secret:vault"), policy).Options);
        var error = Assert.Single(ErrorsOf(Options("fuse.gocryptfs", "/srv/cipher", "passfile=/etc/hunter2"), policy));
        Assert.Equal((InputRule.NoClearSecret, "passfile=<masked>"), (error.Rule, error.Value));
        Assert.DoesNotContain(Value, error.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void Two_secrets_for_one_option_contradict_each_other() => Assert.Equal(
        InputRule.DuplicateOption,
        Assert.Single(ErrorsOf(Options("cifs", "//server/share", "password=secret:a", "pass=secret:b"))).Rule);

    [Fact]
    public void A_name_has_at_most_128_characters()
    {
        Assert.True(SecretRules.IsName(new string('a', SecretRules.NameLengthMax)));
        Assert.False(SecretRules.IsName(new string('a', SecretRules.NameLengthMax + 1)));
        Assert.False(SecretRules.IsName("a\n"));
        Assert.False(SecretRules.IsName(""));
        Assert.False(SecretRules.IsName("é"));
    }
}
