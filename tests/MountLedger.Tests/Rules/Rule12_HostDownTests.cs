using static MountLedger.Tests.Rules.Scenario;
using static MountLedger.Tests.Rules.Vocabulary;

namespace MountLedger.Tests.Rules;

/// <summary>Rule 12: while a host is down nobody attaches; detaches and unmounts work.</summary>
public sealed class Rule12_HostDownTests
{
    [Fact]
    public void A_first_attach_is_refused()
    {
        var refused = Given().When(Attach(A), Down).IsRejected<Rejection.HostUnavailable>("host-unavailable");

        Assert.Equal(("host-1", "disk swap"), (refused.Host, refused.Reason));
        Assert.Contains("(disk swap)", refused.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("(", new Rejection.HostUnavailable("host-1", null).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_further_attach_is_refused() =>
        GivenMountedFor(A).When(Attach(B), Down).IsRejected<Rejection.HostUnavailable>("host-unavailable");

    [Fact]
    public void An_attach_while_leaving_is_refused() =>
        GivenLeaving().When(Attach(A), Down).IsRejected<Rejection.HostUnavailable>("host-unavailable");

    [Fact]
    public void A_repeat_is_answered_as_before() =>
        GivenMountedFor(A).When(Attach(A), Down).NothingIsRecorded().IsAnswered(Outcome.Mounted);

    [Fact]
    public void A_detach_works() => GivenMountedFor(A, B).When(Detach(A), Down).IsRecorded(Removed(A));

    [Fact]
    public void The_last_detach_unmounts() =>
        GivenMountedFor(A).When(Detach(A), Down).IsRecorded(Removed(A), UnmountRequested()).NextIs(ActionKind.Unmount);

    [Fact]
    public void An_unmount_may_be_escalated() => GivenLeaving().Then(UnmountStarted(), UnmountFailed(1, Start))
        .When(Detach(A, UnmountMode.Lazy), Down).IsRecorded(UnmountRequested(UnmountMode.Lazy));

    [Fact]
    public void An_operation_in_flight_finishes() => Given(Requested(), Added(A), MountStarted()).When(Attach(A), Down).NothingIsRecorded()
        .Then(Mounted()).IsAnswered(Outcome.Mounted, version: 3);

    [Fact]
    public void Down_and_up_are_folded_with_who_and_why()
    {
        var down = HostState.Initial("host-1").Evolve(new HostEvent.HostDown("disk swap"), 1, Start, "root");

        Assert.Equal(
            (false, "disk swap", "root", (DateTimeOffset?)Start, 1L, Start),
            (down.IsUp, down.DownReason, down.DownBy, down.DownSince, down.Version, down.UpdatedAt));

        var up = down.Evolve(new HostEvent.HostUp(null), 2, Start.AddSeconds(1), "root");
        Assert.Equal((true, null, null, null), (up.IsUp, up.DownReason, up.DownBy, up.DownSince));
    }

    [Fact]
    public void A_host_that_is_down_stays_down_when_its_agent_starts_again()
    {
        var started = new HostEvent.AgentStarted(7, "agent-1", "machine", Boot, "6.18.0", "0.1.0");

        var state = HostState.Initial("host-1").Evolve(new HostEvent.HostDown(null), 1, Start, "root")
            .Evolve(started, 2, Start.AddSeconds(1), "agent")
            .Evolve(new HostEvent.ConsumersSynced(Start, 1, 0), 3, Start.AddSeconds(2), "agent");

        Assert.False(state.IsUp);
        Assert.Equal((started, Start.AddSeconds(1), 3), (state.Agent, state.AgentStartedAt, state.Version));
    }
}
