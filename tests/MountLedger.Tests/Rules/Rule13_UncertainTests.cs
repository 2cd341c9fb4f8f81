using static MountLedger.Tests.Rules.Scenario;
using static MountLedger.Tests.Rules.Vocabulary;

namespace MountLedger.Tests.Rules;

/// <summary>Rule 13: an operation whose outcome nobody knows is looked at, never repeated blindly.</summary>
public sealed class Rule13_UncertainTests
{
    private static readonly ObservedMount Stranger = Seen(Id + 5, "source");

    [Fact]
    public void An_operation_without_an_outcome_is_to_be_settled() =>
        Given(Requested(), Added(A), MountStarted()).NextIs(ActionKind.Settle)
            .Then(Uncertain(OperationKind.Mount)).HasPhase(Phase.Uncertain).NextIs(ActionKind.Settle);

    [Fact]
    public void A_mount_that_is_there_is_mounted() => UncertainMount().WhenRecorded(state => Settle(state, Seen()))
        .IsRecorded(Mounted()).HasPhase(Phase.Mounted).IsConfirmed(A).IsAnswered(Outcome.Mounted, Attach(A), 3);

    [Fact]
    public void A_mount_that_is_there_owns_what_it_was_going_to_create() => Assert.Equal(
        ["/srv/ml/a"],
        Given(Requested(), Added(A), MountStarted(1, Id, "/srv/ml/a"), Uncertain(OperationKind.Mount))
            .WhenRecorded(state => Settle(state, Seen())).IsRecorded(Mounted(Id, "/srv/ml/a")).State.OwnedDirectories.AsEnumerable());

    [Fact]
    public void A_mount_that_is_not_there_is_settled_as_absent_and_made() => UncertainMount().WhenRecorded(state => Settle(state))
        .IsRecorded(Settled(OperationKind.Mount, SettledAs.Absent)).HasPhase(Phase.Mounting).NextIs(ActionKind.Mount).IsHeldBy(A);

    [Fact]
    public void A_mount_that_is_not_there_may_have_left_its_directories() => Assert.Equal(
        ["/srv/ml/a"],
        Given(Requested(), Added(A), MountStarted(1, Id, "/srv/ml/a"), Uncertain(OperationKind.Mount))
            .WhenRecorded(state => Settle(state)).State.OwnedDirectories.AsEnumerable());

    [Fact]
    public void A_foreign_mount_in_its_place_is_said_to_be_foreign() => UncertainMount().WhenRecorded(state => Settle(state, Stranger))
        .IsRecorded(Settled(OperationKind.Mount, SettledAs.Foreign, "ext4 /dev/sdb1")).NextIs(ActionKind.Mount);

    [Fact]
    public void A_mount_that_looks_the_same_but_has_another_id_is_foreign() =>
        UncertainMount().WhenRecorded(state => Settle(state, Seen(Id + 5)))
            .IsRecorded(Settled(OperationKind.Mount, SettledAs.Foreign, "ext4 /dev/sdb1"));

    [Fact]
    public void A_mount_of_ours_below_a_foreign_one_is_ours() =>
        UncertainMount().WhenRecorded(state => Settle(state, Stranger, Seen())).IsRecorded(Mounted());

    [Fact]
    public void Without_unique_ids_a_matching_mount_of_this_boot_is_ours() =>
        UncertainMount(null).WhenRecorded(state => Settle(state, Seen(null))).IsRecorded(Mounted(null));

    [Fact]
    public void Without_unique_ids_a_mount_that_differs_is_foreign() =>
        UncertainMount(null).WhenRecorded(state => Settle(state, Seen(null, "options")))
            .IsRecorded(Settled(OperationKind.Mount, SettledAs.Foreign, "ext4 /dev/sdb1"));

    [Fact]
    public void An_id_that_was_not_known_before_the_mount_is_learnt_from_the_look() =>
        UncertainMount(null).WhenRecorded(state => Settle(state, Seen(Id + 9))).IsRecorded(Mounted(Id + 9));

    [Theory]
    [InlineData(Id)]
    [InlineData(null)]
    public void After_a_reboot_nothing_is_ours(ulong? id) =>
        UncertainMount(id).WhenRecorded(state => Settled(state, OtherBoot, Seen(id)))
            .IsRecorded(Settled(OperationKind.Mount, SettledAs.Foreign, "ext4 /dev/sdb1"));

    [Fact]
    public void After_a_reboot_the_mount_is_made_again() => UncertainMount().WhenRecorded(state => Settled(state, OtherBoot))
        .IsRecorded(Settled(OperationKind.Mount, SettledAs.Absent)).NextIs(ActionKind.Mount);

    [Fact]
    public void An_unmount_that_took_effect_is_unmounted() => UncertainUnmount().WhenRecorded(state => Settle(state))
        .IsRecorded(Unmounted()).HasPhase(Phase.Absent).NextIs(ActionKind.None).IsAnswered(Outcome.Unmounted, Detach(A), 6);

    [Fact]
    public void An_unmount_that_did_not_take_effect_is_tried_again() => UncertainUnmount().WhenRecorded(state => Settle(state, Seen()))
        .IsRecorded(Settled(OperationKind.Unmount, SettledAs.Mounted)).HasPhase(Phase.Unmounting).NextIs(ActionKind.Unmount)
        .IsNotAnsweredYet(Detach(A), 6);

    [Fact]
    public void An_unmount_below_a_foreign_mount_did_not_take_effect() =>
        UncertainUnmount().WhenRecorded(state => Settle(state, Stranger, Seen()))
            .IsRecorded(Settled(OperationKind.Unmount, SettledAs.Mounted));

    [Fact]
    public void A_foreign_mount_in_its_place_means_that_ours_is_gone() =>
        UncertainUnmount().WhenRecorded(state => Settle(state, Stranger)).IsRecorded(Unmounted()).HasPhase(Phase.Absent);

    [Fact]
    public void Without_unique_ids_an_unmount_is_settled_by_what_matches()
    {
        UncertainUnmount(null).WhenRecorded(state => Settle(state, Seen(null))).IsRecorded(Settled(OperationKind.Unmount, SettledAs.Mounted));
        UncertainUnmount(null).WhenRecorded(state => Settle(state, Seen(null, "source"))).IsRecorded(Unmounted());
    }

    [Fact]
    public void After_a_reboot_an_unmount_has_taken_effect() =>
        UncertainUnmount().WhenRecorded(state => Settled(state, OtherBoot, Seen())).IsRecorded(Unmounted());

    [Fact]
    public void An_unmount_in_flight_may_be_escalated_while_it_is_uncertain() => UncertainUnmount().When(Detach(A, UnmountMode.Force))
        .IsRecorded(UnmountRequested(UnmountMode.Force)).NextIs(ActionKind.Settle)
        .Then(Settled(OperationKind.Unmount, SettledAs.Mounted)).NextIs(ActionKind.Unmount);

    [Fact]
    public void A_repair_that_turns_out_to_have_worked_ends_the_drift() =>
        GivenMountedFor(A).Then(Drift(DriftKind.Missing), MountStarted(1, Id + 1), Uncertain(OperationKind.Mount))
            .WhenRecorded(state => Settle(state, Seen(Id + 1)))
            .IsRecorded(Mounted(Id + 1), Resolved(DriftKind.Missing, "mounted again"));

    [Fact]
    public void A_repair_that_nobody_needs_any_more_ends_the_drift_when_it_did_not_work() =>
        GivenMountedFor(A).Then(Drift(DriftKind.Missing), MountStarted(1, Id + 1), Uncertain(OperationKind.Mount)).When(Detach(A))
            .WhenRecorded(state => Settle(state))
            .IsRecorded(Settled(OperationKind.Mount, SettledAs.Absent), Resolved(DriftKind.Missing, "no longer needed"))
            .HasPhase(Phase.Absent).NextIs(ActionKind.None);

    [Fact]
    public void Without_an_operation_there_is_nothing_to_find_out() => GivenMountedFor(A).WhenRecorded(state => Settle(state, Seen()))
        .IsRecorded(Settled(OperationKind.Mount, SettledAs.Mounted, "no operation is recorded"));

    [Fact]
    public void A_mount_that_is_uncertain_twice_in_a_row_without_effect_has_failed_and_waits_before_the_next_try()
    {
        var twice = GivenMountedFor(A).Then(
            Drift(DriftKind.Missing), MountStarted(1, Id + 1), Uncertain(OperationKind.Mount), Settled(OperationKind.Mount, SettledAs.Absent),
            MountStarted(1, Id + 2), Uncertain(OperationKind.Mount)).State;

        var failed = Assert.IsType<MountEvent.MountFailed>(Settle(twice)[0]);

        Assert.Equal(("ETIMEDOUT", true), (failed.Errno, failed.Transient));
        Assert.Equal(Noon + OutcomeRules.RetryDelay(1), failed.RetryAt);
        Assert.Equal(0, twice.Evolve(failed, twice.Version + 1, Noon, "x").UncertainInARow);
    }

    [Fact]
    public void An_unmount_that_is_uncertain_twice_in_a_row_without_effect_has_failed()
    {
        var twice = UncertainUnmount().Then(
            Settled(OperationKind.Unmount, SettledAs.Mounted), UnmountStarted(UnmountMode.Normal, Id), Uncertain(OperationKind.Unmount)).State;
        Assert.Equal("ETIMEDOUT", Assert.IsType<MountEvent.UnmountFailed>(Settle(twice, Seen())[0]).Errno);
    }

    [Fact]
    public void A_remount_whose_outcome_is_unknown_leaves_the_mount()
    {
        var state = GivenMountedFor(A).State;
        var remounting = state with
        {
            Operation = new Operation(OperationKind.Remount, 4, 1, Spec, Boot, Namespace, Id, UnmountMode.Normal, []),
            Uncertain = true,
        };

        Assert.Equal(
            [Text(Settled(OperationKind.Remount, SettledAs.Mounted))],
            OutcomeRules.Settled(remounting, Found(Seen()), Kernel, Noon).Select(Text));
        Assert.True((remounting with { Uncertain = false }).Holds);
    }

    private static readonly DateTimeOffset Noon = new(2026, 1, 1, 12, 0, 0, TimeSpan.Zero);

    private static Scenario UncertainMount(ulong? id = Id) =>
        Given(Requested(), Added(A), MountStarted(1, id), Uncertain(OperationKind.Mount));

    private static Scenario UncertainUnmount(ulong? id = Id) => Given(
        Requested(), Added(A), MountStarted(1, id), Mounted(id), Removed(A), UnmountRequested(), UnmountStarted(UnmountMode.Normal, id),
        Uncertain(OperationKind.Unmount));

    private static System.Collections.Immutable.ImmutableArray<MountEvent> Settle(MountState state, params ObservedMount[] mounts) =>
        OutcomeRules.Settled(state, Found(mounts), Kernel, Noon);

    private static System.Collections.Immutable.ImmutableArray<MountEvent> Settled(
        MountState state, string boot, params ObservedMount[] mounts) =>
        OutcomeRules.Settled(state, Found(mounts), Kernel with { BootId = boot }, Noon);

    private static MountEvent Settled(OperationKind kind, SettledAs found, string? detail = null) => Vocabulary.Settled(kind, found, detail);
}
