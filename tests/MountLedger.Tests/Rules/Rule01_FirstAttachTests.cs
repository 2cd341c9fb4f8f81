using static MountLedger.Tests.Rules.Scenario;
using static MountLedger.Tests.Rules.Vocabulary;

namespace MountLedger.Tests.Rules;

/// <summary>Rule 1: the first attach asks for the mount, and exactly one is made.</summary>
public sealed class Rule01_FirstAttachTests
{
    [Fact]
    public void A_first_attach_asks_for_a_mount() => Given().When(Attach(A))
        .IsRecorded(Requested(1), Added(A)).HasPhase(Phase.Mounting).NextIs(ActionKind.Mount).IsNotAnsweredYet();

    [Fact]
    public void A_started_mount_is_mounting_and_asks_for_no_second_one() => Given(Requested(), Added(A), MountStarted())
        .HasPhase(Phase.Mounting).NextIs(ActionKind.Settle).IsConfirmed();

    [Fact]
    public void A_mount_that_holds_is_answered_and_confirmed()
    {
        var scenario = Given().When(Attach(A)).Then(MountStarted(), Mounted())
            .HasPhase(Phase.Mounted).NextIs(ActionKind.None).IsAnswered(Outcome.Mounted, version: 2).IsConfirmed(A);

        Assert.Equal(new KernelMount(Boot, Namespace, Id, Spec, Adopted: false), scenario.State.Kernel);
        Assert.Equal((4, 1), (scenario.State.Version, scenario.State.Generation));
    }

    [Fact]
    public void Each_first_attach_is_the_next_generation() =>
        GivenMountedFor(A).Then(Removed(A), UnmountRequested(), UnmountStarted(), Unmounted()).HasPhase(Phase.Absent)
            .When(Attach(B)).IsRecorded(Requested(2), Added(B)).NextIs(ActionKind.Mount);

    [Fact]
    public void A_first_attach_may_ask_for_another_spec_than_the_last_one() =>
        GivenMountedFor(A).Then(Removed(A), UnmountRequested(), UnmountStarted(), Unmounted())
            .When(Attach(A, OtherSpec)).IsRecorded(Requested(2, OtherSpec), Added(A));

    [Fact]
    public void The_database_says_since_when_and_the_events_who()
    {
        var attachment = Given().When(Attach(A, onFailure: OnFailure.Retry)).State.Attachments[A];

        Assert.Equal(new Attachment(A.Volume, A.Consumer, OnFailure.Retry, false, First: true, Start.AddSeconds(2), "root"), attachment);
    }

    [Fact]
    public void A_caller_that_knew_another_version_is_refused()
    {
        var conflict = GivenMountedFor(A).When(Attach(B) with { ExpectedVersion = 3 })
            .IsRejected<Rejection.VersionConflict>("version-conflict");

        Assert.Equal((3, 4), (conflict.Expected, conflict.Actual));
    }

    [Fact]
    public void A_caller_that_knows_the_version_is_served()
    {
        Given().When(Attach(A) with { ExpectedVersion = 0 }).IsRecorded(Requested(), Added(A));
        GivenMountedFor(A).When(Attach(B) with { ExpectedVersion = 4 }).IsRecorded(Added(B));
        GivenMountedFor(A, B).When(Detach(B) with { ExpectedVersion = 5 }).IsRecorded(Removed(B));
    }

    [Fact]
    public void The_version_is_compared_before_anything_else()
    {
        GivenMountedFor(A).When(Attach(A) with { ExpectedVersion = 1 }).IsRejected<Rejection.VersionConflict>("version-conflict");
        GivenMountedFor(A).When(Attach(B, OtherSpec) with { ExpectedVersion = 1 }, Down)
            .IsRejected<Rejection.VersionConflict>("version-conflict");
        GivenMountedFor(A).When(Detach(B) with { ExpectedVersion = 1 }).IsRejected<Rejection.VersionConflict>("version-conflict");
    }

    [Fact]
    public void A_command_that_could_not_be_decided_in_time_names_no_expected_version() => Assert.Contains(
        "version 7", new Rejection.VersionConflict(Mountpoint, null, 7).Message, StringComparison.Ordinal);
}
