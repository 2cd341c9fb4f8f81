using System.Collections;

namespace MountLedger;

/// <summary>All that is wrong with one request, collected: a caller sees every mistake at once. Never more than <see cref="CountMax"/>.</summary>
public sealed class InputErrors : IReadOnlyList<InputError>
{
    /// <summary>A body of nothing but mistakes must not become an answer many times its size.</summary>
    public const int CountMax = 100;

    private readonly List<InputError> _items = [];

    public int Count => _items.Count;

    /// <summary>How many were found, also beyond those that are kept.</summary>
    internal int Found { get; private set; }

    public InputError this[int index] => _items[index];

    /// <summary>Adds an error; the value is cut, escaped, and masked where it may be a secret.</summary>
    public void Add(string field, string rule, string? value, string remedy)
    {
        Found++;
        if (_items.Count < CountMax) _items.Add(new InputError(field, rule, ErrorValue.Shown(value), remedy));
    }

    public IEnumerator<InputError> GetEnumerator() => _items.GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();
}
