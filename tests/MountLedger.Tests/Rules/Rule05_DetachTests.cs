using static MountLedger.Tests.Rules.Scenario;
using static MountLedger.Tests.Rules.Vocabulary;

namespace MountLedger.Tests.Rules;

/// <summary>Rule 5: a detach that leaves others is recorded, and the kernel has nothing to do.</summary>
public sealed class Rule05_DetachTests
{
    [Fact]
    public void A_detach_that_leaves_others_touches_nothing() => GivenMountedFor(A, B).When(Detach(A))
        .IsRecorded(Removed(A)).HasPhase(Phase.Mounted).NextIs(ActionKind.None).IsHeldBy(B).IsConfirmed(B).IsAnswered(Outcome.Detached);

    [Fact]
    public void Another_volume_of_the_same_consumer_stays() =>
        GivenMountedFor(A, C).When(Detach(A)).IsRecorded(Removed(A)).IsHeldBy(C);

    [Fact]
    public void A_detach_while_mounting_leaves_the_others_waiting() =>
        Given(Requested(), Added(A), MountStarted(), Added(B)).When(Detach(A))
            .IsRecorded(Removed(A)).IsAnswered(Outcome.Detached).HasPhase(Phase.Mounting)
            .Then(Mounted()).IsConfirmed(B).NextIs(ActionKind.None);

    [Fact]
    public void A_detach_while_others_wait_for_an_unmount_in_flight_leaves_them() =>
        GivenLeaving().Then(UnmountStarted(), Added(B), Added(C)).When(Detach(B)).IsRecorded(Removed(B)).IsHeldBy(C);

    [Fact]
    public void A_mount_caller_whose_attachment_was_taken_away_meanwhile_is_told_so() =>
        Given(Requested(), Added(A), MountStarted(), Added(B)).When(Detach(B)).IsToldOfFailure("ECANCELED", Attach(B), 4);

    [Fact]
    public void Removing_who_is_not_there_is_folded_as_nothing() => GivenMountedFor(A).Then(Removed(B)).IsHeldBy(A).HasPhase(Phase.Mounted);
}
