using MountLedger.Wire;
using static MountLedger.InputRule;
using static MountLedger.Tests.Input.Requests;

namespace MountLedger.Tests.Input;

/// <summary>
/// The table of everything that a request can get wrong: what was sent, the field and the rule that the answer must name.
/// </summary>
internal static class BadInput
{
    /// <summary>What is wrong, in words; what finds the errors; the field and the rule that they must name.</summary>
    public sealed record Case(string What, Func<IReadOnlyList<InputError>> Errors, string Field, string Rule);

    private static readonly DateTimeOffset Now = new(2026, 1, 31, 8, 0, 0, TimeSpan.Zero);

    public static IReadOnlyList<Case> All { get; } =
    [
        .. Paths(), .. Names(), .. Hosts(), .. Sources(), .. Types(), .. Helpers(), .. OptionShapes(), .. OptionMeanings(), .. Numbers(), .. Queries(),
    ];

    private static IEnumerable<Case> Paths() =>
    [
        Mountpoint("missing", null, Required),
        Mountpoint("empty", "", Required),
        Mountpoint("relative", "srv/ml/a", AbsolutePath),
        Mountpoint("relative to here", "./a", AbsolutePath),
        Mountpoint("home", "~/a", AbsolutePath),
        Mountpoint("the host's own stream", "@host", AbsolutePath),
        Mountpoint("a flag", "--help", AbsolutePath),
        Mountpoint("traversal", "/srv/ml/../../etc", NormalisedPath),
        Mountpoint("traversal at the end", "/srv/ml/a/..", NormalisedPath),
        Mountpoint("dot", "/srv/ml/./a", NormalisedPath),
        Mountpoint("dot at the end", "/srv/ml/a/.", NormalisedPath),
        Mountpoint("doubled slash", "/srv/ml//a", NormalisedPath),
        Mountpoint("doubled slash at the start", "//srv/ml/a", NormalisedPath),
        Mountpoint("slash at the end", "/srv/ml/a/", NormalisedPath),
        Mountpoint("newline", "/srv/ml/a\nb", NoControlCharacters),
        Mountpoint("NUL", "/srv/ml/a\0b", NoControlCharacters),
        Mountpoint("tab", "/srv/ml/a\tb", NoControlCharacters),
        Mountpoint("escape", "/srv/ml/\u001b[31m", NoControlCharacters),
        Mountpoint("DEL", "/srv/ml/\u007f", NoControlCharacters),
        Mountpoint("C1 control", "/srv/ml/\u0085", NoControlCharacters),
        Mountpoint("line separator", "/srv/ml/\u2028", NoControlCharacters),
        Mountpoint("lone high surrogate", "/srv/ml/\ud83d", ValidUtf8),
        Mountpoint("lone low surrogate", "/srv/ml/\ude00x", ValidUtf8),
        Mountpoint("replacement character", "/srv/ml/\ufffd", ValidUtf8),
        Mountpoint("2 049 bytes", "/srv/ml" + string.Concat(Enumerable.Repeat("/" + new string('a', 199), 10)) + "/" + new string('a', 41), PathLength),
        Mountpoint("2 049 bytes of fewer characters", "/srv/ml/" + string.Concat(Enumerable.Repeat("ééééééééé/", 110)) + "a", PathLength),
        Mountpoint("component of 256 bytes", "/srv/ml/" + new string('a', 256), ComponentLength),
        Mountpoint("component of 256 bytes in UTF-8", "/srv/ml/" + new string('é', 128), ComponentLength),
        Mountpoint("outside", "/etc", InsideRoot),
        Mountpoint("the root of the filesystem", "/", InsideRoot),
        Mountpoint("the root itself", "/srv/ml", InsideRoot),
        Mountpoint("above the root", "/srv", InsideRoot),
        Mountpoint("a sibling that begins alike", "/srv/mlx/a", InsideRoot),
        Mountpoint("another case", "/SRV/ml/a", InsideRoot),
        Unmounting("relative", Unmount() with { Mountpoint = "a" }, "mountpoint", AbsolutePath),
        Unmounting("outside", Unmount() with { Mountpoint = "/etc" }, "mountpoint", InsideRoot),
        Field("configured root", "roots[0]", errors => InputRules.AbsolutePath("roots[0]", "/srv/ml/", errors), NormalisedPath),
    ];

    private static IEnumerable<Case> Names() =>
    [
        Mounting("volume missing", Mount() with { Volume = null }, "volume", Required),
        Mounting("volume empty", Mount() with { Volume = "" }, "volume", Required),
        Mounting("volume of 129 characters", Mount() with { Volume = new string('v', 129) }, "volume", NameLength),
        Mounting("volume with newline", Mount() with { Volume = "a\nb" }, "volume", NoControlCharacters),
        Mounting("volume of a lone surrogate", Mount() with { Volume = "\udc00" }, "volume", ValidUtf8),
        Mounting("volume with zero width space", Mount() with { Volume = "a\u200bb" }, "volume", Printable),
        Mounting("volume with a direction mark", Mount() with { Volume = "a\u202eb" }, "volume", Printable),
        Mounting("volume begins with a space", Mount() with { Volume = " a" }, "volume", NoSurroundingSpace),
        Mounting("volume of a space", Mount() with { Volume = " " }, "volume", NoSurroundingSpace),
        Mounting("consumer missing", Mount() with { Consumer = null }, "consumer", Required),
        Mounting("consumer of 129 emoji", Mount() with { Consumer = string.Concat(Enumerable.Repeat("😀", 129)) }, "consumer", NameLength),
        Mounting("consumer ends with no-break space", Mount() with { Consumer = "a\u00a0" }, "consumer", NoSurroundingSpace),
        Mounting("consumer with NUL", Mount() with { Consumer = "a\0" }, "consumer", NoControlCharacters),
        Unmounting("volume missing", Unmount() with { Volume = null }, "volume", Required),
        Unmounting("consumer too long", Unmount() with { Consumer = new string('c', 200) }, "consumer", NameLength),
        Field("actor missing", "actor", errors => InputRules.Actor("actor", null, errors), Required),
        Field("actor with control", "actor", errors => InputRules.Actor("actor", "root\r", errors), NoControlCharacters),
        Field("reason too long", "reason", errors => InputRules.Reason("reason", new string('r', 1025), errors), ReasonLength),
        Field("reason of two lines", "reason", errors => InputRules.Reason("reason", "a\nb", errors), NoControlCharacters),
    ];

    private static IEnumerable<Case> Hosts() =>
    [
        .. new[] { "Host-1", "host_1", ".host", "host.", "-host", "host-", "a..b", "a.-b", "höst", "host 1", new string('h', 64) }
            .Select(host => Mounting($"host {host}", Mount() with { Host = host }, "host", InputRule.HostName)),
        Mounting("host empty", Mount() with { Host = "" }, "host", Required),
        Mounting("another host", Mount() with { Host = "host-2" }, "host", OwnHost),
        Unmounting("another host", Unmount() with { Host = "host-2" }, "host", OwnHost),
    ];

    private static IEnumerable<Case> Sources() =>
    [
        Mounting("source missing", Mount() with { Source = null }, "source", Required),
        Mounting("source empty", Mount() with { Source = "" }, "source", Required),
        Mounting("source is a flag", Mount() with { Source = "-orw" }, "source", NoLeadingDash),
        Mounting("source of 2 049 bytes", Mount() with { Source = new string('s', 2049) }, "source", SourceLength),
        Mounting("source with newline", Mount() with { Source = "tmp\nfs" }, "source", NoControlCharacters),
        Mounting("source not UTF-8", Mount() with { Source = "tmp\ufffd" }, "source", ValidUtf8),
        Mounting("source invisible", Mount() with { Source = "tmp\u200ffs" }, "source", Printable),
        Mounting("device by UUID", Options("ext4", "UUID=0a1b"), "source", AbsolutePath),
        Mounting("device by name", Options("ext4", "sda1"), "source", AbsolutePath),
        Mounting("device is the root", Options("xfs", "/"), "source", AbsolutePath),
        Mounting("image by traversal", Options("squashfs", "/srv/../etc/image"), "source", NormalisedPath),
        Mounting("bind of a relative directory", Options("bind", "data"), "source", AbsolutePath),
        Mounting("bind with doubled slash", Options("bind", "/srv//data"), "source", NormalisedPath),
        Mounting("bind with NUL", Options("bind", "/srv/\0"), "source", NoControlCharacters),
    ];

    private static IEnumerable<Case> Types() =>
    [
        Mounting("type missing", Mount() with { Fstype = null }, "fstype", Required),
        Mounting("type empty", Mount() with { Fstype = "" }, "fstype", Required),
        .. new[] { "ext5", "TMPFS", "proc", "sysfs", "none", "auto", "-t", "tmpfs;id", "tmpfs,ext4", "tmp\0fs", "../tmpfs", new string('x', 5000) }
            .Select(type => Mounting($"type {type[..Math.Min(type.Length, 20)]}", Mount() with { Fstype = type }, "fstype", KnownFilesystem)),
        .. new[] { "fuse", "fuse.", "fuse.unheard-of", "fuseblk", "fuse.sshfs;id", "fuse.../../bin/sh" }
            .Select(type => Mounting($"type {type}", Mount() with { Fstype = type }, "fstype", HelperUnsupported)),
    ];

    /// <summary>What a mount helper, or the ssh that it runs, would take for something else than a source or a value.</summary>
    private static IEnumerable<Case> Helpers() =>
    [
        .. new[]
        {
            ("nfs", "server"), ("nfs", "/export"), ("nfs", "server:/x y"), ("nfs4", "ser ver:/x"), ("nfs", "server:/a,b"), ("nfs", "@-x:/a"),
            ("cifs", "server/share"), ("cifs", "//server"), ("cifs", "//-server/share"), ("cifs", @"//server\share/x"), ("cifs", "//server/a,b"),
            ("fuse.sshfs", "server"), ("fuse.sshfs", "[-oProxyCommand=id]:/x"), ("fuse.sshfs", "user@-oProxyCommand=id:/x"),
            ("fuse.sshfs", "@server:/x"), ("fuse.sshfs", "server:/x,ssh_command=id"), ("fuse.sshfs", "server:/x\\"), ("fuse.sshfs", "server:/$(id)"),
            ("fuse.rclone", ":local,x=y:/"), ("fuse.rclone", "/etc"), ("fuse.s3fs", "Bucket"), ("fuse.s3fs", "bucket:sub"), ("fuse.s3fs", "a,url=http://x"),
            ("glusterfs", "volume"), ("ceph", "monitor"),
        }.Select(pair => Mounting($"{pair.Item1} from {pair.Item2}", Options(pair.Item1, pair.Item2), "source", InputRule.SourceForm)),
        Mounting("sshfs from a flag", Options("fuse.sshfs", "-oProxyCommand=id:/x"), "source", NoLeadingDash),
        Mounting("bindfs of a relative directory", Options("fuse.bindfs", "data"), "source", AbsolutePath),
        .. new[] { "ssh_command=id", "ProxyCommand=id", "LocalCommand=id", "PermitLocalCommand=yes", "sftp_server=/bin/sh", "directport=1", "password_stdin", "modules=subdir", "fsname=x", "subtype=x", "auto_unmount", "nonempty" }
            .Select(option => Mounting($"sshfs with {option}", Options("fuse.sshfs", "server:/x", option), "options[0]", KnownOption)),
        .. new[] { "port=22 -oProxyCommand=id", "port=1\\", "workaround=$(id)", "port=`id`", "idmap=\"user\"" }
            .Select(option => Mounting($"sshfs with {option}", Options("fuse.sshfs", "server:/x", option), "options[0]", OptionValue)),
        Mounting("cifs with a password", Options("cifs", "//server/share", "password=hunter2"), "options[0]", NoClearSecret),
        Mounting("cifs with a secret as a name", Options("cifs", "//server/share", "username=secret:bob"), "options[0]", SecretUnsupported),
    ];

    private static IEnumerable<Case> OptionShapes() =>
    [
        Option("null", (string)null!, Required),
        Option("empty", "", OptionLength),
        Option("4 097 bytes", "mpol=" + new string('x', 4092), OptionLength),
        Option("a comma", "ro,noexec", NoSeparator),
        Option("a comma in the value", "size=1g,suid", NoSeparator),
        Option("an escaped comma", @"size=1g\,suid", NoSeparator),
        Option("newline", "ro\n", NoControlCharacters),
        Option("NUL", "size=1g\0", NoControlCharacters),
        Option("not UTF-8", "mpol=\ud800", ValidUtf8),
        Option("a flag", "-o", NoLeadingDash),
        Option("a long flag", "--bind", NoLeadingDash),
        Mounting("65 options", Options("tmpfs", "tmpfs", [.. Enumerable.Repeat("ro", 65)]), "options", OptionCount),
        Mounting(
            "more than 16 KiB", Options("tmpfs", "tmpfs", [.. Enumerable.Range(0, 5).Select(i => $"mpol={new string('x', 4000)}{i}")]),
            "options", OptionsLength),
        .. new[] { "password=hunter2", "PASS=hunter2", "passwd=hunter2", "secret=hunter2", "key=hunter2", "credentials=/etc/c",
                "ssh_key=hunter2", "passphrase=x", "sas-token=x", "password=secret:NAME=x" }
            .Select(option => Option(option, option, NoClearSecret)),
    ];

    private static IEnumerable<Case> OptionMeanings() =>
    [
        Option("unknown", "frobnicate", KnownOption),
        Option("unknown with value", "frobnicate=1", KnownOption),
        Option("of another filesystem", "lowerdir=/a", KnownOption),
        Option("another case", "RO", KnownOption),
        Option("a space before", " ro", KnownOption),
        Option("only a value", "=1", KnownOption),
        Option("context", "x-systemd.automount", KnownOption),
        Option("suid", "suid", OptionPolicy),
        Option("dev", "dev", OptionPolicy),
        Option("nobarrier", Options("ext4", "/dev/sda1", "nobarrier"), OptionPolicy),
        Option("barrier=0", Options("ext4", "/dev/sda1", "barrier=0"), OptionPolicy),
        Option("panic", Options("ext4", "/dev/sda1", "errors=panic"), OptionPolicy),
        Option("no value", "size", OptionNeedsValue),
        Option("empty value", "size=", OptionValue),
        Option("value of a flag", "ro=1", OptionTakesNoValue),
        Option("value of an instruction", Options("ext4", "/srv/x.img", "loop=/dev/loop0"), OptionTakesNoValue),
        .. new[] { "size=-1", "size=1x", "size=1gg", "size=101%", "size=%", "size=0x10", "size=9999999999999999999g", "size= 1g", "size=1=2",
                "size=007", "mode=789", "mode=rwx", "mode=177777", "mode=-1", "uid=root", "uid=-1", "uid=4294967296", "uid=010", "uid=１",
                "huge=maybe", "huge=ALWAYS", "mpol=a b", "nr_inodes=1.5" }
            .Select(option => Option(option, option, OptionValue)),
        Option("relative lowerdir", Options("overlay", "o", "lowerdir=a:/b"), OptionValue),
        Option("empty layer", Options("overlay", "o", "lowerdir=/a::/b"), OptionValue),
        Option("escaped colon", Options("overlay", "o", @"lowerdir=/a\:b"), OptionValue),
        Option("traversal in upperdir", Options("overlay", "o", "upperdir=/a/../b", "lowerdir=/l", "workdir=/w"), OptionValue),
        Option("traversal in subvol", Options("btrfs", "/dev/sda1", "subvol=../x"), OptionValue),
        Option("level of lzo", Options("btrfs", "/dev/sda1", "compress=lzo:3"), OptionValue),
        Option("rw of a read-only filesystem", Options("squashfs", "/srv/x.img", "rw"), ReadOnlyFilesystem),
        Mounting("ro and rw", Options("tmpfs", "t", "ro", "rw"), "options[1]", ContradictoryOptions),
        Mounting("exec and noexec", Options("tmpfs", "t", "noexec", "exec"), "options[1]", ContradictoryOptions),
        Mounting("noatime and relatime", Options("tmpfs", "t", "ro", "noatime", "relatime"), "options[2]", ContradictoryOptions),
        Mounting("acl and noacl", Options("ext4", "/dev/sda1", "acl", "noacl"), "options[1]", ContradictoryOptions),
        Mounting("two sizes", Options("tmpfs", "t", "size=1g", "size=2g"), "options[1]", DuplicateOption),
        Mounting("with and without value", Options("btrfs", "/dev/sda1", "compress", "compress=zstd"), "options[1]", DuplicateOption),
        Remounting("an instruction", "xfs", ["loop"], FixedOption),
        Mounting("overlay without layers", Options("overlay", "o"), "options", MissingOption),
        Mounting("overlay without workdir", Options("overlay", "o", "lowerdir=/a", "upperdir=/b"), "options", MissingOption),
    ];

    private static IEnumerable<Case> Numbers() =>
    [
        .. new[] { -1, -0.001, 3600.5, double.NaN, double.PositiveInfinity, double.NegativeInfinity, double.MaxValue }
            .Select(seconds => Mounting($"wait {seconds}", Mount() with { WaitSeconds = seconds }, "waitSeconds", WaitRange)),
        Unmounting("wait", Unmount() with { WaitSeconds = 3601 }, "waitSeconds", WaitRange),
        Mounting("on failure", Mount() with { OnFailure = (OnFailure)7 }, "onFailure", KnownValue),
        Unmounting("mode", Unmount() with { Mode = (UnmountMode)(-1) }, "mode", KnownValue),
        .. new[] { "0", "-1", "1001", "x", "1e2", " 5", "99999999999" }
            .Select(limit => Field($"limit {limit}", "limit", errors => InputRules.Limit("limit", limit, errors), LimitRange)),
        .. new[] { null, "", "-1", "*", "W/\"3\"", "\"3", "\"\"", "3.0", "\"1\", \"2\"", "99999999999999999999" }
            .Select(version => Field($"version {version}", "If-Match", errors => InputRules.Version("If-Match", version, errors), InputRule.Version)),
    ];

    private static IEnumerable<Case> Queries() =>
    [
        Field("type missing", "type", errors => InputRules.EventType("type", "", errors), Required),
        Field("type unknown", "type", errors => InputRules.EventType("type", "Mounted", errors), KnownEventType),
        Field("type of SQL", "type", errors => InputRules.EventType("type", "mounted' or '1'='1", errors), KnownEventType),
        Field("time missing", "since", errors => InputRules.Time("since", null, Now, errors), Required),
        .. new[] { "yesterday", "10", "10x", "m10", "-10m", "1m1h", "10 m", "2026-01-31", "2026-01-31T08:00:00", "2026-13-01T00:00:00Z",
                "2026-02-30T00:00:00Z", "2026-01-31T25:00:00Z", "2026-01-31T08:00:00+99:00", "40000d", "999999999d", "9999999999999d" }
            .Select(time => Field($"time {time}", "since", errors => InputRules.Time("since", time, Now, errors), InputRule.Time)),
        Field("key missing", "Idempotency-Key", errors => InputRules.IdempotencyKey("Idempotency-Key", "", errors), Required),
        .. new[] { "a b", "ä", "a\n", new string('k', 256) }
            .Select(key => Field($"key {key[..1]}", "Idempotency-Key", errors => InputRules.IdempotencyKey("Idempotency-Key", key, errors), InputRule.IdempotencyKey)),
    ];

    private static Case Mountpoint(string what, string? value, string rule) =>
        Mounting($"mountpoint: {what}", Mount() with { Mountpoint = value }, "mountpoint", rule);

    private static Case Option(string what, string option, string rule) => Option(what, Options("tmpfs", "tmpfs", option), rule);

    private static Case Option(string what, MountRequest request, string rule) =>
        Mounting($"option: {what}", request, "options[0]", rule);

    private static Case Mounting(string what, MountRequest request, string field, string rule) =>
        new(what, () => ErrorsOf(request), field, rule);

    private static Case Unmounting(string what, UnmountRequest request, string field, string rule) => new(
        $"unmount: {what}",
        () =>
        {
            var valid = InputRules.Unmount(request, Policy, out var errors);
            Assert.Equal(valid is null, errors.Count > 0);
            return errors;
        },
        field, rule);

    private static Case Remounting(string what, string fstype, string[] options, string rule) => new(
        $"remount: {what}",
        () =>
        {
            var errors = new InputErrors();
            Assert.Null(SpecRules.Changed(new MountSpec("/dev/sda1", fstype, []), [.. options], Policy, errors));
            return errors;
        },
        "options[0]", rule);

    private static Case Field<T>(string what, string field, Func<InputErrors, T?> check, string rule) => new(
        what,
        () =>
        {
            var errors = new InputErrors();
            Assert.Null(check(errors));
            return errors;
        },
        field, rule);
}
