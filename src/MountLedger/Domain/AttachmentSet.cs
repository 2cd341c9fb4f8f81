using System.Collections;
using System.Collections.Immutable;
using System.Diagnostics.CodeAnalysis;
using System.Runtime.InteropServices;

namespace MountLedger;

/// <summary>
/// The attachments of a mountpoint, in the order of their keys; immutable. Kept in short sorted runs, of which a change replaces one: the next set shares the
/// others, and what was worked out of a run (its text in an answer) still holds. With one run, which is what most mountpoints have, it is a sorted array.
/// See ADR 0021.
/// </summary>
public sealed class AttachmentSet : IReadOnlyCollection<Attachment>
{
    /// <summary>A run that grows beyond this is cut in two.</summary>
    public const int RunMax = 64;

    public static readonly AttachmentSet Empty = new([]);

    private AttachmentSet(ImmutableArray<Run> runs)
    {
        Runs = runs;
        foreach (var run in runs) Count += run.Items.Length;
    }

    /// <summary>These attachments; of several with the same key, the last.</summary>
    public static AttachmentSet Of(IEnumerable<Attachment> attachments)
    {
        var sorted = new List<Attachment>();
        foreach (var attachment in attachments.OrderBy(static attachment => attachment.Key, AttachmentKey.Order))
        {
            if (sorted.Count > 0 && sorted[^1].Key == attachment.Key) sorted[^1] = attachment;
            else sorted.Add(attachment);
        }
        return sorted.Count == 0 ? Empty : new([.. sorted.Chunk(RunMax).Select(static chunk => new Run(ImmutableCollectionsMarshal.AsImmutableArray(chunk)))]);
    }

    public int Count { get; }

    public bool IsEmpty => Count == 0;

    public IEnumerable<AttachmentKey> Keys => this.Select(attachment => attachment.Key);

    /// <exception cref="KeyNotFoundException">There is none.</exception>
    public Attachment this[AttachmentKey key] =>
        TryGetValue(key, out var attachment) ? attachment : throw new KeyNotFoundException($"{key} is not attached");

    public bool ContainsKey(AttachmentKey key) => TryGetValue(key, out _);

    public bool TryGetValue(AttachmentKey key, [MaybeNullWhen(false)] out Attachment attachment)
    {
        attachment = null;
        if (IsEmpty) return false;
        var (run, place) = Find(key);
        if (place < 0) return false;
        attachment = Runs[run].Items[place];
        return true;
    }

    /// <summary>With <paramref name="attachment"/>, in place of one with the same key.</summary>
    public AttachmentSet With(Attachment attachment)
    {
        if (IsEmpty) return new([new Run([attachment])]);
        var (number, place) = Find(attachment.Key);
        var items = Runs[number].Items;
        if (place >= 0) return new(Runs.SetItem(number, new Run(items.SetItem(place, attachment))));
        var grown = items.Insert(~place, attachment);
        if (grown.Length <= RunMax) return new(Runs.SetItem(number, new Run(grown)));
        // What comes in order, as numbered consumers do, leaves full runs behind.
        var cut = ~place == items.Length ? items.Length : grown.Length / 2;
        return new(Runs.SetItem(number, new Run(grown[..cut])).Insert(number + 1, new Run(grown[cut..])));
    }

    /// <summary>With each of these, in place of one with the same key.</summary>
    public AttachmentSet With(IEnumerable<Attachment> attachments) => attachments.Aggregate(this, static (set, attachment) => set.With(attachment));

    /// <summary>Without the one of this key; the same set when there is none.</summary>
    public AttachmentSet Without(AttachmentKey key)
    {
        if (IsEmpty) return this;
        var (number, place) = Find(key);
        if (place < 0) return this;
        var left = Runs[number].Items.RemoveAt(place);
        if (left.IsEmpty) return Count == 1 ? Empty : new(Runs.RemoveAt(number));
        // A run that has become short is joined with one beside it, or a hundred of them could hold one attachment each.
        if (FitsWith(number + 1)) return new(Runs.RemoveAt(number + 1).SetItem(number, new Run(left.AddRange(Runs[number + 1].Items))));
        if (FitsWith(number - 1)) return new(Runs.RemoveAt(number).SetItem(number - 1, new Run(Runs[number - 1].Items.AddRange(left))));
        return new(Runs.SetItem(number, new Run(left)));

        bool FitsWith(int other) => other >= 0 && other < Runs.Length && left.Length + Runs[other].Items.Length <= RunMax / 2;
    }

    /// <summary>Without those of these keys.</summary>
    public AttachmentSet Without(IEnumerable<AttachmentKey> keys) => keys.Aggregate(this, static (set, key) => set.Without(key));

    /// <summary>The same attachments, all of them confirmed.</summary>
    public AttachmentSet Confirmed() =>
        new([.. Runs.Select(static run => run.Items.All(static attachment => attachment.Confirmed)
            ? run
            : new Run([.. run.Items.Select(static attachment => attachment.Confirmed ? attachment : attachment with { Confirmed = true })]))]);

    public IEnumerator<Attachment> GetEnumerator() => Runs.SelectMany(static run => run.Items).GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    /// <summary>In the order of their keys, none of them empty.</summary>
    public ImmutableArray<Run> Runs { get; }

    /// <summary>The run where the key is or belongs, and its place there: the complement of where it would be, when it is not.</summary>
    private (int Run, int Place) Find(AttachmentKey key)
    {
        var (low, high) = (0, Runs.Length - 1);
        while (low < high)
        {
            var middle = (low + high) / 2;
            if (AttachmentKey.Order.Compare(Runs[middle].Items[^1].Key, key) < 0) low = middle + 1;
            else high = middle;
        }
        return (low, Runs[low].Place(key));
    }

    /// <summary>A sorted stretch of the attachments; it never changes, so that what is worked out of it can be kept beside it.</summary>
    public sealed class Run(ImmutableArray<Attachment> items)
    {
        public ImmutableArray<Attachment> Items => items;

        internal int Place(AttachmentKey key)
        {
            var (low, high) = (0, items.Length - 1);
            while (low <= high)
            {
                var middle = (low + high) / 2;
                switch (AttachmentKey.Order.Compare(items[middle].Key, key))
                {
                    case 0: return middle;
                    case < 0: low = middle + 1; break;
                    default: high = middle - 1; break;
                }
            }
            return ~low;
        }
    }
}
