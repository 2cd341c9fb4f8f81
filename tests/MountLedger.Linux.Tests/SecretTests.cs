using System.Text;
using MountLedger.Linux.Interop;
using MountLedger.Tests;

namespace MountLedger.Linux.Tests;

/// <summary>Reading a secret from its file, and taking it out of what a program prints.</summary>
public sealed class SecretTests : KernelTest
{
    private const string Value = "tr0ub4dor&3 \"x\"\\y";

    private string Folder
    {
        get
        {
            var path = Path.Combine(Base, "secrets");
            if (!Directory.Exists(path)) Directory.CreateDirectory(path, (UnixFileMode)Convert.ToInt32("700", 8));
            return path;
        }
    }

    private string Keep(string name, ReadOnlySpan<byte> value, string mode = "600")
    {
        var path = Path.Combine(Folder, name);
        File.WriteAllBytes(path, value);
        File.SetUnixFileMode(path, (UnixFileMode)Convert.ToInt32(mode, 8));
        return path;
    }

    private string Refused(string name)
    {
        var failure = Assert.Throws<KernelFailure>(() => new SecretStore(Folder).Read(name));
        Assert.StartsWith($"secret {name}: ", failure.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("hunter2", failure.Message, StringComparison.Ordinal);
        return $"{Errno.Name(failure.Number)} {failure.Message}";
    }

    [RootTheory]
    [InlineData("600")]
    [InlineData("400")]
    public void Secret_is_read_anew_each_time_and_prints_as_masked(string mode)
    {
        var store = new SecretStore(Folder);
        Keep("a", "one"u8, mode);
        using var one = store.Read("a");
        Assert.Equal("one"u8.ToArray(), one.Reveal().ToArray());
        Assert.Equal(["<masked>", "<masked> <masked>"], [one.ToString(), $"{one} {one}"]);
        Assert.DoesNotContain("one", System.Text.Json.JsonSerializer.Serialize(new { one.Name, Text = one.ToString() }), StringComparison.Ordinal);
        Keep("a", "two"u8);
        using var two = store.Read("a");
        Assert.Equal("two"u8.ToArray(), two.Reveal().ToArray());
        one.Dispose();
        Assert.Equal(new byte[3], one.Reveal().ToArray());
        Keep("longest", Encoding.ASCII.GetBytes(new string('x', SecretStore.BytesMax)));
        using var longest = store.Read("longest");
        Assert.Equal(SecretStore.BytesMax, longest.Reveal().Length);
    }

    [RootFact]
    public void File_that_is_not_fit_is_refused_with_the_remedy_and_never_its_content()
    {
        Assert.Equal($"ENOENT secret none: there is no file {Folder}/none; printf %s … >{Folder}/none && chmod 0600 {Folder}/none", Refused("none"));
        foreach (var mode in (string[])["640", "604", "660", "620", "601", "777"])
        {
            Keep("open", "hunter2"u8, mode);
            var said = Refused("open");
            Assert.StartsWith("EPERM", said, StringComparison.Ordinal);
            Assert.Contains($"has mode 0{mode}; chmod 0600 {Folder}/open", said, StringComparison.Ordinal);
        }
        Keep("others", "hunter2"u8);
        Run("chown", "65534:65534", Path.Combine(Folder, "others"));
        Assert.Contains("belongs to user 65534; chown root:root", Refused("others"), StringComparison.Ordinal);
        Keep("long", Encoding.ASCII.GetBytes("hunter2" + new string('x', SecretStore.BytesMax)));
        Assert.StartsWith($"EFBIG secret long: {Folder}/long has 4103 bytes; a secret has at most 4096", Refused("long"), StringComparison.Ordinal);
        Keep("empty", ""u8);
        Assert.Contains("is empty", Refused("empty"), StringComparison.Ordinal);
        Keep("nul", "hunter2\0x"u8);
        Assert.Contains("contains a NUL byte", Refused("nul"), StringComparison.Ordinal);
        Keep("line", "hunter2\n"u8);
        Assert.Contains("ends with a line break; a secret is one line of text, without its line break: printf %s …", Refused("line"), StringComparison.Ordinal);
        Keep("lines", "hunter2\nhunter2"u8);
        Assert.Contains("has more than one line", Refused("lines"), StringComparison.Ordinal);
        Keep("dos", "hunter2\r\n"u8);
        Assert.Contains("has more than one line", Refused("dos"), StringComparison.Ordinal);
        Keep("binary", [.. "hunter2"u8, 0xFF, 0xFE]);
        Assert.Contains("is not valid UTF-8", Refused("binary"), StringComparison.Ordinal);
        Directory.CreateDirectory(Path.Combine(Folder, "directory"));
        Assert.Contains("is no regular file", Refused("directory"), StringComparison.Ordinal);
        Run("mkfifo", "-m", "600", Path.Combine(Folder, "fifo"));
        Assert.Contains("is no regular file", Refused("fifo"), StringComparison.Ordinal);
    }

    [RootFact]
    public void Link_or_path_leads_to_no_other_file()
    {
        Keep("real", "hunter2"u8);
        File.CreateSymbolicLink(Path.Combine(Folder, "link"), Path.Combine(Folder, "real"));
        Assert.StartsWith("ELOOP secret link: ", Refused("link"), StringComparison.Ordinal);
        foreach (var name in (string[])["../secrets/real", "/etc/passwd", "a/b", ".", "..", "", "real\n"])
            Assert.StartsWith("EINVAL", Refused(name), StringComparison.Ordinal);
    }

    [RootFact]
    public void Directory_that_others_may_write_or_own_or_that_is_missing_is_refused()
    {
        Keep("a", "hunter2"u8);
        Run("chmod", "0777", Folder);
        Assert.Contains($"the directory {Folder} can be written by others; chown root:root {Folder} && chmod 0700 {Folder}", Refused("a"), StringComparison.Ordinal);
        Run("chmod", "0700", Folder);
        Run("chown", "65534", Folder);
        Assert.Contains("belongs to user 65534", Refused("a"), StringComparison.Ordinal);
        Run("chown", "0", Folder);
        new SecretStore(Folder).Read("a").Dispose();
        var missing = Assert.Throws<KernelFailure>(() => new SecretStore(Path.Combine(Base, "nowhere")).Read("a"));
        Assert.Contains("install -d -m 0700", missing.Message, StringComparison.Ordinal);
        Assert.Contains("no secretsDir is configured", Assert.Throws<KernelFailure>(() => new SecretStore(null).Read("a")).Message, StringComparison.Ordinal);
    }

    private static string Scrubbed(string text, params string[] secrets) =>
        SecretScrubber.Scrub(text, [.. secrets.Select((value, index) => Secret.Of($"s{index}", value))]);

    public static TheoryData<string> Encodings()
    {
        var bytes = Encoding.UTF8.GetBytes(Value);
        return
        [
            Value, Value.ToUpperInvariant(), string.Join(' ', Value.ToCharArray()), Value.Insert(6, "\n"), Uri.EscapeDataString(Value),
            System.Net.WebUtility.UrlEncode(Value), System.Net.WebUtility.HtmlEncode(Value), System.Text.Json.JsonSerializer.Serialize(Value, JsonAsIs),
            Convert.ToHexString(bytes), Convert.ToHexStringLower(bytes), string.Join(' ', bytes.Select(b => b.ToString("x2", null))),
            string.Concat(bytes.Select(b => $"\\x{b:x2}")), string.Concat(bytes.Select(b => $"\\{Convert.ToString(b, 8)}")),
            string.Concat(bytes.Select(b => $"%{b:X2}")), Convert.ToBase64String(bytes), Convert.ToBase64String(Encoding.UTF8.GetBytes($"b:{Value}")),
            Convert.ToBase64String(Encoding.UTF8.GetBytes($"bo:{Value}:x")), Convert.ToBase64String(Encoding.UTF8.GetBytes($"bob:{Value}")).Insert(8, "\r\n"),
            Encoding.UTF8.GetString(Encoding.Unicode.GetBytes(Value)), Value[5..], Value[..^4], string.Concat(Value.Select(c => char.IsAsciiLetterOrDigit(c) ? $"{c}" : $"\\{c}")),
        ];
    }

    private static readonly System.Text.Json.JsonSerializerOptions JsonAsIs = new() { Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    [Theory]
    [MemberData(nameof(Encodings))]
    public void Secret_is_taken_out_of_what_is_printed_in_whatever_encoding(string printed)
    {
        var shown = Scrubbed($"mount: wrong credentials {printed} for server files-1: permission denied", Value);
        Assert.Contains("<masked>", shown, StringComparison.Ordinal);
        Assert.StartsWith("mount: wrong credentials ", shown, StringComparison.Ordinal);
        Assert.EndsWith(" for server files-1: permission denied", shown, StringComparison.Ordinal);
        // Of the encoded text only what belongs to the text around the secret is left.
        var rest = shown["mount: wrong credentials ".Length..^" for server files-1: permission denied".Length].Replace("<masked>", "", StringComparison.Ordinal);
        Assert.InRange(rest.Trim().Length, 0, 10);
        for (var i = 0; i + 5 <= Value.Length; i++) Assert.DoesNotContain(Value.Substring(i, 5), shown, StringComparison.OrdinalIgnoreCase);
    }

    [Fact]
    public void Each_half_of_a_pair_is_a_secret_of_its_own() =>
        Assert.Equal("key <masked> or <masked> is wrong", Scrubbed("key AKIAEXAMPLE or s3cr3tkey is wrong", "AKIAEXAMPLE:s3cr3tkey"));

    [Fact]
    public void Of_two_secrets_both_are_taken_out_and_other_text_stays()
    {
        Assert.Equal("<masked> and <masked>, not alphabet", Scrubbed("alpha-one and beta-two, not alphabet", "alpha-one", "beta-two"));
        Assert.Equal("nothing here", Scrubbed("nothing here", "alpha-one"));
        Assert.Equal("as it is", Scrubbed("as it is"));
    }

    [Fact]
    public void Output_is_withheld_when_a_secret_is_too_short_to_be_found_in_it() =>
        Assert.Equal("(withheld: secret s0 is too short to be found in it)", Scrubbed("the pin is 123", "123"));
}
