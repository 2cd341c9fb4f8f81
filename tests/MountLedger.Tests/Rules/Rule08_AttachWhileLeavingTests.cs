using static MountLedger.Tests.Rules.Scenario;
using static MountLedger.Tests.Rules.Vocabulary;

namespace MountLedger.Tests.Rules;

/// <summary>Rule 8: an attach while an unmount is pending keeps the mount, or waits for the outcome and then has it made again.</summary>
public sealed class Rule08_AttachWhileLeavingTests
{
    [Fact]
    public void Before_the_unmount_begins_the_mount_is_kept() => GivenLeaving().When(Attach(B))
        .IsRecorded(Added(B), Kept()).HasPhase(Phase.Mounted).NextIs(ActionKind.None).IsConfirmed(B).IsAnswered(Outcome.Attached);

    [Fact]
    public void The_one_who_left_may_come_back() =>
        GivenLeaving().When(Attach(A)).IsRecorded(Added(A), Kept()).IsConfirmed(A).IsAnswered(Outcome.Attached);

    [Fact]
    public void The_detacher_is_told_that_it_is_detached_when_the_mount_is_kept() =>
        GivenLeaving().When(Attach(B)).IsAnswered(Outcome.Detached, Detach(A), 6);

    [Fact]
    public void A_detacher_who_came_back_meanwhile_had_been_detached() =>
        GivenLeaving().When(Attach(A)).IsAnswered(Outcome.Detached, Detach(A), 6);

    [Fact]
    public void A_kept_mount_is_unmounted_after_the_next_last_detach() =>
        GivenLeaving().When(Attach(B)).When(Detach(B)).IsRecorded(Removed(B), UnmountRequested()).NextIs(ActionKind.Unmount);

    [Fact]
    public void After_the_unmount_began_an_attach_waits_for_the_outcome() => GivenLeaving().Then(UnmountStarted()).When(Attach(B))
        .IsRecorded(Added(B)).HasPhase(Phase.Unmounting).NextIs(ActionKind.Settle).IsConfirmed().IsNotAnsweredYet();

    [Fact]
    public void When_it_was_unmounted_it_is_mounted_again() =>
        GivenLeaving().Then(UnmountStarted()).When(Attach(B)).Then(Unmounted())
            .HasPhase(Phase.Mounting).NextIs(ActionKind.Mount).IsNotAnsweredYet(version: 8)
            .IsAnswered(Outcome.Detached, Detach(A), 6)
            .Then(MountStarted(), Mounted(Id + 1)).IsConfirmed(B).IsAnswered(Outcome.Mounted, version: 8).NextIs(ActionKind.None);

    [Fact]
    public void When_it_could_not_be_unmounted_it_is_kept() =>
        GivenLeaving().Then(UnmountStarted()).When(Attach(B)).Then(UnmountFailed(1, Start.AddMinutes(1)))
            .NextIs(ActionKind.Keep).IsConfirmed().IsNotAnsweredYet(version: 8)
            .Then(Kept()).HasPhase(Phase.Mounted).NextIs(ActionKind.None).IsConfirmed(B);

    [Fact]
    public void Several_that_wait_for_an_unmount_cause_one_mount() =>
        GivenLeaving().Then(UnmountStarted()).When(Attach(B)).When(Attach(C)).IsRecorded(Added(C)).Then(Unmounted())
            .NextIs(ActionKind.Mount).Then(MountStarted()).NextIs(ActionKind.Settle).Then(Mounted(Id + 1))
            .IsConfirmed(B, C).IsAnswered(Outcome.Attached, Attach(C), 9).NextIs(ActionKind.None);

    [Fact]
    public void Who_waited_and_left_again_leaves_the_unmount_wanted() =>
        GivenLeaving().Then(UnmountStarted()).When(Attach(B)).When(Detach(B)).IsRecorded(Removed(B), UnmountRequested())
            .Then(UnmountFailed(1, Start)).NextIs(ActionKind.Unmount, Start);

    [Fact]
    public void Another_spec_has_the_old_mount_taken_away_first() =>
        GivenLeaving().When(Attach(B, OtherSpec)).IsRecorded(Requested(2, OtherSpec), Added(B))
            .HasPhase(Phase.Unmounting).NextIs(ActionKind.Unmount).IsConfirmed().IsNotAnsweredYet()
            .Then(UnmountStarted(), Unmounted()).NextIs(ActionKind.Mount)
            .Then(MountStarted(2), Mounted(Id + 1)).IsConfirmed(B).IsAnswered(Outcome.Mounted, version: 8);

    [Fact]
    public void Another_spec_during_the_unmount_is_mounted_after_it()
    {
        var state = GivenLeaving().Then(UnmountStarted()).When(Attach(B, OtherSpec)).IsRecorded(Requested(2, OtherSpec), Added(B))
            .Then(Unmounted()).NextIs(ActionKind.Mount).Then(MountStarted(2), Mounted(Id + 1)).State;

        Assert.Equal(OtherSpec, state.Kernel!.Spec);
    }

    [Fact]
    public void Another_spec_waits_while_the_old_mount_is_busy() =>
        GivenLeaving().Then(UnmountStarted()).When(Attach(B, OtherSpec)).Then(UnmountFailed(1, Start.AddMinutes(1)))
            .NextIs(ActionKind.Unmount, Start.AddMinutes(1)).IsConfirmed().IsNotAnsweredYet(version: 9);

    [Fact]
    public void Whoever_wants_another_spec_and_leaves_leaves_the_unmount_wanted() =>
        GivenLeaving().When(Attach(B, OtherSpec)).When(Detach(B)).IsRecorded(Removed(B), UnmountRequested()).NextIs(ActionKind.Unmount);

    [Fact]
    public void Back_to_the_spec_that_is_still_mounted_keeps_it() =>
        GivenLeaving().When(Attach(B, OtherSpec)).When(Detach(B)).When(Attach(C))
            .IsRecorded(Requested(3), Added(C), Kept()).IsConfirmed(C).NextIs(ActionKind.None);

    [Fact]
    public void After_a_detach_during_the_mount_an_attach_keeps_what_comes_of_it() =>
        Given(Requested(), Added(A), MountStarted()).When(Detach(A)).When(Attach(B)).IsRecorded(Added(B))
            .Then(Mounted()).NextIs(ActionKind.Keep).IsConfirmed()
            .Then(Kept()).IsConfirmed(B).NextIs(ActionKind.None);

    [Fact]
    public void Another_spec_during_a_mount_that_nobody_wants_replaces_what_comes_of_it()
    {
        var scenario = Given(Requested(), Added(A), MountStarted()).When(Detach(A)).When(Attach(B, OtherSpec))
            .IsRecorded(Requested(2, OtherSpec), Added(B)).Then(Mounted());

        Assert.Equal(Spec, scenario.State.Kernel!.Spec); // What was started, not what is wanted by now.
        scenario.IsConfirmed().NextIs(ActionKind.Unmount).Then(UnmountStarted(), Unmounted()).NextIs(ActionKind.Mount);
    }

    [Fact]
    public void The_failure_of_a_mount_that_nobody_wants_any_more_is_not_that_of_the_next_spec() =>
        Given(Requested(), Added(A), MountStarted()).When(Detach(A)).When(Attach(B, OtherSpec))
            .WhenRecorded(state => OutcomeRules.MountFailed(state, Broken, Start)).IsRecorded(MountFailed(1, retryAt: null))
            .IsHeldBy(B).HasPhase(Phase.Mounting).NextIs(ActionKind.Mount).IsNotAnsweredYet(Attach(B, OtherSpec), 7);

    [Fact]
    public void While_uncertain_an_attach_waits_and_keeps_or_mounts_afterwards()
    {
        GivenLeaving().Then(UnmountStarted(), Uncertain(OperationKind.Unmount)).When(Attach(B)).IsRecorded(Added(B))
            .NextIs(ActionKind.Settle).IsNotAnsweredYet()
            .Then(Settled(OperationKind.Unmount, SettledAs.Mounted)).NextIs(ActionKind.Keep);
        GivenLeaving().Then(UnmountStarted(), Uncertain(OperationKind.Unmount)).When(Attach(B)).Then(Unmounted()).NextIs(ActionKind.Mount);
    }
}
