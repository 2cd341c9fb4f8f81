using System.Collections.Immutable;
using static MountLedger.Tests.Rules.Scenario;
using static MountLedger.Tests.Rules.Vocabulary;

namespace MountLedger.Tests.Rules;

/// <summary>Rule 4: another source, fstype or options while somebody is attached is refused, and it is said what differs.</summary>
public sealed class Rule04_SpecConflictTests
{
    private static readonly MountSpec Disk = new("/dev/sdb1", "ext4", ["nodev", "nosuid"]);

    [Theory]
    [InlineData("/dev/sdc1", "ext4", "nodev,nosuid", "source")]
    [InlineData("/dev/sdb1", "xfs", "nodev,nosuid", "fstype")]
    [InlineData("/dev/sdb1", "ext4", "nodev,nosuid,ro", "options")]
    [InlineData("/dev/sdb1", "ext4", "", "options")]
    [InlineData("/dev/sdc1", "xfs", "nodev,nosuid", "source,fstype")]
    [InlineData("/dev/sdc1", "ext4", "ro", "source,options")]
    [InlineData("/dev/sdb1", "xfs", "ro", "fstype,options")]
    [InlineData("/dev/sdc1", "xfs", "ro", "source,fstype,options")]
    public void What_differs_is_named(string source, string fstype, string options, string differing)
    {
        ImmutableArray<string> asked = options.Length == 0 ? [] : [.. options.Split(',')];

        var conflict = Given(Requested(1, Disk), Added(A), MountStarted(), Mounted()).When(Attach(B, new MountSpec(source, fstype, asked)))
            .IsRejected<Rejection.SpecConflict>("spec-conflict");

        Assert.Equal(differing.Split(','), conflict.Differing);
        Assert.Equal((Disk, new MountSpec(source, fstype, asked)), (conflict.Current, conflict.Requested));
        Assert.Contains($"differs in {string.Join(", ", differing.Split(','))} ", conflict.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void The_holder_itself_cannot_change_the_spec_by_attaching_again() =>
        GivenMountedFor(A).When(Attach(A, OtherSpec)).IsRejected<Rejection.SpecConflict>("spec-conflict");

    [Fact]
    public void It_is_refused_in_every_phase_that_has_a_holder()
    {
        var wanted = Given(Requested(), Added(A, OnFailure.Retry));
        Scenario[] phases =
        [
            wanted,
            Given(Requested(), Added(A), MountStarted()),
            GivenMountedFor(A),
            GivenMountedFor(A).Then(Drift(DriftKind.Missing)),
            GivenAdoptedFor(A),
            GivenLeaving().Then(UnmountStarted(), Added(B)),
            Given(Requested(), Added(A, OnFailure.Retry), MountStarted(), MountFailed(1, Start)),
            Given(Requested(), Added(A), MountStarted(), Uncertain(OperationKind.Mount)),
        ];

        Assert.All(phases, scenario => scenario.When(Attach(C, OtherSpec)).IsRejected<Rejection.SpecConflict>("spec-conflict"));
    }

    [Fact]
    public void The_wanted_spec_counts_while_the_one_before_is_still_mounted() =>
        GivenLeaving().When(Attach(B, OtherSpec)).When(Attach(C)).IsRejected<Rejection.SpecConflict>("spec-conflict");

    [Fact]
    public void It_is_said_even_while_the_host_is_down() =>
        GivenMountedFor(A).When(Attach(B, OtherSpec), Down).IsRejected<Rejection.SpecConflict>("spec-conflict");

    [Fact]
    public void A_spec_is_compared_by_its_options_not_by_the_list_that_holds_them()
    {
        var same = new MountSpec("tmpfs", "tmpfs", ["nodev", "nosuid"]);

        Assert.Equal(Spec, same);
        Assert.Equal(Spec.GetHashCode(), same.GetHashCode());
        Assert.False(Spec.Equals(null));
        Assert.Empty(Spec.DifferencesFrom(same));
        Assert.Equal("tmpfs tmpfs (nodev,nosuid)", Spec.ToString());
        Assert.Equal("tmpfs tmpfs", (Spec with { Options = [] }).ToString());
    }
}
