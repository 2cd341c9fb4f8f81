using System.Collections.Immutable;
using MountLedger.Wire;

namespace MountLedger.Tests.Input;

/// <summary>Requests that are in order, for tests that spoil one member of them.</summary>
internal static class Requests
{
    public static readonly InputPolicy Policy = new("host-1", ["/srv/ml", "/mnt/pool"]);

    public static MountRequest Mount() =>
        new(null, "/srv/ml/a", "tmpfs", "tmpfs", ImmutableArray.Create("size=1g"), "vol-1", "vm-1", null, null);

    public static UnmountRequest Unmount() => new(null, "/srv/ml/a", "vol-1", "vm-1", null, null);

    public static MountRequest Options(string fstype, string source, params string[] options) =>
        Mount() with { Fstype = fstype, Source = source, Options = [.. options] };

    public static IReadOnlyList<InputError> ErrorsOf(MountRequest request, InputPolicy? policy = null)
    {
        var valid = InputRules.Mount(request, policy ?? Policy, out var errors);
        Assert.Equal(valid is null, errors.Count > 0);
        return errors;
    }

    public static MountSpec SpecOf(MountRequest request, InputPolicy? policy = null)
    {
        var valid = InputRules.Mount(request, policy ?? Policy, out var errors);
        Assert.True(errors.Count == 0, string.Join(Environment.NewLine, errors));
        return valid!.Spec;
    }
}
