using static MountLedger.Tests.Input.Requests;

namespace MountLedger.Tests.Input;

/// <summary>Every field and every rule of section 10, by example.</summary>
public sealed class BadInputTests
{
    public static TheoryData<int, string> Cases()
    {
        var cases = new TheoryData<int, string>();
        for (var i = 0; i < BadInput.All.Count; i++) cases.Add(i, $"{BadInput.All[i].Field}: {Ascii(BadInput.All[i].What)}");
        return cases;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Bad_input_is_refused_by_field_and_rule(int index, string what)
    {
        var example = BadInput.All[index];

        var errors = example.Errors();

        Assert.True(
            errors.Any(error => error.Field == example.Field && error.Rule == example.Rule),
            $"{what}: expected {example.Field}/{example.Rule}, got {string.Join("; ", errors)}");
        Assert.All(errors, error =>
        {
            Assert.False(string.IsNullOrWhiteSpace(error.Remedy));
            Assert.True(error.Value is null || error.Value.Length <= 128, "the value is too long");
            Assert.True(error.Value is null || !error.Value.Any(char.IsControl), "the value has control characters");
            Assert.DoesNotContain("hunter2", error.ToString(), StringComparison.Ordinal);
        });
    }

    [Fact]
    public void Every_rule_has_a_case() =>
        Assert.Empty(InputRule.All.Except(BadInput.All.Select(example => example.Rule)));

    [Fact]
    public void The_list_of_rules_is_complete_and_in_kebab_case()
    {
        var declared = typeof(InputRule).GetFields().Where(field => field.IsLiteral).Select(field => (string)field.GetRawConstantValue()!).ToList();

        Assert.Equal(declared.Order(), InputRule.All.Order());
        Assert.All(declared, rule => Assert.Matches("^[a-z][a-z0-9]*(-[a-z0-9]+)*$", rule));
    }

    [Fact]
    public void All_mistakes_are_reported_at_once()
    {
        var errors = ErrorsOf(new(
            "Bad", "../x", "-s", "ext4", ["ro", "nope", "size"], "", "c\n", (OnFailure)9, -1));

        Assert.Equal(
            ["consumer", "host", "mountpoint", "onFailure", "options[1]", "options[2]", "source", "volume", "waitSeconds"],
            errors.Select(error => error.Field).Distinct().Order(StringComparer.Ordinal));
    }

    [Fact]
    public void A_long_value_is_cut_to_128_characters()
    {
        var error = Assert.Single(ErrorsOf(Mount() with { Volume = new string('v', 500) }));

        Assert.Equal(128, error.Value!.Length);
        Assert.EndsWith("…", error.Value, StringComparison.Ordinal);
    }

    [Fact]
    public void Control_characters_are_escaped_in_the_value() => Assert.All(
        ErrorsOf(Mount() with { Mountpoint = "/srv/ml/a\nb\u001b\ud800\u202e\0" }),
        error => Assert.Equal(@"/srv/ml/a\nb\u001b\ud800\u202e\u0000", error.Value));

    [Theory]
    [InlineData("password=hunter2", "password=<masked>")]
    [InlineData("ro,PassWord=hunter2", "ro,PassWord=<masked>")]
    [InlineData("x=1,secret:hunter2", "x=1,secret:<masked>")]
    [InlineData("http://u:hunter2@h", "http://u:<masked>")]
    public void A_secret_is_never_echoed(string option, string shown) =>
        Assert.All(ErrorsOf(Options("tmpfs", "tmpfs", option)), error => Assert.Equal(shown, error.Value));

    [Fact]
    public void The_password_of_a_server_is_not_echoed_when_its_type_is_refused()
    {
        var errors = ErrorsOf(Options("fuse.smbnetfs", "-//user:hunter2@server/share", "pass=hunter2"));

        Assert.Equal(3, errors.Count);
        Assert.DoesNotContain(errors, error => error.ToString().Contains("hunter2", StringComparison.Ordinal));
    }

    [Fact]
    public void Errors_of_one_request_are_bounded()
    {
        var errors = new InputErrors();
        for (var i = 0; i < 10_000; i++) InputRules.Name("volume", "", errors);

        Assert.Equal(InputErrors.CountMax, errors.Count);
    }

    /// <summary>Test names go into XML reports, which cannot hold these characters.</summary>
    private static string Ascii(string text) =>
        new([.. text.Select(character => character is >= ' ' and <= '~' ? character : '?')]);
}
