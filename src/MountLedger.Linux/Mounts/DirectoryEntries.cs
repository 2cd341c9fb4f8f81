using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>Whether a directory holds anything. It is read, so it can block where its filesystem does.</summary>
internal static class DirectoryEntries
{
    /// <summary>Null when it is no directory or cannot be read.</summary>
    /// <param name="directory">Opened without following a link; O_PATH will do.</param>
    public static bool? Any(Descriptor directory)
    {
        try
        {
            // By the descriptor, so that it is this directory and no other. The slash makes the kernel go through the magic link.
            return Directory.EnumerateFileSystemEntries($"/proc/self/fd/{directory.Number}/").Any();
        }
        catch (IOException)
        {
            return null;
        }
        catch (UnauthorizedAccessException)
        {
            return null;
        }
    }
}
