using System.Collections.Immutable;

namespace MountLedger.Tests.Rules;

/// <summary>
/// Given these events, when this command comes, then that is recorded: folds as the ledger does, one version for each
/// event, one second apart.
/// </summary>
internal sealed class Scenario
{
    private Decision? _decision;
    private MountCommand? _command;
    private ImmutableArray<MountEvent> _recorded = [];

    private Scenario(MountState state) => State = state;

    public MountState State { get; private set; }

    public static Scenario Given(params MountEvent[] events) =>
        new Scenario(MountState.Initial(Vocabulary.Stream)).Then(events);

    public static Scenario GivenMountedFor(params AttachmentKey[] holders) => Given(
        [Vocabulary.Requested(), Vocabulary.Added(holders[0]), Vocabulary.MountStarted(), Vocabulary.Mounted(),
            .. holders.Skip(1).Select(holder => Vocabulary.Added(holder))]);

    /// <summary>The last holder has left, and the executor has not begun to unmount.</summary>
    public static Scenario GivenLeaving() =>
        GivenMountedFor(Vocabulary.A).Then(Vocabulary.Removed(Vocabulary.A), Vocabulary.UnmountRequested());

    public static Scenario GivenAdoptedFor(AttachmentKey holder) =>
        Given(Vocabulary.Requested(), Vocabulary.Added(holder), Vocabulary.Adopted());

    /// <summary>Further events, whoever recorded them.</summary>
    public Scenario Then(params IEnumerable<MountEvent> events)
    {
        foreach (var change in events)
        {
            var version = State.Version + 1;
            State = State.Evolve(change, version, Vocabulary.Start.AddSeconds(version), "root");
            Assert.Equal(version, State.Version);
        }
        return this;
    }

    public Scenario When(MountCommand command, DecisionContext? context = null)
    {
        _command = command;
        _decision = MountDecider.Decide(command, State, context ?? Vocabulary.Free);
        _recorded = _decision is Decision.Accept accepted ? accepted.Events : [];
        return Then(_recorded);
    }

    /// <summary>What the executor records for an outcome, decided on the state as it is.</summary>
    public Scenario WhenRecorded(Func<MountState, ImmutableArray<MountEvent>> outcome)
    {
        _recorded = outcome(State);
        _decision = new Decision.Accept(_recorded);
        return Then(_recorded);
    }

    public Scenario IsRecorded(params MountEvent[] expected)
    {
        Assert.IsType<Decision.Accept>(_decision);
        Assert.Equal(expected.Select(Text), _recorded.Select(Text));
        return this;
    }

    public Scenario NothingIsRecorded() => IsRecorded();

    public T IsRejected<T>(string name) where T : Rejection
    {
        var rejection = Assert.IsType<T>(Assert.IsType<Decision.Reject>(_decision).Rejection);
        Assert.Equal(name, rejection.Name);
        Assert.Contains(": ", rejection.Message, StringComparison.Ordinal); // What, and then what to do.
        return rejection;
    }

    public Scenario HasPhase(Phase expected)
    {
        Assert.Equal(expected, State.Phase);
        return this;
    }

    public Scenario NextIs(ActionKind expected, DateTimeOffset? dueAt = null)
    {
        Assert.Equal(new NextAction(expected, dueAt), MountFlow.NextAction(State));
        return this;
    }

    public Scenario IsHeldBy(params AttachmentKey[] expected)
    {
        Assert.Equal(expected.Order(AttachmentKey.Order), State.Attachments.Keys);
        return this;
    }

    public Scenario IsConfirmed(params AttachmentKey[] expected)
    {
        Assert.Equal(
            expected.Order(AttachmentKey.Order), State.Attachments.Where(attachment => attachment.Confirmed).Select(attachment => attachment.Key));
        return this;
    }

    /// <summary>The answer to the last command, or to <paramref name="command"/> recorded up to <paramref name="version"/>.</summary>
    public Scenario IsAnswered(Outcome expected, MountCommand? command = null, long? version = null)
    {
        Assert.Equal(expected, Assert.IsType<CommandResult.Done>(Answer(command, version)).Outcome);
        return this;
    }

    public Scenario IsToldOfFailure(string errno, MountCommand? command = null, long? version = null)
    {
        Assert.Equal(errno, Assert.IsType<CommandResult.Failed>(Answer(command, version)).Error.Errno);
        return this;
    }

    public Scenario IsNotAnsweredYet(MountCommand? command = null, long? version = null)
    {
        Assert.Null(Answer(command, version));
        return this;
    }

    public static string Text(MountEvent change) => $"{EventCatalog.StoredName(change)} {EventCatalog.Encode(change)}";

    private CommandResult? Answer(MountCommand? command, long? version) =>
        OutcomeOf.Command(command ?? _command!, State, version ?? State.Version);
}
