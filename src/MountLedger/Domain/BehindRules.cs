using System.Collections.Immutable;

namespace MountLedger;

/// <summary>Which side an operator believes when the ledger is older than what the agent has seen (section 6 of the contract).</summary>
public enum BehindChoice
{
    /// <summary>What the agent remembers and the kernel has: the ledger is brought up to it.</summary>
    KeepMounts,

    /// <summary>The ledger as it is: the agent forgets what it saw beyond it, and reconciles as usual.</summary>
    TrustLedger,
}

/// <summary>
/// The events by which a mountpoint whose ledger is behind is decided: pure. They end with the resolution of drift <c>ledger-behind</c>.
/// </summary>
public static class BehindRules
{
    /// <summary>What <see cref="KeepMounts"/> would come to, in words.</summary>
    public static string Describe(MountState? kept) => kept switch
    {
        null => "record that it was given up after the backup was made, unless the ledger's own mount is still there",
        { Attachments.IsEmpty: true } => "record its mount, which was on its way out",
        _ => $"record {kept.Attachments.Count} attachment{(kept.Attachments.Count == 1 ? "" : "s")} and the mount of {kept.Spec}, as this agent had recorded them",
    };

    /// <summary>Only what kept the mountpoint from being decided is over; what follows from the ledger as it is follows.</summary>
    public static ImmutableArray<MountEvent> TrustLedger(string detail) => [new MountEvent.DriftResolved(DriftKind.LedgerBehind, detail)];

    /// <summary>
    /// Brings the ledger up to what was recorded before and to what is there now. Attachments are as they were kept, because those were acknowledged;
    /// the mount is what the kernel has: one of ours by its id is taken over as ours, and one that is not there is made again by the usual repair.
    /// </summary>
    /// <param name="ledger">What the ledger says, too old.</param>
    /// <param name="kept">What the agent had recorded last; null when it knew of no mount and no attachment here.</param>
    /// <param name="seen">What the kernel has at the path, compared with the kept spec.</param>
    /// <param name="kernel">Where it was seen.</param>
    /// <param name="detail">Who is right and why, for the history.</param>
    public static ImmutableArray<MountEvent> KeepMounts(MountState ledger, MountState? kept, Observation seen, KernelIdentity kernel, string detail)
    {
        var events = ImmutableArray.CreateBuilder<MountEvent>();
        var isUnderWay = ledger.Operation is not null || ledger.Uncertain;
        var ours = Ours(kept, seen, kernel) ?? Ours(ledger, seen, kernel);
        var isLedgers = !isUnderWay && ours is not null && ledger.Kernel is { } mount && mount.IsOf(kernel) && mount.MountId == ours.MountId;

        if (isUnderWay)
            events.Add(new MountEvent.OperationSettled(ledger.Operation?.Kind ?? OperationKind.Mount, SettledAs.Absent, detail));
        else if (ledger.Kernel is not null && !isLedgers)
            events.Add(new MountEvent.OperationSettled(OperationKind.Unmount, SettledAs.Absent, "the mount that the ledger knows is not there any more"));

        // Whoever is only in the ledger had left by what was recorded later; if nothing was kept, a mount that is still there speaks for them.
        var wanted = kept?.Attachments ?? (ours is null ? AttachmentSet.Empty : ledger.Attachments);
        events.AddRange(ledger.Attachments.Keys.Where(key => !wanted.ContainsKey(key))
            .Select(key => new MountEvent.AttachmentRemoved(key.Volume, key.Consumer, RemovalReason.Detached)));

        MountEvent? exchanged = null;
        var spec = SpecOf(kept, ours, wanted.IsEmpty) ?? ledger.Spec;
        var remaining = ledger.Attachments.Keys.Any(wanted.ContainsKey);
        if (spec is not null && (spec != ledger.Spec || (!remaining && !wanted.IsEmpty)) && (!wanted.IsEmpty || ours is not null))
        {
            events.Add(new MountEvent.MountRequested(
                spec.Source, spec.FsType, spec.Options, Math.Max(ledger.Generation, (kept?.Generation ?? 0) - 1) + 1));
        }
        events.AddRange(wanted.Where(attachment => !ledger.Attachments.ContainsKey(attachment.Key))
            .Select(attachment => new MountEvent.AttachmentAdded(attachment.Volume, attachment.Consumer, attachment.OnFailure)));

        if (ours is not null && !isLedgers && spec is not null)
        {
            // What is there was made for something else than what is wanted by now: it is taken over as what it is, and then exchanged.
            if (!wanted.IsEmpty && (kept?.Kernel?.Spec ?? spec) is var made && made != spec)
            {
                events.Add(new MountEvent.MountRequested(made.Source, made.FsType, made.Options, Math.Max(ledger.Generation, kept!.Generation) + 1));
                exchanged = new MountEvent.MountRequested(spec.Source, spec.FsType, spec.Options, Math.Max(ledger.Generation, kept.Generation) + 2);
            }
            var isAdopted = (kept ?? ledger).Kernel?.Adopted == true;
            events.Add(new MountEvent.MountAdopted(
                kernel.BootId, kernel.MountNamespaceId, ours.MountId, Ours: !isAdopted,
                isAdopted || (kept ?? ledger).OwnedDirectories.IsEmpty ? null : (kept ?? ledger).OwnedDirectories));
            if (exchanged is not null) events.Add(exchanged);
            events.AddRange(DriftRules.Over(ledger, "taken over as it is"));
        }
        events.Add(new MountEvent.DriftResolved(DriftKind.LedgerBehind, detail));
        return events.ToImmutable();
    }

    /// <summary>While somebody needs it, what is wanted; on its way out, what it was made with.</summary>
    private static MountSpec? SpecOf(MountState? kept, ObservedMount? ours, bool nobodyNeedsIt) =>
        kept is null ? null : nobodyNeedsIt && ours is not null ? kept.Kernel?.Spec ?? kept.Operation?.Spec ?? kept.Spec : kept.Spec;

    /// <summary>The mount of this state among those at its path, whether its operation had been recorded to its end or not.</summary>
    private static ObservedMount? Ours(MountState? state, Observation seen, KernelIdentity kernel)
    {
        if (state?.Kernel is { } mount && DriftRules.OursAmong(seen, mount, kernel) is { } made) return made;
        return state?.Operation is { MountId: { } id } operation && operation.IsOf(kernel) ? seen.Mounts.FirstOrDefault(candidate => candidate.MountId == id) : null;
    }
}
