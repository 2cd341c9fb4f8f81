using System.Collections.Immutable;
using System.Text.Json;
using FsCheck;
using FsCheck.Fluent;

namespace MountLedger.Tests.Ledger;

/// <summary>Folding goes on from a stored state, so a state must come back from its row exactly as it was.</summary>
public sealed class MountStateCodecTests
{
    private static readonly StreamKey Stream = new("host-1", "/srv/ml/a");
    private static readonly DateTimeOffset Start = new(2026, 1, 31, 8, 0, 0, TimeSpan.Zero);

    private static readonly Arbitrary<ImmutableArray<MountEvent>> AnyEvents =
        AnyEvent().ListOf().Select(events => events.ToImmutableArray()).ToArbitrary();

    [Fact]
    public void Any_state_comes_back_from_its_row_as_it_was() => Check.One(
        Config.QuickThrowOnFailure.WithMaxTest(1000),
        Prop.ForAll(AnyEvents, events =>
        {
            var state = Fold(events);
            AssertSame(state, RoundTrip(state));
        }));

    [Fact]
    public void Folding_on_from_a_row_is_folding_on_from_the_state() => Check.One(
        Config.QuickThrowOnFailure.WithMaxTest(500),
        Prop.ForAll(AnyEvents, AnyEvents, (before, after) =>
        {
            var state = Fold(before);
            AssertSame(Fold(after, state), Fold(after, RoundTrip(state)));
        }));

    [Theory]
    [InlineData("")]
    [InlineData("null")]
    [InlineData("[]")]
    [InlineData("{\"phase\":")]
    [InlineData("{\"drift\":{\"nonsense\":null}}")]
    [InlineData("{\"unmountWanted\":3}")]
    public void A_damaged_row_is_an_error_that_the_caller_can_tell(string json) =>
        Assert.ThrowsAny<JsonException>(() => MountStateCodec.Decode(Stream, 1, 1, json, Start, []));

    [Fact]
    public void A_row_of_a_program_that_knew_less_is_read()
    {
        var state = MountStateCodec.Decode(Stream, 1, 0, "{}", Start, []);

        AssertSame(MountState.Initial(Stream) with { Version = 1, UpdatedAt = Start }, state);
    }

    private static MountState RoundTrip(MountState state) => MountStateCodec.Decode(
        state.Stream, state.Version, state.Generation, MountStateCodec.Encode(state), state.UpdatedAt, state.Attachments);

    private static MountState Fold(ImmutableArray<MountEvent> events, MountState? from = null) => events.Aggregate(
        from ?? MountState.Initial(Stream),
        (state, change) => state.Evolve(change, state.Version + 1, Start.AddSeconds(state.Version), "root"));

    /// <summary>Any event in any order: folding never refuses one, so no order is out of bounds.</summary>
    private static Gen<MountEvent> AnyEvent()
    {
        var name = Gen.Elements("a", "b", "größe 😀", "\"quoted\\\"");
        var maybe = Gen.Elements<string?>(null, "", "because\n");
        var paths = Gen.Elements<ImmutableArray<string>>([], ["/srv/ml/a"], ["/srv/ml/a", "/srv/ml/a/b"]);
        var options = Gen.Elements<ImmutableArray<string>>([], ["nodev", "nosuid"], ["lowerdir=/a:/b", "ro"]);
        var mountId = Gen.Elements<ulong?>(null, 0, 2_147_483_655, ulong.MaxValue);
        var namespaceId = Gen.Elements<ulong>(0, 4_026_531_841, ulong.MaxValue);
        var number = Gen.Choose(0, 5);
        var retry = Gen.Elements<DateTimeOffset?>(null, Start, Start.AddMicroseconds(123_457));
        var yes = Gen.Elements(true, false);
        var mode = Gen.Elements(Enum.GetValues<UnmountMode>());
        var kind = Gen.Elements(Enum.GetValues<OperationKind>());
        var drift = Gen.Elements(Enum.GetValues<DriftKind>());
        var holders = Gen.Elements<ImmutableArray<MountHolder>>([], [new(1, "init", ["cwd"]), new(2, "b", [])]);

        return Gen.OneOf(
            Events(from source in name
                   from option in options
                   from generation in number
                   select new MountEvent.MountRequested(source, "tmpfs", option, generation)),
            Events(from volume in name
                   from consumer in name
                   from failure in Gen.Elements(Enum.GetValues<OnFailure>())
                   select new MountEvent.AttachmentAdded(volume, consumer, failure)),
            Events(from volume in name
                   from consumer in name
                   from reason in Gen.Elements(Enum.GetValues<RemovalReason>())
                   select new MountEvent.AttachmentRemoved(volume, consumer, reason)),
            Events(from generation in number
                   from ns in namespaceId
                   from id in mountId
                   from create in paths
                   select new MountEvent.MountStarted(generation, "boot-1", ns, id, create)),
            Events(from ns in namespaceId
                   from id in mountId
                   from created in paths
                   select new MountEvent.Mounted("boot-1", ns, id, created)),
            Events(from attempt in number
                   from at in retry
                   from transient in yes
                   select new MountEvent.MountFailed("EIO", "failed", transient, attempt, at)),
            Events(from ns in namespaceId from id in mountId select new MountEvent.MountAdopted("boot-2", ns, id)),
            Gen.Constant<MountEvent>(new MountEvent.MountKept()),
            Events(from how in mode select new MountEvent.UnmountRequested(how)),
            Events(from how in mode
                   from boot in maybe
                   from ns in namespaceId
                   from id in mountId
                   select new MountEvent.UnmountStarted(how, boot, ns, id)),
            Events(from released in yes from removed in paths select new MountEvent.Unmounted(released, removed)),
            Events(from busy in holders
                   from attempt in number
                   from at in retry
                   select new MountEvent.UnmountFailed("EBUSY", "busy", true, busy, attempt, at)),
            Events(from operation in kind select new MountEvent.OperationUncertain(operation, "crash")),
            Events(from operation in kind
                   from found in Gen.Elements(Enum.GetValues<SettledAs>())
                   from detail in maybe
                   select new MountEvent.OperationSettled(operation, found, detail)),
            Events(from option in options from generation in number select new MountEvent.RemountRequested(option, generation)),
            Events(from generation in number from ns in namespaceId from id in mountId select new MountEvent.RemountStarted(generation, "boot-1", ns, id)),
            Events(from generation in number select new MountEvent.Remounted(generation)),
            Gen.Constant<MountEvent>(new MountEvent.RemountFailed("EINVAL", "refused")),
            Events(from what in drift from detail in maybe select new MountEvent.DriftDetected(what, detail)),
            Events(from what in drift from detail in maybe select new MountEvent.DriftResolved(what, detail)),
            Events(from reason in maybe select new MountEvent.RepairPaused(reason)),
            Gen.Constant<MountEvent>(new MountEvent.RepairResumed()),
            Gen.Constant<MountEvent>(new MountEvent.Unrecognised("mount_teleported", "{}")));
    }

    private static Gen<MountEvent> Events<T>(Gen<T> events) where T : MountEvent => events.Select(change => (MountEvent)change);

    /// <summary>By member: the equality of the immutable collections in a state is that of their references.</summary>
    private static void AssertSame(MountState expected, MountState actual)
    {
        Assert.Equal(expected.Attachments.AsEnumerable(), actual.Attachments.AsEnumerable());
        Assert.Equal(expected.Drift.AsEnumerable(), actual.Drift.AsEnumerable());
        Assert.Equal(expected.OwnedDirectories.AsEnumerable(), actual.OwnedDirectories.AsEnumerable());
        Assert.Equal(expected.Operation?.Directories.AsEnumerable(), actual.Operation?.Directories.AsEnumerable());
        Assert.Equal(expected.Error?.Holders.AsEnumerable(), actual.Error?.Holders.AsEnumerable());
        Assert.Equal(expected.Phase, actual.Phase);
        Assert.Equal(Bare(expected), Bare(actual));
    }

    private static MountState Bare(MountState state) => state with
    {
        Attachments = AttachmentSet.Empty,
        Drift = ImmutableSortedDictionary<DriftKind, string?>.Empty,
        OwnedDirectories = [],
        Operation = state.Operation is { } operation ? operation with { Directories = [] } : null,
        Error = state.Error is { } error ? error with { Holders = [] } : null,
    };
}
