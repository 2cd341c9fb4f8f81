using MountLedger.Tests.Input;
using static MountLedger.Tests.Rules.Scenario;
using static MountLedger.Tests.Rules.Vocabulary;

namespace MountLedger.Tests.Rules;

/// <summary>The options of a live mount are changed by its only holder or an administrator, and a failure changes nothing.</summary>
public sealed class RemountTests
{
    private static readonly MountEvent WantsSize = new MountEvent.RemountRequested(["nodev", "nosuid", "size=1g"], 2);
    private static readonly MountEvent Started = new MountEvent.RemountStarted(2, Boot, Namespace, Id);
    private static readonly MountEvent Done = new MountEvent.Remounted(2);
    private static readonly MountEvent Failed = new MountEvent.RemountFailed("EINVAL", "refused");

    [Fact]
    public void The_sole_holder_changes_options_and_the_others_stay() => GivenMountedFor(A)
        .When(Change("size=1024m")).IsRecorded(WantsSize).HasPhase(Phase.Mounted).NextIs(ActionKind.Remount).IsNotAnsweredYet()
        .Then(Started).HasPhase(Phase.Mounted).IsNotAnsweredYet()
        .Then(Done).NextIs(ActionKind.None).IsAnswered(Outcome.Remounted);

    [Fact]
    public void What_holds_afterwards_is_the_next_generation_of_spec_and_mount()
    {
        var before = GivenMountedFor(A).Then(WantsSize, Started).State;
        var after = GivenMountedFor(A).Then(WantsSize, Started, Done).State;

        Assert.Equal((1, Spec, Spec), (before.Generation, before.Spec, before.Kernel!.Spec));
        Assert.Equal((2, OtherSpec, OtherSpec), (after.Generation, after.Spec, after.Kernel!.Spec));
        Assert.Null(after.Remount);
    }

    [Fact]
    public void A_failure_leaves_spec_and_generation_and_is_not_tried_again()
    {
        var failed = GivenMountedFor(A).When(Change("size=1g")).Then(Started, Failed).NextIs(ActionKind.None).HasPhase(Phase.Mounted)
            .IsToldOfFailure("EINVAL", Change("size=1g"), 5);

        Assert.Equal((1, Spec), (failed.State.Generation, failed.State.Spec));
        failed.When(Change("size=1g")).IsRecorded(WantsSize);
    }

    [Fact]
    public void Options_that_hold_already_are_no_event() =>
        GivenMountedFor(A).When(Change("nosuid", "rw", "relatime")).NothingIsRecorded();

    [Theory]
    [InlineData("ro", "nodev,nosuid,ro")]
    [InlineData("noexec,ro", "nodev,noexec,nosuid,ro")]
    [InlineData("size=2G,mode=0700", "mode=700,nodev,nosuid,size=2g")]
    public void An_option_takes_its_place_among_the_others(string options, string wanted)
    {
        var recorded = Assert.IsType<Decision.Accept>(MountDecider.Decide(Change(options.Split(',')), GivenMountedFor(A).State, Free)).Events;
        Assert.Equal(wanted, string.Join(',', Assert.IsType<MountEvent.RemountRequested>(Assert.Single(recorded)).Options));
    }

    [Fact]
    public void A_word_undoes_its_opposite() => GivenMountedFor(A)
        .Then(new MountEvent.RemountRequested(["nodev", "nosuid", "ro"], 2), Started, Done)
        .When(Change("rw")).IsRecorded(new MountEvent.RemountRequested(["nodev", "nosuid"], 3));

    [Theory]
    [InlineData("bogus", "known-option")]
    [InlineData("suid", "option-policy")]
    [InlineData("size=lots", "option-value")]
    public void What_the_filesystem_does_not_have_is_invalid(string option, string rule)
    {
        var decision = MountDecider.Decide(Change(option), GivenMountedFor(A).State, Free);

        Assert.Equal(rule, Assert.Single(Assert.IsType<Decision.Invalid>(decision).Errors).Rule);
    }

    [Fact]
    public void How_a_bind_was_made_cannot_be_changed()
    {
        var bind = new MountSpec("/srv/x", "bind", ["nodev", "nosuid"]);
        var state = Given(Requested(1, bind), Added(A), MountStarted(), Mounted()).State;

        Assert.Equal("fixed-option", Assert.Single(Assert.IsType<Decision.Invalid>(MountDecider.Decide(Change("rbind"), state, Free)).Errors).Rule);
        Assert.Equal("known-option", Assert.Single(Assert.IsType<Decision.Invalid>(MountDecider.Decide(Change("size=1g"), state, Free)).Errors).Rule);
    }

    [Fact]
    public void Without_a_mount_there_is_nothing_to_change()
    {
        Given().When(Change("ro")).IsRejected<Rejection.NotMounted>("not-mounted");
        Given(Requested(), Added(A), MountStarted()).When(Change("ro")).IsRejected<Rejection.NotMounted>("not-mounted");
        GivenLeaving().When(Change("ro")).IsRejected<Rejection.NotMounted>("not-mounted");
    }

    [Fact]
    public void Somebody_elses_mount_is_changed_by_an_administrator_only()
    {
        GivenMountedFor(A).When(Change("ro") with { Actor = "mallory" }).IsRejected<Rejection.NotPermitted>("not-permitted");
        GivenMountedFor(A, B).When(Change("ro")).IsRejected<Rejection.NotPermitted>("not-permitted");
        GivenAdoptedFor(A).When(Change("ro")).IsRejected<Rejection.NotPermitted>("not-permitted");

        GivenMountedFor(A, B).When(Change("size=1g") with { Actor = "mallory", ByAdmin = true }).IsRecorded(WantsSize);
        GivenAdoptedFor(A).When(Change("size=1g") with { ByAdmin = true }).IsRecorded(WantsSize);
    }

    [Fact]
    public void While_it_goes_on_nobody_joins_and_nobody_else_changes()
    {
        var changing = GivenMountedFor(A).Then(WantsSize);
        changing.When(Attach(B)).IsRejected<Rejection.RemountPending>("remount-pending");
        changing.When(Change("ro")).IsRejected<Rejection.RemountPending>("remount-pending");
        changing.When(Attach(B, OtherSpec)).IsRejected<Rejection.RemountPending>("remount-pending");
        changing.When(Attach(A)).NothingIsRecorded();
        changing.Then(Started).When(Attach(B)).IsRejected<Rejection.RemountPending>("remount-pending");
        changing.Then(Done).When(Attach(B, OtherSpec)).IsRecorded(Added(B));
    }

    [Fact]
    public void The_last_detach_before_it_began_ends_it() => GivenMountedFor(A)
        .When(Change("size=1g"))
        .Then(Removed(A), UnmountRequested()).NextIs(ActionKind.Unmount)
        .IsToldOfFailure("ECANCELED", Change("size=1g"), 5);

    [Fact]
    public void The_last_detach_while_it_is_done_unmounts_afterwards() =>
        GivenMountedFor(A).Then(WantsSize, Started).When(Detach(A)).IsRecorded(Removed(A), UnmountRequested())
            .HasPhase(Phase.Unmounting).Then(Done).NextIs(ActionKind.Unmount);

    [Fact]
    public void Who_attaches_then_gets_the_options_that_he_asked_for()
    {
        var scenario = GivenMountedFor(A).Then(WantsSize, Started, Removed(A), UnmountRequested()).When(Attach(B)).IsRecorded(Added(B))
            .IsNotAnsweredYet().Then(Done).NextIs(ActionKind.Unmount).IsNotAnsweredYet(Attach(B));

        Assert.Equal((Spec, OtherSpec), (scenario.State.Spec, scenario.State.Kernel!.Spec));
    }

    [Fact]
    public void A_crash_is_settled_by_what_the_kernel_has()
    {
        var crashed = GivenMountedFor(A).Then(WantsSize, Started).NextIs(ActionKind.Settle).Then(Uncertain(OperationKind.Remount)).State;

        Assert.Equal([Text(Done)], OutcomeRules.Settled(crashed, Found(Seen()), Kernel, Start).Select(Text));
        // Not there yet, or only in part: the request stands, and is tried once it is known that nobody else does.
        var again = GivenMountedFor(A).Then(WantsSize, Started, Uncertain(OperationKind.Remount))
            .WhenRecorded(state => OutcomeRules.Settled(state, Found(Seen(Id, "options")), Kernel, Start)).NextIs(ActionKind.Remount).HasPhase(Phase.Mounted);
        again.Then(Started, Uncertain(OperationKind.Remount))
            .WhenRecorded(state => OutcomeRules.Settled(state, Found(Seen(Id, "options")), Kernel, Start)).NextIs(ActionKind.None);
        Assert.Equal("ETIMEDOUT", again.State.Error!.Errno);
    }

    [Fact]
    public void A_mount_that_went_meanwhile_is_made_again_as_it_was() => GivenMountedFor(A).Then(WantsSize, Started, Uncertain(OperationKind.Remount))
        .WhenRecorded(state => OutcomeRules.Settled(state, Found(), Kernel, Start))
        .IsRecorded(Settled(OperationKind.Remount, SettledAs.Absent)).NextIs(ActionKind.Mount);

    private static MountCommand.Remount Change(params string[] options) =>
        new("command-3", "root", Vocabulary.Stream, [.. options], ByAdmin: false, Requests.Policy);
}
