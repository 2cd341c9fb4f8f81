using static MountLedger.Tests.Rules.Scenario;
using static MountLedger.Tests.Rules.Vocabulary;

namespace MountLedger.Tests.Rules;

/// <summary>Rule 6: the last detach unmounts once; what was adopted is let go; directories that are ours are looked after.</summary>
public sealed class Rule06_LastDetachTests
{
    [Fact]
    public void The_last_detach_asks_for_an_unmount() => GivenMountedFor(A).When(Detach(A))
        .IsRecorded(Removed(A), UnmountRequested()).HasPhase(Phase.Unmounting).NextIs(ActionKind.Unmount).IsNotAnsweredYet();

    [Fact]
    public void A_started_unmount_asks_for_no_second_one() =>
        GivenLeaving().Then(UnmountStarted()).HasPhase(Phase.Unmounting).NextIs(ActionKind.Settle).IsNotAnsweredYet(Detach(A), 6);

    [Fact]
    public void Once_it_is_unmounted_nothing_is_left()
    {
        var state = GivenMountedFor(A).When(Detach(A)).Then(UnmountStarted(), Unmounted()).HasPhase(Phase.Absent)
            .NextIs(ActionKind.None).IsAnswered(Outcome.Unmounted, version: 6).State;

        Assert.Null(state.Kernel);
        Assert.Null(state.UnmountWanted);
        Assert.Null(state.Operation);
        Assert.Null(state.Error);
    }

    [Fact]
    public void Only_the_last_of_several_unmounts() => GivenMountedFor(A, B, C).When(Detach(B)).IsRecorded(Removed(B))
        .When(Detach(A)).IsRecorded(Removed(A)).When(Detach(C)).IsRecorded(Removed(C), UnmountRequested()).NextIs(ActionKind.Unmount);

    [Theory]
    [InlineData(UnmountMode.Lazy)]
    [InlineData(UnmountMode.Force)]
    public void The_last_holder_may_ask_for_a_mode_at_once(UnmountMode mode) =>
        GivenMountedFor(A).When(Detach(A, mode)).IsRecorded(Removed(A), UnmountRequested(mode)).NextIs(ActionKind.Unmount);

    [Fact]
    public void An_adopted_mount_is_let_go_and_not_unmounted() => GivenAdoptedFor(A).When(Detach(A))
        .IsRecorded(Removed(A), Released()).HasPhase(Phase.Absent).NextIs(ActionKind.None).IsAnswered(Outcome.Detached);

    [Fact]
    public void An_adopted_mount_is_let_go_however_it_is_asked_for() =>
        GivenAdoptedFor(A).When(Detach(A, UnmountMode.Lazy)).IsRecorded(Removed(A), Released());

    [Fact]
    public void That_a_mount_was_let_go_is_answered_so_later_too() => GivenAdoptedFor(A).When(Detach(A))
        .Then(Drift(DriftKind.Foreign)).IsAnswered(Outcome.Detached, version: 5);

    [Fact]
    public void After_a_failed_mount_there_is_nothing_to_unmount() =>
        Given(Requested(), Added(A, OnFailure.Retry), MountStarted(), MountFailed(1, Start.AddMinutes(1))).When(Detach(A))
            .IsRecorded(Removed(A)).HasPhase(Phase.Absent).NextIs(ActionKind.None).IsAnswered(Outcome.Detached);

    [Fact]
    public void Before_the_mount_began_there_is_nothing_to_unmount() =>
        Given(Requested(), Added(A)).When(Detach(A)).IsRecorded(Removed(A)).HasPhase(Phase.Absent).IsAnswered(Outcome.Detached);

    [Fact]
    public void A_mount_in_flight_is_unmounted_once_it_holds() =>
        Given(Requested(), Added(A), MountStarted()).When(Detach(A)).IsRecorded(Removed(A), UnmountRequested())
            .HasPhase(Phase.Mounting).NextIs(ActionKind.Settle).IsNotAnsweredYet()
            .Then(Mounted()).HasPhase(Phase.Unmounting).NextIs(ActionKind.Unmount).IsNotAnsweredYet(version: 5)
            .Then(UnmountStarted(), Unmounted()).IsAnswered(Outcome.Unmounted, version: 5).HasPhase(Phase.Absent);

    [Fact]
    public void A_mount_in_flight_that_fails_leaves_nothing_to_unmount() =>
        Given(Requested(), Added(A), MountStarted()).When(Detach(A))
            .WhenRecorded(state => OutcomeRules.MountFailed(state, Broken, Start)).IsRecorded(MountFailed(1, retryAt: null))
            .HasPhase(Phase.Absent).NextIs(ActionKind.None);

    [Fact]
    public void An_uncertain_mount_is_unmounted_if_it_turns_out_to_be_there() =>
        Given(Requested(), Added(A), MountStarted(), Uncertain(OperationKind.Mount)).When(Detach(A))
            .IsRecorded(Removed(A), UnmountRequested()).NextIs(ActionKind.Settle).IsNotAnsweredYet()
            .Then(Mounted()).NextIs(ActionKind.Unmount);

    [Fact]
    public void A_missing_mount_is_not_missed_any_more_when_the_last_holder_leaves() =>
        GivenMountedFor(A).Then(Drift(DriftKind.Missing)).When(Detach(A))
            .IsRecorded(Removed(A), Resolved(DriftKind.Missing, "no longer needed")).HasPhase(Phase.Absent).IsAnswered(Outcome.Detached);

    [Fact]
    public void A_repair_that_fails_after_the_last_holder_left_is_not_missed_any_more() =>
        GivenMountedFor(A).Then(Drift(DriftKind.Missing), MountStarted()).When(Detach(A)).IsRecorded(Removed(A), UnmountRequested())
            .WhenRecorded(state => OutcomeRules.MountFailed(state, Broken, Start))
            .IsRecorded(MountFailed(1, retryAt: null), Resolved(DriftKind.Missing, "no longer needed")).HasPhase(Phase.Absent);

    [Fact]
    public void A_mountpoint_whose_repair_was_paused_serves_the_next_holder() =>
        GivenMountedFor(A).Then(Drift(DriftKind.Missing), Paused()).NextIs(ActionKind.None)
            .When(Detach(A)).When(Attach(B)).NextIs(ActionKind.Mount);

    [Fact]
    public void Directories_that_were_created_are_ours_until_they_are_removed() => Assert.Equal(
        ["/srv", "/srv/ml", "/srv/ml/a"],
        Given(Requested(), Added(A), MountStarted(1, Id, "/srv", "/srv/ml", "/srv/ml/a"), Mounted(Id, "/srv/ml/a", "/srv", "/srv/ml"))
            .State.OwnedDirectories.AsEnumerable());

    [Fact]
    public void What_was_only_going_to_be_created_is_not_ours() => Assert.Empty(
        Given(Requested(), Added(A), MountStarted(1, Id, "/srv/ml/a"), Mounted()).State.OwnedDirectories.AsEnumerable());

    [Fact]
    public void An_unmount_ends_the_care_for_directories_whether_they_could_be_removed_or_not()
    {
        Assert.Empty(LeavingWithDirectories().Then(UnmountStarted(), Unmounted("/srv/ml/a")).State.OwnedDirectories);
        Assert.Empty(LeavingWithDirectories().Then(UnmountStarted(), Unmounted()).State.OwnedDirectories);
    }

    [Fact]
    public void Directories_stay_ours_when_somebody_attached_during_the_unmount() => Assert.Equal(
        ["/srv/ml"],
        LeavingWithDirectories().Then(UnmountStarted(), Added(B), Unmounted("/srv/ml/a")).State.OwnedDirectories.AsEnumerable());

    [Fact]
    public void A_repaired_mount_adds_to_the_directories_that_are_ours() => Assert.Equal(
        ["/srv/ml", "/srv/ml/a"],
        Given(Requested(), Added(A), MountStarted(), Mounted(Id, "/srv/ml/a"), Drift(DriftKind.Missing), MountStarted(),
            Mounted(Id + 1, "/srv/ml", "/srv/ml/a")).State.OwnedDirectories.AsEnumerable());

    [Fact]
    public void Directories_survive_that_the_mount_goes_missing() => Assert.Equal(
        ["/srv/ml/a"],
        Given(Requested(), Added(A), MountStarted(), Mounted(Id, "/srv/ml/a"), Drift(DriftKind.Missing)).State.OwnedDirectories.AsEnumerable());

    private static Scenario LeavingWithDirectories() => Given(
        Requested(), Added(A), MountStarted(), Mounted(Id, "/srv/ml", "/srv/ml/a"), Removed(A), UnmountRequested());
}
