namespace MountLedger;

/// <summary>Which state answers a command: pure, so that a repeat finds the same answer in the history.</summary>
public static class OutcomeOf
{
    /// <summary>
    /// What <paramref name="command"/>, recorded up to <paramref name="version"/>, came to in <paramref name="state"/>;
    /// null while that is open.
    /// </summary>
    public static CommandResult? Command(MountCommand command, MountState state, long version) => command switch
    {
        MountCommand.Mount mount => Mount(mount, state, version),
        MountCommand.Unmount unmount => Unmount(unmount, state, version),
        MountCommand.Remount remount => Remount(remount, state, version),
        _ => null,
    };

    private static CommandResult? Mount(MountCommand.Mount command, MountState state, long version)
    {
        if (state.Attachments.TryGetValue(command.Attachment, out var attachment))
        {
            if (state.Holds)
                return new CommandResult.Done(attachment.First ? Outcome.Mounted : Outcome.Attached, state);
            // Rule 9: the failure is told at once, though somebody who asked for retries stays attached.
            return FailureSince(state, version, OperationKind.Mount);
        }
        // Forgotten with the failed mount, or detached by somebody while this caller waited: no success in either case.
        return FailureSince(state, version, OperationKind.Mount) ?? new CommandResult.Failed(
            new OperationError(
                OperationKind.Mount, "ECANCELED",
                $"mount {state.Mountpoint}: the attachment of {command.Attachment.Consumer} was removed while its mount was awaited",
                [], Attempt: 1, RetryAt: null, state.Version),
            state);
    }

    private static CommandResult? Unmount(MountCommand.Unmount command, MountState state, long version)
    {
        if (state.Attachments.ContainsKey(command.Attachment)) return new CommandResult.Done(Outcome.Detached, state);
        if (!state.Attachments.IsEmpty) return new CommandResult.Done(Outcome.Detached, state); // rules 5 and 8
        if (state is { Kernel: null, Operation: null, Uncertain: false })
        {
            // Nothing followed the request: there was no mount to take away (rule 6: or an adopted one, which was let go).
            var nothingWasThere = FailureSince(state, version, OperationKind.Mount) is not null;
            var unmounted = state.Version > version && !state.Released && !nothingWasThere;
            return new CommandResult.Done(unmounted ? Outcome.Unmounted : Outcome.Detached, state);
        }
        // A failure without a time is that of a try before the mode that was asked for, which is due at once.
        return command.Mode != UnmountMode.Normal && state.Error is { RetryAt: null }
            ? null
            : FailureSince(state, version, OperationKind.Unmount);
    }

    private static CommandResult? Remount(MountCommand.Remount command, MountState state, long version)
    {
        if (state.Remount is not null || state.Uncertain || state.Operation is { Kind: OperationKind.Remount }) return null;
        if (FailureSince(state, version, OperationKind.Remount) is { } failed) return failed;
        return state.Holds && RemountRules.AreThere(command, state)
            ? new CommandResult.Done(Outcome.Remounted, state)
            : new CommandResult.Failed(
                new OperationError(
                    OperationKind.Remount, "ECANCELED",
                    $"remount {state.Mountpoint}: the mount was taken away or changed again while this one was awaited",
                    [], Attempt: 1, RetryAt: null, state.Version),
                state);
    }

    private static CommandResult.Failed? FailureSince(MountState state, long version, OperationKind kind) =>
        state.Error is { } error && error.Operation == kind && error.AtVersion > version
            ? new CommandResult.Failed(error, state)
            : null;
}
