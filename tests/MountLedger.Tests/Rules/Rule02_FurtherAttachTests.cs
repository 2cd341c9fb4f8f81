using static MountLedger.Tests.Rules.Scenario;
using static MountLedger.Tests.Rules.Vocabulary;

namespace MountLedger.Tests.Rules;

/// <summary>Rule 2: a further attach with the same spec is counted; the kernel has nothing to do.</summary>
public sealed class Rule02_FurtherAttachTests
{
    [Fact]
    public void A_further_attach_is_answered_at_once_while_the_mount_holds() => GivenMountedFor(A).When(Attach(B))
        .IsRecorded(Added(B)).HasPhase(Phase.Mounted).NextIs(ActionKind.None).IsConfirmed(A, B).IsAnswered(Outcome.Attached);

    [Fact]
    public void The_same_consumer_may_need_the_mountpoint_for_another_volume() =>
        GivenMountedFor(A).When(Attach(C)).IsRecorded(Added(C)).IsHeldBy(A, C);

    [Fact]
    public void A_further_attach_waits_for_the_mount_in_flight() => Given(Requested(), Added(A), MountStarted()).When(Attach(B))
        .IsRecorded(Added(B)).IsNotAnsweredYet().IsConfirmed()
        .Then(Mounted()).IsAnswered(Outcome.Attached, version: 4).IsConfirmed(A, B).NextIs(ActionKind.None);

    [Fact]
    public void A_further_attach_before_the_start_waits_for_the_same_mount() => Given(Requested(), Added(A)).When(Attach(B))
        .IsRecorded(Added(B)).NextIs(ActionKind.Mount).IsNotAnsweredYet();

    [Fact]
    public void A_further_attach_waits_while_the_mount_is_uncertain() =>
        Given(Requested(), Added(A), MountStarted(), Uncertain(OperationKind.Mount)).When(Attach(B))
            .IsRecorded(Added(B)).HasPhase(Phase.Uncertain).NextIs(ActionKind.Settle).IsNotAnsweredYet();

    [Fact]
    public void A_further_attach_waits_while_the_mount_is_missing() => GivenMountedFor(A).Then(Drift(DriftKind.Missing)).When(Attach(B))
        .IsRecorded(Added(B)).NextIs(ActionKind.Mount).IsNotAnsweredYet()
        .Then(MountStarted(), Mounted(Id + 1), Resolved(DriftKind.Missing)).IsConfirmed(A, B);

    [Fact]
    public void The_ten_thousand_and_first_attachment_is_refused()
    {
        var full = MountedForMany(MountDecider.AttachmentsMax);

        var refused = full.When(Attach(A)).IsRejected<Rejection.TooManyAttachments>("too-many-attachments");

        Assert.Equal(10_000, refused.Max);
    }

    [Fact]
    public void The_ten_thousandth_attachment_is_accepted() =>
        MountedForMany(MountDecider.AttachmentsMax - 1).When(Attach(A)).IsRecorded(Added(A));

    [Fact]
    public void A_full_mountpoint_still_answers_repeats_and_lets_go()
    {
        var first = new AttachmentKey("vol-0", "vm");

        MountedForMany(MountDecider.AttachmentsMax).When(Attach(first)).NothingIsRecorded().IsAnswered(Outcome.Mounted);
        MountedForMany(MountDecider.AttachmentsMax).When(Detach(first)).IsRecorded(Removed(first))
            .When(Attach(A)).IsRecorded(Added(A));
    }

    private static Scenario MountedForMany(int count) =>
        GivenMountedFor([.. Enumerable.Range(0, count).Select(number => new AttachmentKey($"vol-{number}", "vm"))]);
}
