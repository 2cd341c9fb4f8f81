using static MountLedger.Tests.Rules.Scenario;
using static MountLedger.Tests.Rules.Vocabulary;

namespace MountLedger.Tests.Rules;

/// <summary>Rule 11: what is mounted at the path already is adopted if it is what was asked for, else refused.</summary>
public sealed class Rule11_ForeignMountTests
{
    private static readonly DecisionContext Same = Free with { Occupant = Seen() };
    private static readonly DecisionContext Other = Free with { Occupant = Seen(Id, "source", "options") };

    [Fact]
    public void A_matching_mount_is_adopted() => Given().When(Attach(A), Same)
        .IsRecorded(Requested(), Added(A), Adopted()).HasPhase(Phase.Mounted).NextIs(ActionKind.None)
        .IsConfirmed(A).IsAnswered(Outcome.Mounted);

    [Fact]
    public void An_adopted_mount_is_known_to_be_adopted() => Assert.Equal(
        new KernelMount(Boot, Namespace, Id, Spec, Adopted: true), Given().When(Attach(A), Same).State.Kernel);

    [Fact]
    public void A_matching_mount_of_an_older_kernel_is_adopted_without_an_id() =>
        Given().When(Attach(A), Free with { Occupant = Seen(null) }).IsRecorded(Requested(), Added(A), Adopted(null));

    [Fact]
    public void A_mount_that_differs_is_refused_and_left_alone()
    {
        var foreign = Given().When(Attach(A), Other).IsRejected<Rejection.ForeignMount>("foreign-mount");

        Assert.Equal("ext4 /dev/sdb1", foreign.Found);
        Assert.Equal(["source", "options"], foreign.Differing);
        Assert.Contains("differs in source, options", foreign.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_mount_that_was_not_compared_does_not_match() => Assert.False((Seen() with { Differences = null }).Matches);

    [Fact]
    public void A_mount_that_was_not_compared_is_refused() =>
        Given().When(Attach(A), Free with { Occupant = Seen() with { Differences = null } })
            .IsRejected<Rejection.ForeignMount>("foreign-mount");

    [Fact]
    public void Adopting_what_was_reported_as_foreign_ends_the_report()
    {
        var state = Given(Drift(DriftKind.Foreign, "tmpfs")).When(Attach(A), Same)
            .IsRecorded(Requested(), Added(A), Adopted(), Resolved(DriftKind.Foreign, "adopted")).State;

        Assert.Empty(state.Drift);
    }

    [Fact]
    public void The_executor_adopts_in_the_same_way() =>
        Given(Drift(DriftKind.Foreign), Requested(), Added(A)).WhenRecorded(state => OutcomeRules.Adopted(state, Kernel, Id))
            .IsRecorded(Adopted(), Resolved(DriftKind.Foreign, "adopted")).IsConfirmed(A).NextIs(ActionKind.None);

    [Fact]
    public void A_missing_mount_that_somebody_mounted_by_hand_is_adopted() =>
        GivenMountedFor(A).Then(Drift(DriftKind.Missing)).WhenRecorded(state => OutcomeRules.Adopted(state, Kernel, Id + 1))
            .IsRecorded(Adopted(Id + 1), Resolved(DriftKind.Missing, "mounted again")).HasPhase(Phase.Mounted);

    [Fact]
    public void Adopting_calls_off_the_unmount_that_was_wanted() => Assert.Null(
        GivenLeaving().Then(Adopted()).State.UnmountWanted);

    [Fact]
    public void Adopting_at_a_path_that_nobody_ever_wanted_is_folded_as_nothing() =>
        Assert.Null(Given(Adopted()).HasPhase(Phase.Absent).State.Kernel);

    [Fact]
    public void A_mount_that_the_ledger_knows_is_not_foreign() => GivenMountedFor(A).When(Attach(B), Other).IsRecorded(Added(B));

    [Fact]
    public void Another_spec_where_an_adopted_mount_is_waits_until_it_is_let_go() =>
        GivenAdoptedFor(A).Then(Removed(A), UnmountRequested()).When(Attach(B, OtherSpec))
            .IsRecorded(Requested(2, OtherSpec), Added(B)).NextIs(ActionKind.Release)
            .Then(Released()).NextIs(ActionKind.Mount);

    [Fact]
    public void An_adopted_mount_that_nobody_needs_is_released() =>
        GivenAdoptedFor(A).Then(Removed(A)).HasPhase(Phase.Unmounting).NextIs(ActionKind.Release)
            .Then(Released()).HasPhase(Phase.Absent).NextIs(ActionKind.None);
}
