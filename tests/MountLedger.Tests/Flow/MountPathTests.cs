namespace MountLedger.Tests.Flow;

/// <summary>What is above and below a path, where names share beginnings.</summary>
public sealed class MountPathTests
{
    [Theory]
    [InlineData("/a/b/c", "/a/b,/a")]
    [InlineData("/a/b", "/a")]
    [InlineData("/a", "")]
    [InlineData("/", "")]
    [InlineData("/größe/😀/x", "/größe/😀,/größe")]
    public void Ancestors_are_nearest_first_and_without_the_root(string path, string ancestors) =>
        Assert.Equal(ancestors, string.Join(',', MountPath.AncestorsOf(path)));

    [Theory]
    [InlineData("/a/b", "/a", true)]
    [InlineData("/a/b/c", "/a", true)]
    [InlineData("/a", "/", true)]
    [InlineData("/a", "/a", false)]
    [InlineData("/", "/", false)]
    [InlineData("/ab", "/a", false)]
    [InlineData("/a-b", "/a", false)]
    [InlineData("/a", "/a/b", false)]
    [InlineData("/b/a", "/a", false)]
    [InlineData("/x/b", "/a", false)]
    [InlineData("/A/b", "/a", false)]
    public void A_path_is_below_its_proper_ancestors_only(string path, string ancestor, bool below) =>
        Assert.Equal(below, MountPath.IsBelow(path, ancestor));
}
