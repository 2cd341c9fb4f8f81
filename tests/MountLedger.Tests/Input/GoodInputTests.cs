using MountLedger.Wire;
using static MountLedger.Tests.Input.Requests;

namespace MountLedger.Tests.Input;

/// <summary>What is accepted, and what becomes of it.</summary>
public sealed class GoodInputTests
{
    private static readonly DateTimeOffset Now = new(2026, 1, 31, 8, 0, 0, TimeSpan.Zero);

    [Fact]
    public void A_mount_request_becomes_domain_values()
    {
        var valid = InputRules.Mount(Mount() with { OnFailure = OnFailure.Retry, WaitSeconds = 1.5 }, Policy, out var errors)!;

        Assert.Empty(errors);
        Assert.Equal(new StreamKey("host-1", "/srv/ml/a"), valid.Stream);
        Assert.Equal(new MountSpec("tmpfs", "tmpfs", ["nodev", "nosuid", "size=1g"]), valid.Spec);
        Assert.Equal(new AttachmentKey("vol-1", "vm-1"), valid.Attachment);
        Assert.Equal(OnFailure.Retry, valid.OnFailure);
        Assert.Equal(TimeSpan.FromSeconds(1.5), valid.Wait);
    }

    [Fact]
    public void What_a_request_leaves_out_has_defaults()
    {
        var mount = InputRules.Mount(Mount() with { Options = null }, Policy, out _)!;
        var unmount = InputRules.Unmount(Unmount(), Policy, out _)!;

        Assert.Equal(("host-1", OnFailure.Forget, TimeSpan.FromSeconds(30)), (mount.Host, mount.OnFailure, mount.Wait));
        Assert.Equal(("host-1", UnmountMode.Normal, TimeSpan.FromSeconds(30)), (unmount.Host, unmount.Mode, unmount.Wait));
    }

    [Theory]
    [InlineData("/srv/ml/a")]
    [InlineData("/mnt/pool/a/b/c")]
    [InlineData("/srv/ml/...")]
    [InlineData("/srv/ml/..a")]
    [InlineData("/srv/ml/-a")]
    [InlineData("/srv/ml/@host")]
    [InlineData("/srv/ml/with space, comma=and:colon")]
    [InlineData("/srv/ml/back\\slash")]
    [InlineData("/srv/ml/größe/日本/😀")]
    public void A_path_below_a_root_is_kept_as_it_is(string path)
    {
        var errors = new InputErrors();

        Assert.Equal(path, InputRules.MountpointPath("mountpoint", path, Policy, errors));
        Assert.Empty(errors);
    }

    [Theory]
    [InlineData("nfs", "server:/export", "vers=4.2,hard", "hard,nodev,nosuid,vers=4.2")]
    [InlineData("nfs", "server:/export", "nfsvers=3,soft", "nodev,nosuid,soft,vers=3")]
    [InlineData("nfs4", "[fe80::1%eth0]:/export", "", "nodev,nosuid")]
    [InlineData("cifs", "//files.example.org/share/sub", "username=bob,seal,ro", "nodev,nosuid,ro,seal,username=bob")]
    [InlineData("ceph", "mon1:6789,mon2:/", "name=admin", "name=admin,nodev,nosuid")]
    [InlineData("ceph", "admin@fsid.cephfs=/", "", "nodev,nosuid")]
    [InlineData("glusterfs", "server:/volume", "acl", "acl,nodev,nosuid")]
    [InlineData("fuse.sshfs", "bob@server:", "port=2222,reconnect", "nodev,nosuid,port=2222,reconnect")]
    [InlineData("fuse.sshfs", "[::1]:/srv", "IdentityFile=/etc/keys/a", "IdentityFile=/etc/keys/a,nodev,nosuid")]
    [InlineData("fuse.bindfs", "/srv/with space", "force-user=bob,perms=0644:a+X", "force-user=bob,nodev,nosuid,perms=0644:a+X")]
    [InlineData("fuse.rclone", "remote:bucket/dir", "vfs-cache-mode=writes", "nodev,nosuid,vfs-cache-mode=writes")]
    [InlineData("fuse.s3fs", "bucket:/dir", "url=https://s3.example.org:9000", "nodev,nosuid,url=https://s3.example.org:9000")]
    public void A_type_that_a_helper_mounts_is_accepted(string fstype, string source, string options, string canonical)
    {
        var spec = SpecOf(Options(fstype, source, options.Split(',', StringSplitOptions.RemoveEmptyEntries)));

        Assert.Equal((fstype, source, canonical), (spec.FsType, spec.Source, string.Join(',', spec.Options)));
        Assert.Equal(spec, SpecOf(Options(fstype, source, [.. spec.Options])));
    }

    [Fact]
    public void A_type_that_the_configuration_names_is_accepted_with_the_options_that_it_names()
    {
        var policy = Policy with { HelperTypes = [HelperFilesystems.Configured("fuse.encfs", ["volume", "quiet"]), HelperFilesystems.Configured("davfs", ["conf"])] };

        Assert.Equal(new("a", "fuse.encfs", ["allow_other", "nodev", "nosuid", "quiet", "volume=x"]), SpecOf(Options("fuse.encfs", "a", "volume=x", "quiet", "allow_other"), policy));
        Assert.Equal(new("https://dav/x", "davfs", ["nodev", "nosuid", "ro"]), SpecOf(Options("davfs", "https://dav/x", "ro"), policy));
        Assert.Equal(InputRule.KnownOption, Assert.Single(ErrorsOf(Options("davfs", "x", "allow_other"), policy)).Rule);
        Assert.Equal(InputRule.SourceForm, Assert.Single(ErrorsOf(Options("davfs", "x y"), policy)).Rule);
        Assert.Equal(InputRule.KnownFilesystem, Assert.Single(ErrorsOf(Options("davfs", "x"))).Rule);
    }

    [Fact]
    public void A_path_of_exactly_2048_bytes_is_accepted()
    {
        var path = "/srv/ml" + string.Concat(Enumerable.Repeat("/" + new string('a', 199), 10)) + "/" + new string('a', 40);
        var errors = new InputErrors();

        Assert.Equal(2048, path.Length);
        Assert.Equal(path, InputRules.MountpointPath("mountpoint", path, Policy, errors));
    }

    [Theory]
    [InlineData("a")]
    [InlineData("-v")]
    [InlineData("a b")]
    [InlineData("vol/1:2=3,4")]
    [InlineData("größe-日本-😀")]
    public void A_name_is_any_printable_text(string name)
    {
        var valid = InputRules.Mount(Mount() with { Volume = name, Consumer = name }, Policy, out _)!;

        Assert.Equal(new AttachmentKey(name, name), valid.Attachment);
    }

    [Theory]
    [InlineData("a")]
    [InlineData("0")]
    [InlineData("node-1.rack-2.example.org")]
    public void A_host_name_of_its_characters_is_accepted(string host) =>
        Assert.Equal(host, InputRules.HostName("host", host, []));

    [Theory]
    [InlineData("2026-01-31T08:00:00Z", 0)]
    [InlineData("2026-01-31t08:00:00z", 0)]
    [InlineData("2026-01-31 08:00:00Z", 0)]
    [InlineData("2026-01-31T09:00:00+01:00", 0)]
    [InlineData("2026-01-31T07:59:59.5Z", 500_000)]
    [InlineData("2026-01-31T07:59:59.999999999Z", 1)]
    [InlineData("now", 0)]
    [InlineData("45s", 45_000_000)]
    [InlineData("10m", 600_000_000)]
    [InlineData("1h30m", 5_400_000_000)]
    [InlineData("1d", 86_400_000_000)]
    public void A_time_is_a_moment_or_how_long_ago(string time, long microsecondsAgo) =>
        Assert.Equal(Now.AddMicroseconds(-microsecondsAgo), InputRules.Time("at", time, Now, []));

    [Theory]
    [InlineData("12", 12)]
    [InlineData("\"12\"", 12)]
    [InlineData("0", 0)]
    public void A_version_is_a_number_or_an_etag(string version, long expected) =>
        Assert.Equal(expected, InputRules.Version("If-Match", version, []));

    [Theory]
    [InlineData(null, 100)]
    [InlineData("", 100)]
    [InlineData("1", 1)]
    [InlineData("1000", 1000)]
    public void A_limit_has_a_default(string? limit, int expected) => Assert.Equal(expected, InputRules.Limit("limit", limit, []));

    [Fact]
    public void Every_stored_event_name_is_a_filter() =>
        Assert.All(EventCatalog.StoredNames, name => Assert.Equal(name, InputRules.EventType("type", name, [])));

    [Fact]
    public void A_reason_may_be_missing()
    {
        var errors = new InputErrors();

        Assert.Null(InputRules.Reason("reason", null, errors));
        Assert.Equal("disk swap", InputRules.Reason("reason", "disk swap", errors));
        Assert.Empty(errors);
    }

    [Fact]
    public void An_idempotency_key_is_visible_ascii() =>
        Assert.Equal("a!~", InputRules.IdempotencyKey("Idempotency-Key", "a!~", []));
}
