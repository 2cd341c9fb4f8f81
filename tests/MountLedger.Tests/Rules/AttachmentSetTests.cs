namespace MountLedger.Tests.Rules;

/// <summary>Whatever comes and goes in whatever order, the set holds what a sorted dictionary holds, and its runs stay few.</summary>
public sealed class AttachmentSetTests
{
    [Theory]
    [InlineData(1, 40)]
    [InlineData(2, 500)]
    [InlineData(3, 5_000)]
    public void It_holds_what_a_sorted_dictionary_holds(int seed, int consumers)
    {
        var random = new Random(seed);
        var model = new SortedDictionary<AttachmentKey, Attachment>(AttachmentKey.Order);
        var set = AttachmentSet.Empty;
        for (var step = 0; step < 10 * consumers; step++)
        {
            // It grows and shrinks in turns, to nothing now and then.
            var isGrowing = step / (2 * consumers) % 2 == 0;
            var attachment = Of(random.Next(consumers), confirmed: random.Next(2) == 0, volume: $"v{random.Next(2)}");
            if (isGrowing || random.Next(4) == 0)
            {
                model[attachment.Key] = attachment;
                set = set.With(attachment);
            }
            else
            {
                model.Remove(attachment.Key);
                set = set.Without(attachment.Key);
            }
            Assert.Equal(model.Count, set.Count);
            Assert.Equal(model.GetValueOrDefault(attachment.Key), set.TryGetValue(attachment.Key, out var found) ? found : null);
            if (step % 97 == 0) AssertHolds(model.Values, set);
        }
        AssertHolds(model.Values, set);
        AssertHolds([.. model.Values.Select(attachment => attachment with { Confirmed = true })], set.Confirmed());
        Assert.Empty(set.Without(model.Keys));
    }

    [Fact]
    public void What_comes_in_order_fills_its_runs()
    {
        var all = Enumerable.Range(0, 1_000).Select(number => Of(number)).ToList();

        Assert.Equal((1_000 + AttachmentSet.RunMax - 1) / AttachmentSet.RunMax, AttachmentSet.Of(all).Runs.Length);
        Assert.Equal(AttachmentSet.Of(all).Runs.Length, AttachmentSet.Empty.With(all).Runs.Length);
    }

    [Fact]
    public void It_is_made_of_attachments_in_any_order_of_which_the_last_with_a_key_counts()
    {
        Attachment[] given = [Of(3), Of(1), Of(2), Of(1, confirmed: true)];

        Assert.Equal([given[3], given[2], given[0]], AttachmentSet.Of(given));
    }

    [Fact]
    public void A_change_leaves_the_set_before_it_and_the_runs_beside_it_alone()
    {
        var before = AttachmentSet.Of(Enumerable.Range(0, 1_000).Select(number => Of(number)));
        var kept = before.ToList();

        var after = before.With(Of(500, confirmed: true)).Without(Of(501).Key);

        Assert.Equal(kept, before);
        Assert.Equal(before.Runs.Length - 1, after.Runs.Intersect(before.Runs).Count());
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Leaving_in_order_leaves_no_run_behind_for_each_that_stays(bool ascending)
    {
        var all = Enumerable.Range(0, 5_000).Select(number => Of(number)).ToList();
        var set = AttachmentSet.Of(all);
        // One in fifty stays.
        List<Attachment> leaving = [.. all.Where((_, number) => number % 50 != 0)];
        foreach (var attachment in ascending ? leaving : Enumerable.Reverse(leaving)) set = set.Without(attachment.Key);

        AssertHolds(all.Except(leaving), set);
        Assert.Equal(100, set.Count);
        Assert.InRange(set.Runs.Length, 1, 12);
    }

    [Fact]
    public void What_is_not_there_is_not_found_and_its_removal_changes_nothing()
    {
        var set = AttachmentSet.Of([Of(1), Of(3)]);

        Assert.Same(set, set.Without(Of(2).Key));
        Assert.Same(AttachmentSet.Empty, AttachmentSet.Empty.Without(Of(2).Key));
        Assert.Throws<KeyNotFoundException>(() => set[Of(2).Key]);
    }

    /// <summary>Runs that hold little beside each other are joined: at most one of two neighbours is nearly empty.</summary>
    private static void AssertHolds(IEnumerable<Attachment> expected, AttachmentSet set)
    {
        Assert.Equal(expected, set);
        Assert.All(set.Runs, run => Assert.InRange(run.Items.Length, 1, AttachmentSet.RunMax));
        Assert.InRange(set.Runs.Length, 0, 1 + (set.Count / (AttachmentSet.RunMax / 8)));
    }

    private static Attachment Of(int number, bool confirmed = false, string volume = "v") =>
        new(volume, $"vm-{number:D5}", OnFailure.Forget, confirmed, First: false, DateTimeOffset.UnixEpoch.AddSeconds(number), "uid:0");
}
