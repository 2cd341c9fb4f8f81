using static MountLedger.Tests.Rules.Scenario;
using static MountLedger.Tests.Rules.Vocabulary;

namespace MountLedger.Tests.Rules;

/// <summary>Rule 9: who was never confirmed is forgotten with a failed mount unless it asked for retries; callers know at once.</summary>
public sealed class Rule09_MountFailureTests
{
    private static readonly DateTimeOffset Now = Start.AddMinutes(5);

    [Fact]
    public void A_failed_mount_forgets_who_was_never_confirmed() =>
        Given(Requested(), Added(A), MountStarted(), Added(B)).WhenRecorded(Fail)
            .IsRecorded(MountFailed(1, retryAt: null), Removed(A, RemovalReason.MountFailed), Removed(B, RemovalReason.MountFailed))
            .HasPhase(Phase.Absent).NextIs(ActionKind.None)
            .IsToldOfFailure("EIO", Attach(A), 3).IsToldOfFailure("EIO", Attach(B), 4);

    [Fact]
    public void Who_asked_for_retries_stays_and_is_told_at_once() =>
        Given(Requested(), Added(A, OnFailure.Retry), MountStarted()).WhenRecorded(Fail)
            .IsRecorded(MountFailed(1, Now.AddSeconds(0.5))).HasPhase(Phase.Failed).IsHeldBy(A)
            .NextIs(ActionKind.Mount, Now.AddSeconds(0.5)).IsToldOfFailure("EIO", Attach(A, onFailure: OnFailure.Retry), 3);

    [Fact]
    public void One_who_asked_for_retries_does_not_hold_the_others() =>
        Given(Requested(), Added(A), MountStarted(), Added(B, OnFailure.Retry)).WhenRecorded(Fail)
            .IsRecorded(MountFailed(1, Now.AddSeconds(0.5)), Removed(A, RemovalReason.MountFailed)).IsHeldBy(B);

    [Fact]
    public void Confirmed_holders_stay_whatever_happens() =>
        GivenMountedFor(A, B).Then(Drift(DriftKind.Missing), Added(C), MountStarted()).WhenRecorded(Fail)
            .IsRecorded(MountFailed(1, Now.AddSeconds(0.5)), Removed(C, RemovalReason.MountFailed))
            .IsHeldBy(A, B).IsConfirmed(A, B).HasPhase(Phase.Failed).NextIs(ActionKind.Mount, Now.AddSeconds(0.5))
            .IsToldOfFailure("EIO", Attach(C), 7);

    [Fact]
    public void Each_failure_is_counted_and_the_next_try_waits_longer()
    {
        var scenario = Given(Requested(), Added(A, OnFailure.Retry));
        foreach (var (attempt, seconds) in new[] { (1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0) })
        {
            scenario.Then(MountStarted()).WhenRecorded(Fail).IsRecorded(MountFailed(attempt, Now.AddSeconds(seconds)))
                .NextIs(ActionKind.Mount, Now.AddSeconds(seconds));
            Assert.Equal(attempt, scenario.State.Error!.Attempt);
        }
    }

    [Fact]
    public void A_mount_that_failed_before_it_was_started_counts_as_well() =>
        Given(Requested(), Added(A, OnFailure.Retry)).WhenRecorded(state => [MountStarted(), .. Fail(state)])
            .WhenRecorded(state => [MountStarted(), .. Fail(state)]).IsRecorded(MountStarted(), MountFailed(2, Now.AddSeconds(1)))
            .HasPhase(Phase.Failed);

    [Fact]
    public void A_success_ends_the_count() =>
        Given(Requested(), Added(A, OnFailure.Retry), MountStarted(), MountFailed(7, Start), MountStarted(), Mounted())
            .Then(Drift(DriftKind.Missing), MountStarted()).WhenRecorded(Fail).IsRecorded(MountFailed(1, Now.AddSeconds(0.5)));

    [Fact]
    public void A_new_request_ends_the_count() =>
        Given(Requested(), Added(A), MountStarted(), MountFailed(3), Removed(A, RemovalReason.MountFailed)).When(Attach(A))
            .IsRecorded(Requested(2), Added(A)).NextIs(ActionKind.Mount).HasPhase(Phase.Mounting).IsNotAnsweredYet();

    [Fact]
    public void Failed_unmounts_are_not_counted_as_failed_mounts() =>
        GivenLeaving().Then(UnmountStarted(), UnmountFailed(5, Start), UnmountStarted(), Added(B, OnFailure.Retry), Unmounted(), MountStarted())
            .WhenRecorded(Fail).IsRecorded(MountFailed(1, Now.AddSeconds(0.5)));

    [Theory]
    [InlineData(1, 500)]
    [InlineData(2, 1_000)]
    [InlineData(3, 2_000)]
    [InlineData(4, 4_000)]
    [InlineData(5, 8_000)]
    [InlineData(6, 16_000)]
    [InlineData(7, 32_000)]
    [InlineData(8, 64_000)]
    [InlineData(9, 120_000)]
    [InlineData(10, 120_000)]
    [InlineData(100, 120_000)]
    [InlineData(int.MaxValue, 120_000)]
    public void The_delay_doubles_from_half_a_second_to_two_minutes(int attempt, int milliseconds) =>
        Assert.Equal(TimeSpan.FromMilliseconds(milliseconds), OutcomeRules.RetryDelay(attempt));

    [Fact]
    public void A_further_attach_does_not_hurry_the_retry_and_is_told_of_the_next_failure_only() =>
        Given(Requested(), Added(A, OnFailure.Retry), MountStarted(), MountFailed(1, Now)).When(Attach(B))
            .IsRecorded(Added(B)).NextIs(ActionKind.Mount, Now).IsNotAnsweredYet()
            .Then(MountStarted()).WhenRecorded(Fail).IsToldOfFailure("EIO", Attach(B), 5).IsHeldBy(A);

    [Fact]
    public void A_retry_that_succeeds_confirms_everybody() =>
        Given(Requested(), Added(A, OnFailure.Retry), MountStarted(), MountFailed(1, Now), Added(B), MountStarted(), Mounted())
            .IsConfirmed(A, B).IsAnswered(Outcome.Attached, Attach(B), 5).HasPhase(Phase.Mounted);

    [Fact]
    public void The_error_is_kept_with_its_errno_and_the_version_that_recorded_it()
    {
        var error = Given(Requested(), Added(A, OnFailure.Retry), MountStarted()).WhenRecorded(Fail).State.Error!;

        Assert.Equal((OperationKind.Mount, "EIO", Broken.Message, 4), (error.Operation, error.Errno, error.Message, error.AtVersion));
    }

    [Fact]
    public void An_action_is_due_from_its_time_on()
    {
        var next = new NextAction(ActionKind.Mount, Now);

        Assert.False(next.IsDue(Now.AddTicks(-1)));
        Assert.True(next.IsDue(Now));
        Assert.True(new NextAction(ActionKind.Mount).IsDue(Now));
        Assert.False(new NextAction(ActionKind.None).IsDue(Now));
    }

    private static System.Collections.Immutable.ImmutableArray<MountEvent> Fail(MountState state) =>
        OutcomeRules.MountFailed(state, Broken, Now);
}
