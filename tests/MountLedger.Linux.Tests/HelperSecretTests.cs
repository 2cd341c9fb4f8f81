using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using MountLedger.Linux.Interop;
using MountLedger.Tests;

namespace MountLedger.Linux.Tests;

/// <summary>How a helper gets a secret (real sshfs with a real server's password, and programs that report what they were given), and what it cannot do with it.</summary>
public sealed class HelperSecretTests : KernelTest
{
    private const string Value = "c0rrect,horse$(id)'battery\"";

    private readonly string programs;
    private readonly string secrets;
    private readonly MountOperations operations;
    private long lastToken;

    public HelperSecretTests()
    {
        programs = Directory.CreateDirectory(Path.Combine(Base, "programs")).FullName;
        secrets = Directory.CreateDirectory(Path.Combine(Base, "secrets"), (UnixFileMode)Convert.ToInt32("700", 8)).FullName;
        operations = new([Root], helpers: new HelperOptions(Path.Combine(Base, "staging"), [programs, "/usr/bin"], TimeSpan.FromSeconds(20), secrets));
        Keep("vault", Value);
    }

    private string OwnStaging => Path.Combine(Base, "staging", Environment.ProcessId.ToString(CultureInfo.InvariantCulture));

    private void Keep(string name, string value)
    {
        var path = Path.Combine(secrets, name);
        File.WriteAllText(path, value);
        File.SetUnixFileMode(path, (UnixFileMode)Convert.ToInt32("600", 8));
    }

    private void Program(string name, string script)
    {
        var path = Path.Combine(programs, name);
        File.WriteAllText(path, "#!/bin/sh\n" + script);
        File.SetUnixFileMode(path, (UnixFileMode)Convert.ToInt32("755", 8));
    }

    private KernelError Fails(string type, string source, params string[] options)
    {
        var error = Assert.IsType<PrepareResult.Failed>(operations.Prepare(++lastToken, Point("failed"), new MountSpec(source, type, [.. options]))).Error;
        Assert.DoesNotContain(Value, error.Message, StringComparison.Ordinal);
        Assert.Empty(Directory.GetFileSystemEntries(OwnStaging));
        return error;
    }

    [RootTheory]
    // mount.cifs reads a descriptor, as mount.cifs(8) says; sshfs its input; the others a file.
    [InlineData("cifs", "//server/share", "password", "cat <&$PASSWD_FD", "username=bob,OPTIONS", "PASSWD_FD=0")]
    [InlineData("fuse.sshfs", "bob@server:/x", "password", "cat", "username=bob,password_stdin", "")]
    [InlineData("ceph", "mon:/", "secret", "cat \"$file\"", "username=bob,secretfile=FILE", "")]
    [InlineData("fuse.s3fs", "bucket", "passwd_file", "cat \"$file\"", "fsname=bucket,username=bob,passwd_file=FILE", "")]
    [InlineData("fuse.gocryptfs", "/cipher", "passfile", "cat \"$file\"", "username=bob,passfile=FILE", "")]
    public void Program_gets_the_secret_where_it_looks_for_it_and_nowhere_else(
        string type, string source, string key, string read, string options, string environment)
    {
        var report = Path.Combine(Base, "report");
        Program(
            $"mount.{type}",
            $"for last; do :; done\nfile=$(printf %s \"$last\" | sed -n 's/.*file=//p')\n{{ printf '%s\\n' \"$@\"; echo --; env | grep -v -E '^(PWD|SHLVL|_|OLDPWD|PATH|LANG)='; echo --; [ -z \"$file\" ] || stat -c '%a %u' \"$file\"; echo --; {read}; }} >{report}\n"
            + $"tail -c +0 {report}; cat /proc/$$/environ; tail -n 1 {report} | base64 -w 20 >&2; tail -n 1 {report} | od -An -tx1; echo 'cannot mount'; exit 32\n");
        var error = Fails(type, source, "username=bob", $"{key}=secret:vault");

        var parts = File.ReadAllText(report).Split("--\n");
        Assert.Equal(Value, parts[3]);
        Assert.DoesNotContain(Value, string.Concat(parts[..3]), StringComparison.Ordinal);
        var given = parts[0].Split('\n', StringSplitOptions.RemoveEmptyEntries)[^1];
        var file = given.Contains("file=", StringComparison.Ordinal) ? given[(given.LastIndexOf("file=", StringComparison.Ordinal) + 5)..] : null;
        Assert.Equal(options.Replace("FILE", file, StringComparison.Ordinal).Replace(",OPTIONS", "", StringComparison.Ordinal), given);
        Assert.Equal(environment, parts[1].Trim());
        Assert.Equal(file is null ? "" : "600 0", parts[2].Trim());
        if (file is not null) Assert.StartsWith(OwnStaging + "/", file, StringComparison.Ordinal);

        // It printed all of it, in three ways; we show none of them, and the rest.
        Assert.Contains($"mount.{type} ended with status 32, and said: ", error.Message, StringComparison.Ordinal);
        Assert.Contains("<masked>", error.Message, StringComparison.Ordinal);
        Assert.EndsWith("| cannot mount)", error.Message, StringComparison.Ordinal);
        var bytes = System.Text.Encoding.UTF8.GetBytes(Value);
        foreach (var piece in (string[])[Value[..8], Value[^8..], Convert.ToBase64String(bytes)[..8], Convert.ToHexStringLower(bytes)[..12]])
            Assert.DoesNotContain(piece, error.Message.Replace(" ", "", StringComparison.Ordinal), StringComparison.Ordinal);
        Assert.Contains($"{key}=secret:vault", error.Message, StringComparison.Ordinal);
    }

    [RootFact]
    public void Secret_that_cannot_be_used_starts_no_program()
    {
        Program("mount.cifs", $"touch {Base}/started; exit 1\n");
        File.SetUnixFileMode(Path.Combine(secrets, "vault"), (UnixFileMode)Convert.ToInt32("644", 8));
        var open = Fails("cifs", "//server/share", "password=secret:vault");
        Assert.Equal("EPERM", open.Errno);
        Assert.Contains($"secret vault: {secrets}/vault has mode 0644; chmod 0600 {secrets}/vault", open.Message, StringComparison.Ordinal);
        var none = Fails("cifs", "//server/share", "password=secret:none");
        Assert.Equal(("ENOENT", false), (none.Errno, none.Transient));
        Assert.Contains("secret none: there is no file", none.Message, StringComparison.Ordinal);
        Assert.False(File.Exists($"{Base}/started"));
    }

    [RootFact]
    public void Secret_at_the_cut_end_of_much_output_is_not_shown()
    {
        // The kept end begins in the middle of one of these lines.
        Program("mount.fuse.gocryptfs", "f=$(printf %s \"$4\" | sed 's/.*file=//'); i=0; while [ $i -lt 3000 ]; do printf 'x'; cat $f; i=$((i+1)); done; exit 1\n");
        var error = Fails("fuse.gocryptfs", "/cipher", "passfile=secret:vault");
        for (var i = 0; i + 6 <= Value.Length; i++) Assert.DoesNotContain(Value.Substring(i, 6), error.Message, StringComparison.Ordinal);
    }

    [RootFact]
    public void Secret_of_a_helper_that_is_killed_leaves_no_file()
    {
        Program("mount.fuse.gocryptfs", "cat \"$(printf %s \"$4\" | sed 's/.*file=//')\"; sleep 60\n");
        KernelError KilledAfter(TimeSpan deadline)
        {
            var hasty = new MountOperations([Root], helpers: new HelperOptions(Path.Combine(Base, "staging"), [programs], deadline, secrets));
            var killed = Assert.IsType<PrepareResult.Failed>(
                hasty.Prepare(++lastToken, Point("hangs"), new MountSpec("/cipher", "fuse.gocryptfs", ["passfile=secret:vault"]))).Error;
            Assert.Equal("ETIMEDOUT", killed.Errno);
            Assert.Empty(Directory.GetFileSystemEntries(OwnStaging));
            return killed;
        }

        var error = KilledAfter(TimeSpan.FromMilliseconds(400));
        // On a loaded machine it may have been killed before it came to that.
        if (error.Message.Contains("and said nothing", StringComparison.Ordinal)) error = KilledAfter(TimeSpan.FromSeconds(5));
        Assert.Contains("and said: <masked>", error.Message, StringComparison.Ordinal);
    }

    [RootFact]
    public void Sshfs_logs_in_with_a_password_that_no_process_shows()
    {
        const string Password = "pass,word with 'quotes'";
        Keep("ssh", Password);
        Keep("wrong", "not the password");
        var shadow = Path.Combine(Base, "shadow");
        File.WriteAllText(shadow, $"root:{Run("openssl", "passwd", "-6", Password).Trim()}:19000:0:99999:7:::\n");
        Run("chmod", "600", shadow);
        var host = Path.Combine(Base, "host");
        Run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", host);
        var port = FreePort();
        var config = Path.Combine(Base, "config");
        File.WriteAllText(config, $"Port {port}\nListenAddress 127.0.0.1\nHostKey {host}\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\nPasswordAuthentication yes\nPubkeyAuthentication no\nSubsystem sftp internal-sftp\n");
        var known = Path.Combine(Base, "known");
        File.WriteAllText(known, $"[127.0.0.1]:{port} {File.ReadAllText(host + ".pub")}");
        File.WriteAllText(Path.Combine(Sources, "file"), "through sshfs");
        Directory.CreateDirectory("/run/sshd");
        // Only in the tests' own mount namespace, and only as long as this test.
        Run("mount", "--bind", shadow, "/etc/shadow");
        using var server = Process.Start(new ProcessStartInfo("/usr/sbin/sshd", ["-D", "-e", "-f", config]) { RedirectStandardError = true })!;
        try
        {
            HelperTests.Until(() => Answers(port), "sshd listens");
            MountSpec Spec(string secret) => new(
                $"root@127.0.0.1:{Sources}", "fuse.sshfs", ["nodev", "nosuid", $"password=secret:{secret}", $"port={port}", $"UserKnownHostsFile={known}"]);

            var result = operations.Prepare(++lastToken, Point("ssh"), Spec("ssh"));
            var ready = result as PrepareResult.Ready ?? throw new Xunit.Sdk.XunitException(result.ToString());
            Assert.IsType<AttachResult.Attached>(operations.Attach(ready.Mount));
            Assert.Equal("through sshfs", File.ReadAllText(Path.Combine(Point("ssh"), "file")));
            var mount = operations.Observe(Point("ssh"), Spec("ssh")).Top!;
            Assert.True(mount.Matches, string.Join(' ', mount.Differences!.Value));
            Assert.Empty(Showing(Password));
            // The same search does find what is there to be found.
            Assert.NotEmpty(Showing("password_stdin"));

            var wrong = operations.Prepare(++lastToken, Point("wrong"), Spec("wrong"));
            Assert.DoesNotContain("not the password", Assert.IsType<PrepareResult.Failed>(wrong).Error.Message, StringComparison.Ordinal);
            Assert.IsType<UnmountResult.Unmounted>(operations.Unmount(new UnmountOrder(Point("ssh"), mount.MountId, UnmountMode.Normal, [])));
        }
        finally
        {
            server.Kill();
            server.WaitForExit();
            MountCalls.Unmount("/etc/shadow", MountCalls.MNT_DETACH);
        }
    }

    private static bool Answers(int port)
    {
        try
        {
            using var client = new TcpClient("127.0.0.1", port);
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }

    private static string[] Showing(string text) =>
    [
        .. from directory in Directory.GetDirectories("/proc")
           where char.IsAsciiDigit(Path.GetFileName(directory)[0])
           from name in (string[])["cmdline", "environ"]
           where ReadOf(Path.Combine(directory, name)).Contains(text, StringComparison.Ordinal)
           select $"{directory}/{name}",
    ];

    private static string ReadOf(string path)
    {
        try
        {
            return File.ReadAllText(path);
        }
        catch (Exception gone) when (gone is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }
}
