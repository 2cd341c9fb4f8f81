using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// Something that the kernel refused while a mount was made, with what it wrote about it. Thrown and caught within
/// MountLedger.Linux only; what leaves it is a <see cref="KernelError"/>.
/// </summary>
internal sealed class KernelFailure : Exception
{
    public KernelFailure(int errno, string step, string? log = null) : base(step)
    {
        Number = errno;
        Log = log;
    }

    public int Number { get; }

    public string? Log { get; }

    /// <summary>One line: what was tried, the error's name, the step, what the kernel said, and a remedy where one is known.</summary>
    public KernelError ToError(OperationKind operation, string tried) =>
        Error(operation, Number, tried, string.IsNullOrEmpty(Log) ? Message : $"{Message}; kernel said: {Log}");

    public static KernelError Error(OperationKind operation, int errno, string tried, string detail)
    {
        if (errno == Errno.ENOSYS) detail += $"; this is Linux {KernelIdentityReader.ReadKernelRelease()}, or a seccomp filter hides the call";
        var text = $"{tried}: {Errno.Name(errno)} ({detail})";
        return KernelError.Of(operation, Errno.Name(errno), text.ReplaceLineEndings(" "), Errno.IsTransient(errno));
    }

    /// <summary>Throws unless <paramref name="errno"/> is 0.</summary>
    public static void ThrowIf(int errno, string step)
    {
        if (errno != 0) throw new KernelFailure(errno, step);
    }
}
