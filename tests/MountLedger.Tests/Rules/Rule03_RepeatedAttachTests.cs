using static MountLedger.Tests.Rules.Scenario;
using static MountLedger.Tests.Rules.Vocabulary;

namespace MountLedger.Tests.Rules;

/// <summary>Rule 3: the same (volume, consumer) again is no event, and gets the same answer.</summary>
public sealed class Rule03_RepeatedAttachTests
{
    [Fact]
    public void A_repeat_of_the_first_attach_is_answered_as_the_first() =>
        GivenMountedFor(A, B).When(Attach(A)).NothingIsRecorded().IsAnswered(Outcome.Mounted);

    [Fact]
    public void A_repeat_of_a_further_attach_is_answered_as_that_one() =>
        GivenMountedFor(A, B).When(Attach(B)).NothingIsRecorded().IsAnswered(Outcome.Attached);

    [Fact]
    public void A_repeat_before_the_start_waits_for_the_mount() =>
        Given(Requested(), Added(A)).When(Attach(A)).NothingIsRecorded().IsNotAnsweredYet().NextIs(ActionKind.Mount);

    [Fact]
    public void A_repeat_while_mounting_waits_for_the_same_mount() =>
        Given(Requested(), Added(A), MountStarted()).When(Attach(A)).NothingIsRecorded().IsNotAnsweredYet()
            .Then(Mounted()).IsAnswered(Outcome.Mounted, version: 3);

    [Fact]
    public void A_repeat_while_an_unmount_is_in_flight_waits_for_its_outcome() =>
        GivenLeaving().Then(UnmountStarted(), Added(B)).When(Attach(B)).NothingIsRecorded().IsNotAnsweredYet();

    [Fact]
    public void A_repeat_while_another_spec_is_unmounted_waits_for_its_own() =>
        GivenLeaving().When(Attach(B, OtherSpec)).When(Attach(B, OtherSpec)).NothingIsRecorded().IsNotAnsweredYet()
            .NextIs(ActionKind.Unmount);

    [Fact]
    public void A_repeat_after_a_failure_waits_for_the_next_try() =>
        Given(Requested(), Added(A, OnFailure.Retry), MountStarted(), MountFailed(1, Start.AddMinutes(1)))
            .HasPhase(Phase.Failed).When(Attach(A, onFailure: OnFailure.Retry)).NothingIsRecorded().IsNotAnsweredYet();

    [Fact]
    public void A_repeat_while_uncertain_waits_until_it_is_settled() =>
        Given(Requested(), Added(A), MountStarted(), Uncertain(OperationKind.Mount))
            .When(Attach(A)).NothingIsRecorded().IsNotAnsweredYet().HasPhase(Phase.Uncertain);

    [Fact]
    public void A_repeat_while_the_mount_is_missing_waits_for_the_repair() =>
        GivenMountedFor(A).Then(Drift(DriftKind.Missing)).When(Attach(A)).NothingIsRecorded().IsNotAnsweredYet();

    [Fact]
    public void A_repeat_of_an_adopting_attach_is_answered_as_the_first() =>
        GivenAdoptedFor(A).When(Attach(A)).NothingIsRecorded().IsAnswered(Outcome.Mounted);

    [Fact]
    public void A_repeat_does_not_change_what_happens_on_failure() => Assert.Equal(
        OnFailure.Forget,
        Given(Requested(), Added(A)).When(Attach(A, onFailure: OnFailure.Retry)).NothingIsRecorded().State.Attachments[A].OnFailure);

    [Fact]
    public void After_a_detach_the_same_pair_is_attached_anew() =>
        GivenMountedFor(A, B).When(Detach(A)).When(Attach(A)).IsRecorded(Added(A)).IsAnswered(Outcome.Attached);

    [Fact]
    public void An_added_attachment_that_is_there_already_is_folded_as_nothing() =>
        Assert.Equal(Start.AddSeconds(2), GivenMountedFor(A).Then(Added(A, OnFailure.Retry)).State.Attachments[A].Since);
}
