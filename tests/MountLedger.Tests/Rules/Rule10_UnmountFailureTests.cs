using static MountLedger.Tests.Rules.Scenario;
using static MountLedger.Tests.Rules.Vocabulary;

namespace MountLedger.Tests.Rules;

/// <summary>Rule 10: a busy unmount is told at once with its holders and tried again; a new attach keeps the mount.</summary>
public sealed class Rule10_UnmountFailureTests
{
    private static readonly DateTimeOffset Now = Start.AddMinutes(5);

    [Fact]
    public void A_busy_unmount_is_told_at_once_and_tried_again() =>
        GivenLeaving().Then(UnmountStarted()).WhenRecorded(state => OutcomeRules.UnmountFailed(state, Busy, Now))
            .IsRecorded(UnmountFailed(1, Now.AddSeconds(0.5))).HasPhase(Phase.Unmounting)
            .NextIs(ActionKind.Unmount, Now.AddSeconds(0.5)).IsToldOfFailure("EBUSY", Detach(A), 6);

    [Fact]
    public void The_caller_is_told_which_processes_hold_it() => Assert.Equal(
        Busy.Holders, GivenLeaving().Then(UnmountStarted(), UnmountFailed()).State.Error!.Holders);

    [Fact]
    public void Failures_are_counted_up_to_two_minutes()
    {
        var scenario = GivenLeaving();
        foreach (var (attempt, seconds) in new[] { (1, 0.5), (2, 1.0), (3, 2.0) })
        {
            scenario.Then(UnmountStarted()).WhenRecorded(state => OutcomeRules.UnmountFailed(state, Busy, Now))
                .IsRecorded(UnmountFailed(attempt, Now.AddSeconds(seconds)));
        }
        scenario.Then(UnmountStarted(), UnmountFailed(40, Now), UnmountStarted())
            .WhenRecorded(state => OutcomeRules.UnmountFailed(state, Busy, Now)).IsRecorded(UnmountFailed(41, Now.AddMinutes(2)));
    }

    [Fact]
    public void A_new_attach_keeps_a_busy_mount() => GivenLeaving().Then(UnmountStarted(), UnmountFailed(1, Now)).When(Attach(B))
        .IsRecorded(Added(B), Kept()).HasPhase(Phase.Mounted).IsConfirmed(B).NextIs(ActionKind.None);

    [Fact]
    public void A_kept_mount_has_no_error_and_the_next_unmount_starts_counting_anew()
    {
        var scenario = GivenLeaving().Then(UnmountStarted(), UnmountFailed(5, Now)).When(Attach(B));

        Assert.Null(scenario.State.Error);
        scenario.When(Detach(B)).NextIs(ActionKind.Unmount).Then(UnmountStarted())
            .WhenRecorded(state => OutcomeRules.UnmountFailed(state, Busy, Now)).IsRecorded(UnmountFailed(1, Now.AddSeconds(0.5)));
    }

    [Fact]
    public void A_retry_that_succeeds_ends_the_matter()
    {
        var state = GivenLeaving().Then(UnmountStarted(), UnmountFailed(1, Now), UnmountStarted(), Unmounted())
            .HasPhase(Phase.Absent).NextIs(ActionKind.None).State;

        Assert.Null(state.Error);
    }

    [Fact]
    public void An_older_failure_answers_nobody_who_came_later() =>
        GivenLeaving().Then(UnmountStarted(), UnmountFailed(1, Now)).IsNotAnsweredYet(Detach(A), 8);

    [Fact]
    public void A_busy_mount_that_goes_missing_is_not_busy_any_more()
    {
        var state = GivenLeaving().Then(UnmountStarted(), UnmountFailed(1, Now), Drift(DriftKind.Missing)).State;

        Assert.Null(state.Error);
        Assert.Null(state.UnmountWanted);
        Assert.Equal(ActionKind.None, MountFlow.NextAction(state).Kind);
    }
}
