using System.Runtime.CompilerServices;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using MountLedger.Wire;

namespace MountLedger.Cli;

/// <summary>Lists come in pages, <c>{"items":[],"next":cursor|null}</c>; this follows the cursor to the end.</summary>
internal static class Pages
{
    private const int PagesMax = 100_000;

    /// <summary>Each page as it came. The documents are the caller's to dispose.</summary>
    public static async IAsyncEnumerable<JsonDocument> ReadAsync(
        AgentClient agent, Query query, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        string? cursor = null;
        for (var count = 0; count < PagesMax; count++)
        {
            var answer = await agent.GetAsync(query.With("cursor", cursor).ToString(), cancellationToken);
            var page = Parse(answer);
            var next = page.RootElement.TryGetProperty("next", out var value) && value.ValueKind == JsonValueKind.String
                ? value.GetString()
                : null;
            yield return page;
            if (next is null)
                yield break;
            if (next == cursor)
                throw Answer.Unreadable("the list does not go on: its cursor repeats");
            cursor = next;
        }

        throw Answer.Unreadable($"the list has more than {PagesMax} pages");
    }

    /// <summary>All pages as one document of the same shape; a single page stays as it came, unless <paramref name="keep"/> takes items out.</summary>
    public static async Task<byte[]> OneDocumentAsync(
        AgentClient agent, Query query, CancellationToken cancellationToken, Func<JsonElement, bool>? keep = null)
    {
        var merged = new StringBuilder();
        string? whole = null;
        var pages = 0;
        var dropped = false;
        await foreach (var page in ReadAsync(agent, query, cancellationToken))
        {
            using var _ = page;
            whole = page.RootElement.GetRawText();
            pages++;
            foreach (var item in page.RootElement.GetProperty("items").EnumerateArray())
            {
                if (keep is null || keep(item))
                    merged.Append(merged.Length == 0 ? "" : ",").Append(item.GetRawText());
                else
                    dropped = true;
            }
        }

        return Encoding.UTF8.GetBytes(pages == 1 && !dropped ? whole! : $$"""{"items":[{{merged}}],"next":null}""");
    }

    /// <summary>The items of a page as this client knows them.</summary>
    public static IEnumerable<T> Items<T>(JsonDocument page, JsonTypeInfo<ListOf<T>> type)
    {
        var list = Item(page.RootElement, type);
        return list.Items.IsDefault ? [] : list.Items;
    }

    public static T Item<T>(JsonElement element, JsonTypeInfo<T> type)
    {
        try
        {
            return element.Deserialize(type) ?? throw Answer.Unreadable("null");
        }
        catch (JsonException e)
        {
            throw Answer.Unreadable(e.Message);
        }
    }

    private static JsonDocument Parse(Answer answer)
    {
        JsonDocument document;
        try
        {
            document = JsonDocument.Parse(answer.Body);
        }
        catch (JsonException e)
        {
            throw Answer.Unreadable(e.Message);
        }

        if (document.RootElement.ValueKind == JsonValueKind.Object
            && document.RootElement.TryGetProperty("items", out var items) && items.ValueKind == JsonValueKind.Array)
        {
            return document;
        }

        document.Dispose();
        throw Answer.Unreadable("it is no list");
    }
}

/// <summary>A path with its query; parameters without a value are left out.</summary>
internal sealed record Query(string Path)
{
    private (string Name, string Value)[] Parameters { get; init; } = [];

    public Query With(string name, string? value) =>
        value is null ? this : this with { Parameters = [.. Parameters, (name, value)] };

    public override string ToString() => Parameters.Length == 0
        ? Path
        : Path + "?" + string.Join('&', Parameters.Select(static p => $"{p.Name}={Uri.EscapeDataString(p.Value)}"));
}
