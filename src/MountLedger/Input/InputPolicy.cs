using System.Collections.Immutable;

namespace MountLedger;

/// <summary>
/// What this agent allows. <paramref name="Host"/> is its own name; <paramref name="Roots"/> are the absolute, normalised
/// directories that every mountpoint must be strictly below (see <see cref="InputRules.AbsolutePath"/>).
/// </summary>
public sealed record InputPolicy(string Host, ImmutableArray<string> Roots)
{
    /// <summary>A caller may ask for <c>suid</c>. Who does not ask gets <c>nosuid</c> all the same.</summary>
    public bool AllowSuid { get; init; }

    /// <summary>A caller may ask for <c>dev</c>. Who does not ask gets <c>nodev</c> all the same.</summary>
    public bool AllowDev { get; init; }

    /// <summary>Options that are off unless the configuration allows them (<see cref="FilesystemCatalog.OffByDefault"/>), as <c>NAME</c> or <c>NAME=VALUE</c>.</summary>
    public ImmutableArray<string> AllowedOptions { get; init; } = [];

    /// <summary>Actors that may change what others hold (<c>mountledger remount</c>).</summary>
    public ImmutableArray<string> Admins { get; init; } = ["root"];

    /// <summary>Types beyond the catalogue that the configuration names, each mounted by a helper of its own.</summary>
    public ImmutableArray<Filesystem> HelperTypes { get; init; } = [];

    /// <summary>The filesystem of this exact name that can be mounted here, or null.</summary>
    public Filesystem? Find(string type) =>
        FilesystemCatalog.Find(type) ?? HelperTypes.FirstOrDefault(filesystem => filesystem.Type == type);
}

/// <summary>A mount request of which every member is in order, and whose spec is canonical.</summary>
public sealed record ValidatedMount(
    string Host, string Mountpoint, MountSpec Spec, AttachmentKey Attachment, OnFailure OnFailure, TimeSpan Wait)
{
    public StreamKey Stream => new(Host, Mountpoint);
}

/// <summary>A remount request, as far as it can be judged without the mount: its options depend on the filesystem.</summary>
public sealed record ValidatedRemount(string Host, string Mountpoint, ImmutableArray<string> Options, TimeSpan Wait)
{
    public StreamKey Stream => new(Host, Mountpoint);
}

/// <summary>An unmount request of which every member is in order.</summary>
public sealed record ValidatedUnmount(
    string Host, string Mountpoint, AttachmentKey Attachment, UnmountMode Mode, TimeSpan Wait)
{
    public StreamKey Stream => new(Host, Mountpoint);
}
