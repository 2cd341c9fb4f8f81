using System.Collections.Immutable;

namespace MountLedger;

/// <summary>
/// A request to a host's ledger. Every member has passed <c>InputRules</c>. <paramref name="Id"/> becomes the events'
/// correlation id, <paramref name="Actor"/> their user name.
/// </summary>
public abstract record MountCommand
{
    private MountCommand(string id, string actor, StreamKey stream) => (Id, Actor, Stream) = (id, actor, stream);

    public string Id { get; init; }

    public string Actor { get; init; }

    public StreamKey Stream { get; init; }

    /// <summary>The version that the caller saw (<c>If-Match</c>); null: any.</summary>
    public long? ExpectedVersion { get; init; }

    /// <summary>The caller's <c>Idempotency-Key</c> with the hash of the body, if there was one.</summary>
    public RequestKey? Request { get; init; }

    /// <summary>How long the caller waits for the outcome; zero: not at all.</summary>
    public TimeSpan Wait { get; init; } = DefaultWait;

    public static readonly TimeSpan DefaultWait = TimeSpan.FromSeconds(30);

    /// <summary>Attach (volume, consumer), mounting when it is the first.</summary>
    public sealed record Mount(
        string Id, string Actor, StreamKey Stream, MountSpec Spec, AttachmentKey Attachment, OnFailure OnFailure = OnFailure.Forget)
        : MountCommand(Id, Actor, Stream);

    /// <summary>Detach (volume, consumer), unmounting when it was the last.</summary>
    public sealed record Unmount(
        string Id, string Actor, StreamKey Stream, AttachmentKey Attachment, UnmountMode Mode = UnmountMode.Normal)
        : MountCommand(Id, Actor, Stream)
    {
        /// <summary>Set when the consumer was not in the list of those alive at this time: an attachment made since is another one, and stays.</summary>
        public DateTimeOffset? SyncedAsOf { get; init; }

        /// <summary>The actor is an administrator, who may escalate a pending unmount whoever held the mount last (rule 7).</summary>
        public bool ByAdmin { get; init; }
    }

    /// <summary>
    /// Change options of a live mount; those that are not named stay. Which ones the filesystem has is known only from the
    /// state, so the rules of input (<paramref name="Policy"/>) come along. <paramref name="ByAdmin"/>: whoever holds the mount.
    /// </summary>
    public sealed record Remount(
        string Id, string Actor, StreamKey Stream, ImmutableArray<string> Options, bool ByAdmin, InputPolicy Policy)
        : MountCommand(Id, Actor, Stream);
}

/// <summary>An operator's choice about the whole host (rule 12).</summary>
public sealed record HostCommand(string Id, string Actor, string Host, bool Up, string? Reason);

/// <summary>An idempotency key, with the SHA-256 of the request's body in hex.</summary>
public sealed record RequestKey(string Key, string BodyHash);
