using static MountLedger.Tests.Rules.Scenario;
using static MountLedger.Tests.Rules.Vocabulary;

namespace MountLedger.Tests.Rules;

/// <summary>Rule 7: a stranger's detach is nothing; the last holder may repeat a pending unmount as lazy or forced.</summary>
public sealed class Rule07_UnknownDetachTests
{
    public static TheoryData<string> Situations() => [.. AllSituations.Keys];

    private static readonly Dictionary<string, Func<Scenario>> AllSituations = new(StringComparer.Ordinal)
    {
        ["never heard of"] = () => Given(),
        ["requested"] = () => Given(Requested(), Added(A)),
        ["mounting"] = () => Given(Requested(), Added(A), MountStarted()),
        ["mounted"] = () => GivenMountedFor(A, B),
        ["adopted"] = () => GivenAdoptedFor(A),
        ["missing"] = () => GivenMountedFor(A).Then(Drift(DriftKind.Missing)),
        ["failed"] = () => Given(Requested(), Added(A, OnFailure.Retry), MountStarted(), MountFailed(1, Start)),
        ["leaving"] = GivenLeaving,
        ["unmounting"] = () => GivenLeaving().Then(UnmountStarted()),
        ["busy"] = () => GivenLeaving().Then(UnmountStarted(), UnmountFailed(1, Start)),
        ["uncertain"] = () => GivenLeaving().Then(UnmountStarted(), Uncertain(OperationKind.Unmount)),
        ["gone"] = () => GivenLeaving().Then(UnmountStarted(), Unmounted()),
        ["foreign"] = () => Given(Drift(DriftKind.Foreign, "ext4 /dev/sdb1")),
    };

    [Theory]
    [MemberData(nameof(Situations))]
    public void A_stranger_changes_nothing(string situation)
    {
        var scenario = AllSituations[situation]();
        var before = (scenario.State, MountFlow.NextAction(scenario.State));

        scenario.When(Detach(C)).NothingIsRecorded();

        Assert.Equal(before, (scenario.State, MountFlow.NextAction(scenario.State)));
    }

    [Theory]
    [MemberData(nameof(Situations))]
    public void A_stranger_cannot_force_anything_either(string situation)
    {
        foreach (var mode in new[] { UnmountMode.Lazy, UnmountMode.Force })
        {
            var scenario = AllSituations[situation]();
            var (before, version) = (scenario.State.Attachments.Count, scenario.State.Version);
            scenario.When(Detach(C, mode));
            if (before > 0) scenario.IsRejected<Rejection.InUse>("in-use");
            else scenario.NothingIsRecorded();
            Assert.Equal(version, scenario.State.Version);
        }
    }

    [Theory]
    [InlineData(UnmountMode.Lazy)]
    [InlineData(UnmountMode.Force)]
    public void An_administrator_may_escalate_what_somebody_else_left_busy_and_nothing_that_is_held(UnmountMode mode)
    {
        var byAdmin = Detach(C, mode) with { ByAdmin = true };
        GivenLeaving().Then(UnmountStarted(), UnmountFailed(3, Start.AddMinutes(1))).When(byAdmin).IsRecorded(UnmountRequested(mode));
        GivenMountedFor(A).When(byAdmin).IsRejected<Rejection.InUse>("in-use");
        Given().When(byAdmin).NothingIsRecorded();
    }

    [Theory]
    [InlineData(UnmountMode.Lazy)]
    [InlineData(UnmountMode.Force)]
    public void The_last_holder_may_repeat_a_busy_unmount_in_another_mode(UnmountMode mode)
    {
        var state = GivenLeaving().Then(UnmountStarted(), UnmountFailed(3, Start.AddMinutes(1)))
            .When(Detach(A, mode)).IsRecorded(UnmountRequested(mode)).NextIs(ActionKind.Unmount).IsNotAnsweredYet()
            .Then(UnmountStarted(mode), Unmounted()).IsAnswered(Outcome.Unmounted, version: 9).State;

        Assert.Equal(Phase.Absent, state.Phase);
    }

    [Fact]
    public void The_same_mode_again_is_no_event_while_it_is_due() => GivenLeaving().When(Detach(A, UnmountMode.Lazy))
        .IsRecorded(UnmountRequested(UnmountMode.Lazy)).When(Detach(A, UnmountMode.Lazy)).NothingIsRecorded();

    [Fact]
    public void The_same_mode_again_is_due_at_once_after_it_failed() =>
        GivenLeaving().Then(UnmountRequested(UnmountMode.Force), UnmountStarted(UnmountMode.Force), UnmountFailed(1, Start.AddMinutes(1)))
            .NextIs(ActionKind.Unmount, Start.AddMinutes(1))
            .When(Detach(A, UnmountMode.Force)).IsRecorded(UnmountRequested(UnmountMode.Force)).NextIs(ActionKind.Unmount)
            .When(Detach(A, UnmountMode.Force)).NothingIsRecorded();

    [Fact]
    public void The_last_holder_repeating_a_normal_unmount_is_a_noop() =>
        GivenLeaving().Then(UnmountStarted(), UnmountFailed(1, Start)).When(Detach(A)).NothingIsRecorded();

    [Fact]
    public void A_mode_asked_for_during_a_normal_try_is_due_as_soon_as_that_fails()
    {
        var scenario = GivenLeaving().Then(UnmountStarted()).When(Detach(A, UnmountMode.Lazy))
            .IsRecorded(UnmountRequested(UnmountMode.Lazy)).Then(UnmountFailed(1, Start.AddMinutes(1)))
            .NextIs(ActionKind.Unmount);

        Assert.Equal(UnmountMode.Lazy, scenario.State.UnmountWanted);
    }

    [Fact]
    public void Who_asked_for_a_mode_is_not_answered_by_the_failure_of_the_one_before()
    {
        var scenario = GivenLeaving().Then(UnmountStarted()).When(Detach(A, UnmountMode.Lazy)).Then(UnmountFailed(1, Start.AddMinutes(1)));

        scenario.IsNotAnsweredYet(Detach(A, UnmountMode.Lazy), 8);
        scenario.IsToldOfFailure("EBUSY", Detach(A), 6);
        scenario.Then(UnmountStarted(UnmountMode.Lazy), UnmountFailed(2, Start.AddMinutes(1)))
            .IsToldOfFailure("EBUSY", Detach(A, UnmountMode.Lazy), 8);
    }

    [Fact]
    public void Who_left_earlier_may_not_escalate() =>
        GivenMountedFor(A, B).When(Detach(A)).When(Detach(B)).IsRecorded(Removed(B), UnmountRequested())
            .When(Detach(A, UnmountMode.Lazy)).NothingIsRecorded()
            .When(Detach(B, UnmountMode.Lazy)).IsRecorded(UnmountRequested(UnmountMode.Lazy));

    [Fact]
    public void After_the_mount_was_kept_the_earlier_last_holder_may_not_escalate()
    {
        GivenLeaving().When(Attach(B)).When(Detach(A, UnmountMode.Lazy)).IsRejected<Rejection.InUse>("in-use");
        GivenLeaving().When(Attach(B)).When(Detach(B)).When(Detach(A, UnmountMode.Lazy)).NothingIsRecorded();
    }

    [Theory]
    [InlineData(UnmountMode.Lazy)]
    [InlineData(UnmountMode.Force)]
    public void With_others_present_a_mode_is_refused(UnmountMode mode)
    {
        var refused = GivenMountedFor(A, B, C).When(Detach(A, mode)).IsRejected<Rejection.InUse>("in-use");

        Assert.Equal(2, refused.OtherHolders);
        Assert.Contains("2 other attachments", refused.Message, StringComparison.Ordinal);
        Assert.Contains("1 other attachment:", new Rejection.InUse(Mountpoint, 1).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_second_detach_of_the_same_pair_is_a_noop() =>
        GivenMountedFor(A, B).When(Detach(A)).When(Detach(A)).NothingIsRecorded().IsHeldBy(B);

    [Fact]
    public void Once_it_is_gone_the_last_holder_has_nothing_to_escalate() =>
        GivenLeaving().Then(UnmountStarted(), Unmounted()).When(Detach(A, UnmountMode.Force)).NothingIsRecorded();
}
