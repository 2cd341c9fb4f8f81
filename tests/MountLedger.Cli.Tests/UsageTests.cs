namespace MountLedger.Cli.Tests;

/// <summary>What the command line itself refuses: exit code 2, one line, and the agent is not asked.</summary>
public class UsageTests
{
    private const string Attachment = "--volume v --consumer c";

    [Theory]
    [InlineData("", "command")]
    [InlineData("bogus", "'bogus'")]
    [InlineData("mount", "--volume")]
    [InlineData($"mount tmpfs {Attachment}", "MOUNTPOINT")]
    [InlineData("mount tmpfs /srv/a --volume v", "--consumer")]
    [InlineData("mount tmpfs /srv/a --consumer c", "--volume")]
    [InlineData($"mount tmpfs /srv/a extra {Attachment}", "'extra'")]
    [InlineData($"mount --sorce /srv/a {Attachment}", "'--sorce'")]
    [InlineData($"mount tmpfs /srv/a {Attachment} -t", "'-t'")]
    [InlineData($"mount tmpfs /srv/a {Attachment} -t tmpfs -t ext4", "'-t'")]
    [InlineData($"mount tmpfs /srv/a {Attachment} --wait soon", "--wait")]
    [InlineData($"mount tmpfs /srv/a {Attachment} --wait -1s", "--wait")]
    [InlineData($"mount tmpfs /srv/a {Attachment} --wait 2d", "--wait")]
    [InlineData($"mount tmpfs /srv/a {Attachment} --wait 1s --no-wait", "--no-wait")]
    [InlineData($"mount tmpfs /srv/a {Attachment} --on-failure explode", "--on-failure")]
    [InlineData($"mount tmpfs /srv/a {Attachment} --if-match abc", "--if-match")]
    [InlineData($"mount tmpfs /srv/a {Attachment} --if-match -3", "--if-match")]
    [InlineData($"mount tmpfs /srv/a {Attachment} --idempotency-key ü", "--idempotency-key")]
    [InlineData($"mount tmpfs /srv/a {Attachment} --lazy", "'--lazy'")]
    [InlineData($"unmount /srv/a {Attachment} --lazy --force", "--lazy")]
    [InlineData($"umount {Attachment}", "MOUNTPOINT")]
    [InlineData("ls --phase mountd", "--phase")]
    [InlineData("ls /srv/a", "'/srv/a'")]
    [InlineData("status", "MOUNTPOINT")]
    [InlineData("status -x", "'-x'")]
    [InlineData("history --since yesterday", "--since")]
    [InlineData("state", "--at")]
    [InlineData("state --at yesterday", "--at")]
    [InlineData("state --at 10", "--at")]
    [InlineData("history --since 2026-01-31", "--since")]
    [InlineData("history --since 2026-01-31T12:00:00", "--since")]
    [InlineData("history --until 10", "--until")]
    [InlineData("history --limit 0", "--limit")]
    [InlineData("history --limit many", "--limit")]
    [InlineData("host", "command")]
    [InlineData("host sideways", "'sideways'")]
    public async Task Bad_usage_names_the_culprit_and_asks_nobody(string line, string named)
    {
        await using var agent = await ScriptedAgent.AnsweringAsync(200, Sample.Mounted);

        var ran = await Ran.Async(agent, line.Split(' ', StringSplitOptions.RemoveEmptyEntries));

        Assert.Equal((2, ""), (ran.Code, ran.Out));
        Assert.Contains(named, ran.Error, StringComparison.Ordinal);
        Assert.Contains('—', ran.Error);
        Assert.Single(ran.Error.Split('\n', StringSplitOptions.RemoveEmptyEntries));
        Assert.Empty(agent.Asked);
    }

    [Fact]
    public async Task A_socket_path_that_is_too_long_is_bad_usage()
    {
        var ran = await Ran.Async("/" + new string('s', 200), ["ls"]);

        Assert.Equal(2, ran.Code);
        Assert.Contains("--socket", ran.Error, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("")]
    [InlineData("mount")]
    [InlineData("unmount")]
    [InlineData("umount")]
    [InlineData("ls")]
    [InlineData("status")]
    [InlineData("history")]
    [InlineData("state")]
    [InlineData("host")]
    [InlineData("host ls")]
    [InlineData("host up")]
    [InlineData("host down")]
    public async Task Help_has_examples_and_exit_codes_for_every_verb(string verb)
    {
        var ran = await Ran.Async("/nonexistent", [.. verb.Split(' ', StringSplitOptions.RemoveEmptyEntries), "--help"]);

        Assert.Equal((0, ""), (ran.Code, ran.Error));
        Assert.Contains("Examples:\n  mountledger ", ran.Out, StringComparison.Ordinal);
        Assert.Contains("\n  6  no outcome within --wait", ran.Out, StringComparison.Ordinal);
    }

    [Fact]
    public void Arguments_that_are_no_utf8_are_refused_before_they_become_another_path()
    {
        var end = Assert.Throws<ExitException>(static () =>
            ArgumentBytes.RefuseInvalidUtf8(["status", "/srv/\uFFFD"], static () => [.. "status\0/srv/"u8, 0xff, 0]));

        Assert.Equal(ExitCode.BadUsage, end.Code);
    }

    [Fact]
    public void A_real_replacement_character_is_a_name_like_another() =>
        ArgumentBytes.RefuseInvalidUtf8(["status", "/srv/\uFFFD"], static () => [.. "status\0/srv/\uFFFD\0"u8]);
}
