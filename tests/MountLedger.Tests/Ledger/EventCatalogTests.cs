using System.Collections;
using System.Reflection;

namespace MountLedger.Tests.Ledger;

/// <summary>The stored form of every event: it is what others read, so it never changes by accident.</summary>
public sealed class EventCatalogTests
{
    private static readonly string GoldenDirectory = Path.Combine(AppContext.BaseDirectory, "Golden");

    public static TheoryData<string> StoredNames() => [.. EventCatalog.StoredNames];

    [Theory]
    [MemberData(nameof(StoredNames))]
    public void An_event_is_encoded_as_its_golden_file(string storedName) =>
        Assert.Equal(Golden(storedName), EventCatalog.Encode(Example(storedName)));

    [Theory]
    [MemberData(nameof(StoredNames))]
    public void A_golden_file_decodes_to_its_event(string storedName)
    {
        var expected = Example(storedName);

        AssertSame(expected, EventCatalog.Decode(Examples.StreamOf(expected), storedName, Golden(storedName)));
    }

    [Theory]
    [MemberData(nameof(StoredNames))]
    public void An_event_is_read_whatever_the_order_of_its_members(string storedName)
    {
        // jsonb keeps members in an order of its own, and puts a space after each colon.
        var members = System.Text.Json.JsonDocument.Parse(Golden(storedName)).RootElement.EnumerateObject().Reverse();
        var json = "{" + string.Join(", ", members.Select(member => $"\"{member.Name}\": {member.Value.GetRawText()}")) + "}";
        var expected = Example(storedName);

        AssertSame(expected, EventCatalog.Decode(Examples.StreamOf(expected), storedName, json));
    }

    [Theory]
    [MemberData(nameof(StoredNames))]
    public void A_damaged_document_is_kept_and_not_recognised(string storedName)
    {
        foreach (var damaged in new[] { "", "{", "[]", "7", "null", "\"x\"", Golden(storedName)[..^1], "{\"generation\":\"x\",\"volume\":{}}\u0000" })
        {
            var decoded = EventCatalog.Decode("/srv/ml/a", storedName, damaged);

            var unrecognised = Assert.IsType<MountEvent.Unrecognised>(decoded);
            Assert.Equal((storedName, damaged), (unrecognised.StoredType, unrecognised.Json));
        }
    }

    [Theory]
    [InlineData("mount_teleported", "{}")]
    [InlineData("Mounted", "{}")]
    [InlineData("", "not even JSON")]
    public void An_unknown_name_is_kept_and_not_recognised(string storedName, string json)
    {
        Assert.Equal(new MountEvent.Unrecognised(storedName, json), EventCatalog.Decode("/srv/ml/a", storedName, json));
        Assert.Equal(new HostEvent.Unrecognised(storedName, json), EventCatalog.Decode(HostEvent.StreamId, storedName, json));
    }

    [Fact]
    public void An_unrecognised_event_is_stored_as_it_was()
    {
        var unknown = new MountEvent.Unrecognised("mount_teleported", "{ \"to\": 1}");

        Assert.Equal("mount_teleported", EventCatalog.StoredName(unknown));
        Assert.Equal("{ \"to\": 1}", EventCatalog.Encode(unknown));
    }

    [Fact]
    public void Every_event_type_has_an_entry_an_example_and_a_golden_file()
    {
        var types = SealedEventTypes();

        Assert.Equal(Names(types), Names(EventCatalog.EventTypes));
        Assert.Equal(Names(types), Names(Examples.All.Select(example => example.GetType())));
        Assert.Equal(
            EventCatalog.StoredNames,
            Directory.GetFiles(GoldenDirectory, "*.json").Select(file => Path.GetFileNameWithoutExtension(file)).Order(StringComparer.Ordinal));
    }

    [Fact]
    public void Every_stored_name_is_the_snake_case_of_its_class() => Assert.All(
        Examples.All,
        example => Assert.Equal(
            System.Text.Json.JsonNamingPolicy.SnakeCaseLower.ConvertName(example.GetType().Name), EventCatalog.StoredName(example)));

    [Fact]
    public void Every_event_is_folded_onto_the_initial_state() => Assert.All(Examples.All, example =>
    {
        if (example is MountEvent mount)
        {
            var state = MountState.Initial(new StreamKey("host-1", "/srv/ml/a")).Evolve(mount, 1, DateTimeOffset.UnixEpoch, "root");
            Assert.Equal(1, state.Version);
            Assert.True(Enum.IsDefined(state.Phase));
        }
        else
        {
            Assert.Equal(1, HostState.Initial("host-1").Evolve((HostEvent)example, 1, DateTimeOffset.UnixEpoch, "root").Version);
        }
    });

    [Theory]
    [MemberData(nameof(StoredNames))]
    public void A_document_with_a_member_missing_or_null_is_still_folded(string storedName)
    {
        var members = System.Text.Json.JsonDocument.Parse(Golden(storedName)).RootElement.EnumerateObject().ToList();
        var documents = members.Select(gone => members.Where(member => member.Name != gone.Name).Select(member => (member.Name, Json: member.Value.GetRawText())))
            .Concat(members.Select(empty => members.Select(member => (member.Name, Json: member.Name == empty.Name ? "null" : member.Value.GetRawText()))))
            .Append([]);

        foreach (var document in documents)
        {
            var json = "{" + string.Join(",", document.Select(member => $"\"{member.Name}\":{member.Json}")) + "}";
            var decoded = EventCatalog.Decode("/srv/ml/a", storedName, json);
            if (decoded is not MountEvent change) continue;
            var state = MountState.Initial(new StreamKey("host-1", "/srv/ml/a"));
            foreach (var folded in Examples.All.OfType<MountEvent>().Take(5).Append(change).Concat(Examples.All.OfType<MountEvent>()))
            {
                state = state.Evolve(folded, state.Version + 1, DateTimeOffset.UnixEpoch, "root");
                _ = (state.Phase, MountFlow.NextAction(state), MountStateCodec.Encode(state), state.Spec?.ToString());
            }
        }
    }

    private static LedgerEvent Example(string storedName) =>
        Examples.All.Single(example => EventCatalog.StoredName(example) == storedName);

    /// <summary>The file without the newline at its end.</summary>
    private static string Golden(string storedName) =>
        File.ReadAllText(Path.Combine(GoldenDirectory, storedName + ".json")).TrimEnd('\n');

    private static List<Type> SealedEventTypes() =>
        [.. typeof(LedgerEvent).Assembly.GetTypes().Where(type =>
            type.IsSealed && type.IsSubclassOf(typeof(LedgerEvent))
            && type != typeof(MountEvent.Unrecognised) && type != typeof(HostEvent.Unrecognised))];

    private static IEnumerable<string> Names(IEnumerable<Type> types) => types.Select(type => type.FullName!).Order(StringComparer.Ordinal);

    /// <summary>By member, because the equality of an immutable array is that of the reference.</summary>
    private static void AssertSame(LedgerEvent expected, LedgerEvent actual)
    {
        Assert.Equal(expected.GetType(), actual.GetType());
        foreach (var member in expected.GetType().GetProperties(BindingFlags.Public | BindingFlags.Instance))
        {
            var (want, have) = (member.GetValue(expected), member.GetValue(actual));
            if (want is IEnumerable and not string) Assert.Equal(((IEnumerable)want).Cast<object>(), ((IEnumerable)have!).Cast<object>());
            else Assert.Equal(want, have);
        }
    }
}
