using System.Collections.Immutable;

namespace MountLedger;

/// <summary>
/// What shall be mounted: source, fstype, options. Always canonical (see <c>SpecRules</c>): options are unique and in
/// ordinal order, so two specs mean the same exactly when they are equal.
/// </summary>
public sealed record MountSpec(string Source, string FsType, ImmutableArray<string> Options)
{
    public bool Equals(MountSpec? other) =>
        other is not null && Source == other.Source && FsType == other.FsType && Options.SequenceEqual(other.Options);

    public override int GetHashCode() => HashCode.Combine(Source, FsType, Options.Length);

    /// <summary>Names of the members that differ (<c>source</c>, <c>fstype</c>, <c>options</c>), for a rejection.</summary>
    public IReadOnlyList<string> DifferencesFrom(MountSpec other)
    {
        var differences = new List<string>(3);
        if (Source != other.Source) differences.Add("source");
        if (FsType != other.FsType) differences.Add("fstype");
        if (!Options.SequenceEqual(other.Options)) differences.Add("options");
        return differences;
    }

    public override string ToString() =>
        Options.IsEmpty ? $"{FsType} {Source}" : $"{FsType} {Source} ({string.Join(',', Options)})";
}
