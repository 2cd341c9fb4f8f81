using static MountLedger.Tests.Rules.Scenario;
using static MountLedger.Tests.Rules.Vocabulary;

namespace MountLedger.Tests.Rules;

/// <summary>What section 6 adds to the rules: drift and its repair, and events that do not fit.</summary>
public sealed class DriftTests
{
    [Fact]
    public void A_missing_mount_is_mounted_again_while_somebody_needs_it()
    {
        var state = GivenMountedFor(A).Then(Drift(DriftKind.Missing, "unmounted by somebody else")).IsConfirmed(A)
            .NextIs(ActionKind.Mount).Then(MountStarted(1, Id + 1))
            .WhenRecorded(state => OutcomeRules.Mounted(state, Kernel, Id + 1, []))
            .IsRecorded(Mounted(Id + 1), Resolved(DriftKind.Missing, "mounted again")).NextIs(ActionKind.None).State;

        Assert.Empty(state.Drift);
    }

    [Fact]
    public void A_repair_that_is_paused_waits_until_it_is_resumed() =>
        GivenMountedFor(A).Then(Paused(), Drift(DriftKind.Missing)).NextIs(ActionKind.None)
            .Then(Resumed()).NextIs(ActionKind.Mount);

    [Fact]
    public void A_pause_does_not_concern_a_mount_that_was_never_there() =>
        Given(Paused(), Requested(), Added(A)).NextIs(ActionKind.Mount);

    [Theory]
    [InlineData(DriftKind.SourceMismatch)]
    [InlineData(DriftKind.OptionsMismatch)]
    [InlineData(DriftKind.Stacked)]
    [InlineData(DriftKind.Moved)]
    [InlineData(DriftKind.Stale)]
    [InlineData(DriftKind.ShadowedData)]
    [InlineData(DriftKind.LedgerBehind)]
    public void Other_drift_is_reported_and_not_repaired(DriftKind kind)
    {
        var scenario = GivenMountedFor(A).Then(Drift(kind, "detail")).HasPhase(Phase.Mounted).NextIs(ActionKind.None);

        Assert.Equal("detail", scenario.State.Drift[kind]);
        Assert.Empty(scenario.Then(Resolved(kind)).State.Drift);
    }

    [Fact]
    public void A_mount_that_vanishes_during_an_operation_is_left_to_that_operation() =>
        Assert.NotNull(GivenLeaving().Then(UnmountStarted(), Drift(DriftKind.Missing)).NextIs(ActionKind.Settle).State.Kernel);

    [Fact]
    public void An_event_of_a_newer_program_counts_and_changes_nothing() =>
        Assert.Equal(5, GivenMountedFor(A).Then(new MountEvent.Unrecognised("mount_teleported", "{}")).HasPhase(Phase.Mounted).State.Version);

    [Fact]
    public void An_outcome_without_a_request_is_folded_without_a_mount() => Assert.Null(Given(Mounted()).HasPhase(Phase.Absent).State.Kernel);

    [Fact]
    public void A_remount_that_failed_leaves_the_mount_and_says_why()
    {
        var state = GivenMountedFor(A).Then(new MountEvent.RemountFailed("EINVAL", "refused")).HasPhase(Phase.Mounted).State;

        Assert.Equal((OperationKind.Remount, "EINVAL"), (state.Error!.Operation, state.Error.Errno));
    }

    [Fact]
    public void A_remount_is_the_next_generation() =>
        Assert.Equal(2, GivenMountedFor(A).Then(new MountEvent.Remounted(2)).HasPhase(Phase.Mounted).State.Generation);
}
