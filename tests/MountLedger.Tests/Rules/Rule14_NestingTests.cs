using static MountLedger.Tests.Rules.Scenario;
using static MountLedger.Tests.Rules.Vocabulary;

namespace MountLedger.Tests.Rules;

/// <summary>Rule 14: a mount that would hide a managed one below it is refused. The order of operations is the gate's.</summary>
public sealed class Rule14_NestingTests
{
    private static readonly DecisionContext Nested = Free with { HiddenDescendant = "/srv/ml/a/b" };

    [Fact]
    public void A_mount_that_would_hide_a_managed_one_is_refused()
    {
        var refused = Given().When(Attach(A), Nested).IsRejected<Rejection.WouldHide>("would-hide");

        Assert.Equal((Mountpoint, "/srv/ml/a/b"), (refused.Mountpoint, refused.Descendant));
        Assert.Contains("hide the managed mountpoint /srv/ml/a/b", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_further_attach_to_a_mounted_parent_hides_nothing() => GivenMountedFor(A).When(Attach(B), Nested).IsRecorded(Added(B));

    [Fact]
    public void A_repeat_on_a_mounted_parent_hides_nothing() => GivenMountedFor(A).When(Attach(A), Nested).NothingIsRecorded();

    [Fact]
    public void Keeping_a_parent_that_is_about_to_go_hides_nothing() =>
        GivenLeaving().When(Attach(B), Nested).IsRecorded(Added(B), Kept());

    [Fact]
    public void A_parent_with_mounts_below_may_be_detached() =>
        GivenMountedFor(A).When(Detach(A), Nested).IsRecorded(Removed(A), UnmountRequested());

    [Fact]
    public void Where_nothing_is_below_nothing_is_hidden() => Given().When(Attach(A), Free).IsRecorded(Requested(), Added(A));
}
