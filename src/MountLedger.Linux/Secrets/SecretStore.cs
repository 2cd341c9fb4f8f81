using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// The secrets of a host: one file each, in one directory that only its owner may write, read anew for each call. A file is
/// used only if nobody but root (or the account that this process runs as) could have read or written it; what is wrong is
/// said with the secret's name and a command that puts it right, never with any of its content.
/// </summary>
/// <param name="directory">Absolute; null when none is configured.</param>
internal sealed class SecretStore(string? directory)
{
    /// <summary>Longer than any password or key pair that a mount helper takes in one line.</summary>
    public const int BytesMax = 4096;

    private const uint OthersMayRead = 0b000_111_111;
    private const uint OthersMayWrite = 0b000_010_010;

    /// <exception cref="KernelFailure">There is no such secret, or it is not fit for use.</exception>
    public Secret Read(string name)
    {
        if (directory is null) throw Unfit(Errno.ENOENT, name, "no secretsDir is configured", "name the directory of secrets in the agent's configuration");
        if (!SecretRules.IsName(name)) throw Unfit(Errno.EINVAL, name, "that is no name", "use letters, digits and _ . -");
        using var folder = OpenFolder(name);
        var number = PathCalls.OpenAt(
            folder.Number, name, PathCalls.O_RDONLY | PathCalls.O_NONBLOCK | PathCalls.O_NOCTTY,
            PathCalls.RESOLVE_BENEATH | PathCalls.RESOLVE_NO_SYMLINKS | PathCalls.RESOLVE_NO_MAGICLINKS, out var errno);
        if (number < 0) throw NotOpened(errno, name);
        using var file = new Descriptor(number);
        CheckFile(file, name);
        return ReadAll(file, name);
    }

    private Descriptor OpenFolder(string name)
    {
        var number = PathCalls.OpenAt(PathCalls.AT_FDCWD, directory!, PathCalls.O_RDONLY | PathCalls.O_DIRECTORY, PathCalls.RESOLVE_NO_MAGICLINKS, out var errno);
        if (number < 0) throw Unfit(errno, name, $"the directory {directory} cannot be opened", $"install -d -m 0700 {directory}");
        var folder = new Descriptor(number);
        var facts = FileCalls.Status(folder.Number, out errno);
        var why = errno != 0 ? "cannot be looked at"
            : !IsOurs(facts.Owner) ? $"belongs to user {facts.Owner}"
            : (facts.Mode & OthersMayWrite) != 0 ? "can be written by others" : null;
        if (why is null) return folder;
        folder.Dispose();
        throw Unfit(errno != 0 ? errno : Errno.EPERM, name, $"the directory {directory} {why}", $"chown root:root {directory} && chmod 0700 {directory}");
    }

    private void CheckFile(Descriptor file, string name)
    {
        var facts = FileCalls.Status(file.Number, out var errno);
        KernelFailure.ThrowIf(errno, $"secret {name}: it cannot be looked at");
        var path = $"{directory}/{name}";
        if (!facts.IsFile) throw Unfit(Errno.EINVAL, name, $"{path} is no regular file", "put a file there");
        if (!IsOurs(facts.Owner)) throw Unfit(Errno.EPERM, name, $"{path} belongs to user {facts.Owner}", $"chown root:root {path}, and change the secret: that user may have read it");
        if ((facts.Mode & OthersMayRead) != 0)
            throw Unfit(Errno.EPERM, name, $"{path} has mode {Convert.ToString(facts.Mode & 0xFFF, 8).PadLeft(4, '0')}", $"chmod 0600 {path}, and change the secret if others have read it");
        if (facts.Size > BytesMax) throw Unfit(Errno.EFBIG, name, $"{path} has {facts.Size} bytes", $"a secret has at most {BytesMax}");
        if (facts.Size == 0) throw Unfit(Errno.EINVAL, name, $"{path} is empty", $"write the secret to it, with no line break: printf %s … >{path}");
    }

    private Secret ReadAll(Descriptor file, string name)
    {
        var path = $"{directory}/{name}";
        var buffer = GC.AllocateArray<byte>(BytesMax + 1, pinned: true);
        try
        {
            var length = 0;
            while (length < buffer.Length)
            {
                var count = FileCalls.Read(file.Number, buffer.AsSpan(length), out var errno);
                if (errno == Errno.EINTR) continue;
                KernelFailure.ThrowIf(errno, $"secret {name}: {path} cannot be read");
                if (count == 0) break;
                length += count;
            }
            if (length > BytesMax) throw Unfit(Errno.EFBIG, name, $"{path} grew beyond {BytesMax} bytes while it was read", "write it to another file and rename that");
            if (length == 0) throw Unfit(Errno.EINVAL, name, $"{path} is empty", $"write the secret to it, with no line break: printf %s … >{path}");
            var value = GC.AllocateArray<byte>(length, pinned: true);
            buffer.AsSpan(0, length).CopyTo(value);
            var secret = new Secret(name, value);
            if (Flaw(value) is not { } flaw) return secret;
            secret.Dispose();
            throw Unfit(Errno.EINVAL, name, $"{path} {flaw}", $"a secret is one line of text, without its line break: printf %s … >{path}");
        }
        finally
        {
            System.Security.Cryptography.CryptographicOperations.ZeroMemory(buffer);
        }
    }

    /// <summary>What programs would cut a secret at, or take for the end of it; told before it becomes a wrong password.</summary>
    private static string? Flaw(ReadOnlySpan<byte> value)
    {
        if (value.Contains((byte)0)) return "contains a NUL byte";
        if (value[^1] == '\n' && value.IndexOfAny((byte)'\n', (byte)'\r') == value.Length - 1) return "ends with a line break";
        if (value.IndexOfAny((byte)'\n', (byte)'\r') >= 0) return "has more than one line";
        return System.Text.Unicode.Utf8.IsValid(value) ? null : "is not valid UTF-8";
    }

    private KernelFailure NotOpened(int errno, string name)
    {
        var path = $"{directory}/{name}";
        return errno switch
        {
            Errno.ENOENT => Unfit(errno, name, $"there is no file {path}", $"printf %s … >{path} && chmod 0600 {path}"),
            Errno.ELOOP or Errno.EXDEV => Unfit(errno, name, $"{path} is a link", "put the file itself there"),
            _ => Unfit(errno, name, $"{path} cannot be opened", "make it a file of root with mode 0600"),
        };
    }

    private static bool IsOurs(uint owner) => owner == 0 || owner == FileCalls.EffectiveUser();

    private static KernelFailure Unfit(int errno, string name, string what, string remedy) => new(errno, $"secret {name}: {what}; {remedy}");
}
