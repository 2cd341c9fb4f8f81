using System.Collections.Immutable;
using static MountLedger.Tests.Rules.Scenario;
using static MountLedger.Tests.Rules.Vocabulary;

namespace MountLedger.Tests.Rules;

/// <summary>What a look at the kernel comes to: which differences are recorded, once, and which are over.</summary>
public sealed class DriftRulesTests
{
    private static readonly ObservedMount Ours = At(Mountpoint, Id, "tmpfs", "tmpfs");

    private static readonly ObservedMount Stranger = At(Mountpoint, Id + 9, "ext4", "/dev/sdb1") with { Differences = ["source", "fstype"] };

    [Fact]
    public void A_mount_that_is_as_it_should_be_is_no_event() => Assert.Empty(Look(GivenMountedFor(A).State, Ours));

    [Fact]
    public void A_mount_that_is_gone_is_missing_and_a_second_look_records_nothing()
    {
        var missing = Look(GivenMountedFor(A).State);
        Assert.Equal(Drift(DriftKind.Missing, "unmounted by somebody else"), Assert.Single(missing));

        Assert.Empty(Look(GivenMountedFor(A).Then([.. missing]).State));
    }

    [Fact]
    public void A_mount_that_the_ledger_believes_in_is_missing_whatever_the_list_says() => Assert.Equal(
        DriftKind.Missing,
        Assert.IsType<MountEvent.DriftDetected>(Assert.Single(Look(GivenMountedFor(A).State with
        {
            Drift = System.Collections.Immutable.ImmutableSortedDictionary<DriftKind, string?>.Empty.Add(DriftKind.Missing, null),
        }))).Kind);

    [Fact]
    public void The_password_in_a_strangers_source_is_not_recorded()
    {
        var share = At(Mountpoint, Id + 9, "cifs", "//u:hunter2@server/share") with { Differences = ["source", "fstype"] };
        var covered = Assert.IsType<MountEvent.DriftDetected>(Assert.Single(Look(GivenMountedFor(A).State, share, Ours)));
        Assert.Equal("cifs <masked> is mounted over it", covered.Detail);
    }

    [Fact]
    public void After_a_reboot_it_is_missing_whatever_has_its_number() => Assert.Equal(
        Drift(DriftKind.Missing, "the machine was rebooted"),
        Assert.Single(Look(GivenMountedFor(A).State, Kernel with { BootId = OtherBoot }, null, Ours)));

    [Fact]
    public void In_another_mount_namespace_it_is_missing() => Assert.Contains(
        "another mount namespace",
        Assert.IsType<MountEvent.DriftDetected>(
            Assert.Single(Look(GivenMountedFor(A).State, Kernel with { MountNamespaceId = Namespace + 1 }, null))).Detail,
        StringComparison.Ordinal);

    [Fact]
    public void What_nobody_needs_any_more_is_not_missing() =>
        Assert.Equal(
            SettledAs.Absent, Assert.IsType<MountEvent.OperationSettled>(Assert.Single(Look(GivenLeaving().State))).Found);

    [Fact]
    public void A_covered_mount_is_stacked_until_nothing_covers_it()
    {
        var covered = Look(GivenMountedFor(A).State, Stranger, Ours);
        Assert.Equal(DriftKind.Stacked, Assert.IsType<MountEvent.DriftDetected>(Assert.Single(covered)).Kind);

        var state = GivenMountedFor(A).Then([.. covered]).State;
        Assert.Empty(Look(state, Stranger, Ours));
        Assert.Equal(DriftKind.Stacked, Assert.IsType<MountEvent.DriftResolved>(Assert.Single(Look(state, Ours))).Kind);
    }

    [Fact]
    public void A_moved_mount_is_moved_and_not_missing_until_it_is_back()
    {
        var moved = Look(GivenMountedFor(A).State, Kernel, At("/elsewhere", Id, "tmpfs", "tmpfs"));
        Assert.Equal(Drift(DriftKind.Moved, "now at /elsewhere"), Assert.Single(moved));
        Assert.Equal(
            Resolved(DriftKind.Moved, "back in place"), Assert.Single(Look(GivenMountedFor(A).Then([.. moved]).State, Ours)));
    }

    [Fact]
    public void A_mount_that_moves_back_while_it_is_looked_for_is_no_event() =>
        Assert.Empty(Look(GivenMountedFor(A).State, Kernel, Ours));

    [Fact]
    public void What_took_its_place_is_reported_beside_what_is_missing() => Assert.Equal(
        [DriftKind.Missing, DriftKind.SourceMismatch],
        Look(GivenMountedFor(A).State, Stranger).Cast<MountEvent.DriftDetected>().Select(change => change.Kind));

    [Fact]
    public void A_mount_nobody_asked_for_is_foreign_below_a_root_only()
    {
        Assert.Equal(Drift(DriftKind.Foreign, "ext4 /dev/sdb1"), Assert.Single(Look(Given().State, Stranger)));
        Assert.Empty(DriftRules.Compare(Given().State, new DriftSight(Found(Stranger)), Kernel, mayBeForeign: false));
    }

    [Fact]
    public void An_operation_in_flight_or_uncertain_is_no_drift()
    {
        Assert.Empty(Look(GivenLeaving().Then(UnmountStarted()).State));
        Assert.Empty(Look(Given(Requested(), Added(A), MountStarted()).State, Stranger));
        Assert.Empty(Look(Given(Requested(), Added(A), MountStarted(), Uncertain(OperationKind.Mount)).State, Stranger));
    }

    [Fact]
    public void A_first_mount_that_waits_for_its_next_try_is_not_missing() =>
        Assert.Empty(Look(Given(Requested(), Added(A, OnFailure.Retry), MountStarted(), MountFailed(1, Start)).State));

    [Fact]
    public void Unmounting_ends_whatever_was_wrong() => Assert.Equal(
        Resolved(DriftKind.OptionsMismatch, "unmounted"),
        Assert.Single(OutcomeRules.Unmounted(GivenMountedFor(A).Then(Drift(DriftKind.OptionsMismatch)).State, released: false, []), change =>
            change is not MountEvent.Unmounted));

    [Fact]
    public void Data_below_holds_the_repair_up_until_it_is_settled()
    {
        var missing = Given(Requested(), Added(A), MountStarted(), new MountEvent.Mounted(Boot, Namespace, Id, [], OverEmptyDirectory: true))
            .Then(Drift(DriftKind.Missing));
        Assert.True(DriftRules.MayShadowData(missing.State));

        var shadowed = missing.Then(Drift(DriftKind.ShadowedData)).NextIs(ActionKind.None);
        Assert.False(DriftRules.MayShadowData(shadowed.State));
        Assert.False(DriftRules.MayShadowData(shadowed.Then(Resolved(DriftKind.ShadowedData)).NextIs(ActionKind.Mount).State));
    }

    [Theory]
    [InlineData("nodev,nosuid", "rw,nosuid,nodev,relatime", "rw", null)]
    [InlineData("nodev,nosuid", "ro,nosuid,nodev,relatime", "rw", "with ro")]
    [InlineData("nodev,nosuid,ro", "rw,nosuid,nodev,relatime", "rw", "without ro")]
    [InlineData("nodev,nosuid", "rw,nodev,relatime", "rw", "without nosuid")]
    [InlineData("nodev,nosuid", "rw,nosuid,nodev,noexec,relatime", "rw", "with noexec")]
    [InlineData("nodev,nosuid,strictatime", "rw,nosuid,nodev,relatime", "rw", "without strictatime")]
    [InlineData("nodev,nosuid,size=1g", "rw,nosuid,nodev,relatime", "rw,size=1048576k,inode64", null)]
    [InlineData("nodev,nosuid,size=1g", "rw,nosuid,nodev,relatime", "rw,size=2097152k", "instead of size=1g")]
    [InlineData("nodev,nosuid,size=50%", "rw,nosuid,nodev,relatime", "rw,size=512k", null)]
    [InlineData("mode=0755,nodev,nosuid", "rw,nosuid,nodev,relatime", "rw,mode=755", null)]
    [InlineData("nodev,nosuid,size=1g", "rw,nosuid,nodev,relatime", "rw", null)]
    [InlineData("nodev,nosuid", "rw,nosuid,nodev,relatime", "ro", "read-only")]
    public void Options_differ_only_in_what_the_kernel_is_sure_to_show(string wanted, string mount, string super, string? differs)
    {
        var found = Ours with { MountOptions = [.. mount.Split(',')], SuperOptions = [.. super.Split(',')] };

        var said = OptionDrift.Between(new MountSpec("tmpfs", "tmpfs", [.. wanted.Split(',')]), found, adopted: false);

        if (differs is null) Assert.Null(said);
        else Assert.Contains(differs, said, StringComparison.Ordinal);
    }

    [Fact]
    public void What_a_stranger_added_to_a_mount_that_was_adopted_is_no_drift()
    {
        var found = Ours with { MountOptions = ["rw", "nosuid", "nodev", "noatime"] };
        Assert.NotNull(OptionDrift.Between(Spec, found, adopted: false));
        Assert.Null(OptionDrift.Between(Spec, found, adopted: true));
    }

    [Theory]
    [InlineData(DriftKind.Missing, RepairKind.Mount)]
    [InlineData(DriftKind.ShadowedData, RepairKind.Mount)]
    [InlineData(DriftKind.Stacked, RepairKind.UnmountStrangers)]
    [InlineData(DriftKind.SourceMismatch, RepairKind.UnmountStrangers)]
    [InlineData(DriftKind.OptionsMismatch, RepairKind.Leave)]
    [InlineData(DriftKind.Moved, RepairKind.Leave)]
    [InlineData(DriftKind.Foreign, RepairKind.Leave)]
    [InlineData(DriftKind.Stale, RepairKind.Leave)]
    [InlineData(DriftKind.LedgerBehind, RepairKind.Leave)]
    public void A_repair_follows_from_the_kind_and_none_while_it_is_paused(DriftKind drift, RepairKind repair)
    {
        var state = GivenMountedFor(A).State;
        Assert.Equal(repair, RepairRules.Plan(state, drift, hostIsUp: true).Kind);
        Assert.Equal(RepairKind.Leave, RepairRules.Plan(state with { RepairPaused = true }, drift, hostIsUp: true).Kind);
    }

    [Fact]
    public void A_stale_mount_that_nobody_needs_is_unmounted_when_an_operator_says_so() =>
        Assert.Equal(RepairKind.Unmount, RepairRules.Plan(
            GivenMountedFor(A).Then(Removed(A)).State, DriftKind.Stale, hostIsUp: false).Kind);

    [Fact]
    public void A_dead_server_is_stale_once_another_error_is_told_again_and_an_answer_ends_it()
    {
        var state = GivenMountedFor(A);
        var dead = Assert.IsType<MountEvent.DriftDetected>(Assert.Single(Asked(state.State, "ENOTCONN")));
        Assert.StartsWith("ENOTCONN: its server has ended", dead.Detail, StringComparison.Ordinal);
        var stale = state.Then(dead);

        Assert.Empty(Asked(stale.State, "ENOTCONN"));
        Assert.Empty(Look(stale.State, Ours));
        Assert.StartsWith("ESTALE", Assert.IsType<MountEvent.DriftDetected>(Assert.Single(Asked(stale.State, "ESTALE"))).Detail, StringComparison.Ordinal);
        Assert.Equal(Resolved(DriftKind.Stale, "it answers again"), Assert.Single(Asked(stale.State, null)));
        Assert.Equal(ActionKind.None, MountFlow.NextAction(stale.State).Kind);
    }

    [Fact]
    public void An_error_that_is_no_server_s_death_tells_nothing_in_either_direction()
    {
        Assert.Empty(Asked(GivenMountedFor(A).State, "EACCES"));
        Assert.Empty(Asked(GivenMountedFor(A).Then(Drift(DriftKind.Stale, "ENOTCONN")).State, "EACCES"));
    }

    [Fact]
    public void Through_a_mount_that_covers_ours_nothing_is_learnt_of_ours() => Assert.Equal(
        DriftKind.Stacked,
        Assert.IsType<MountEvent.DriftDetected>(Assert.Single(DriftRules.Compare(
            GivenMountedFor(A).State, new DriftSight(Found(Stranger, Ours)) { Server = new ServerAnswer("ENOTCONN") }, Kernel, mayBeForeign: true))).Kind);

    [Fact]
    public void A_stale_mount_that_is_gone_is_missing_and_no_longer_stale()
    {
        var stale = GivenMountedFor(A).Then(Drift(DriftKind.Stale, "ENOTCONN"));
        Assert.Equal(
            [Drift(DriftKind.Missing, "unmounted by somebody else"), Resolved(DriftKind.Stale, "its mount is gone")], Look(stale.State).AsEnumerable());
        // Also when somebody has recorded it as missing alone.
        Assert.Equal(
            Resolved(DriftKind.Stale, "its mount is gone"), Assert.Single(Look(stale.Then(Drift(DriftKind.Missing, "gone")).State)));
    }

    [Fact]
    public void Nothing_is_mounted_again_on_a_host_that_is_down() =>
        Assert.Equal(RepairKind.Leave, RepairRules.Plan(GivenMountedFor(A).State, DriftKind.Missing, hostIsUp: false).Kind);

    [Fact]
    public void A_synchronisation_leaves_an_attachment_that_is_newer_than_its_list()
    {
        var state = GivenMountedFor(A, B).State;
        var since = state.Attachments[A].Since;
        Decision Sync(DateTimeOffset asOf) => MountDecider.Decide(Detach(A) with { SyncedAsOf = asOf }, state, Free);

        Assert.Empty(Assert.IsType<Decision.Accept>(Sync(since)).Events);
        Assert.Equal([Removed(A, RemovalReason.Synced)], Assert.IsType<Decision.Accept>(Sync(since.AddTicks(10))).Events.AsEnumerable());
    }

    private static ImmutableArray<MountEvent> Asked(MountState state, string? errno) =>
        DriftRules.Compare(state, new DriftSight(Found(Ours)) { Server = new ServerAnswer(errno) }, Kernel, mayBeForeign: true);

    private static ImmutableArray<MountEvent> Look(MountState state, params ObservedMount[] mounts) => Look(state, Kernel, null, mounts);

    private static ImmutableArray<MountEvent> Look(
        MountState state, KernelIdentity kernel, ObservedMount? elsewhere, params ObservedMount[] mounts) =>
        DriftRules.Compare(state, new DriftSight(Found(mounts), elsewhere), kernel, mayBeForeign: true);

    private static ObservedMount At(string path, ulong id, string type, string source) =>
        new(id, 30, 20, path, type, source, "/", ["rw", "nosuid", "nodev", "relatime"], ["rw"], []);
}
