using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// Where helpers mount: directories of a private tmpfs that only root can enter, one tmpfs for each worker, named by its pid.
/// What is still mounted there when a place is given back, or when its worker is gone, is undone; no name is ever used twice,
/// because a daemon that ends long after may still unmount by the path it was given.
/// </summary>
internal sealed class Staging(string directory)
{
    private const int UndoAttemptsMax = 32;
    private const int RemoveAttemptsMax = 4;
    private const int WorkersMax = 4096;
    private const int PlacesMax = 4096;
    private const string NoteSuffix = ".helper";
    private const string SecretSuffix = ".secret";

    private static readonly Lock Making = new();
    private static int lastPlace;
    private Descriptor? root;

    private string Own => $"{directory}/{Environment.ProcessId}";

    /// <summary>One directory for one helper.</summary>
    internal sealed class Place(Descriptor root, string path) : IDisposable
    {
        private readonly List<string> _secrets = [];

        public string Path => path;

        private string Name => path[(path.LastIndexOf('/') + 1)..];

        /// <summary>The topmost mount here, as an open directory; null when nothing is mounted.</summary>
        public Descriptor? Mounted()
        {
            var leaf = PathWalk.OpenChild(root, Name, out _);
            if (leaf is not null && MountQueryCalls.Describe(leaf.Number, out var facts) == 0 && facts.IsMountRoot) return leaf;
            leaf?.Dispose();
            return null;
        }

        /// <summary>Remembers who works here, for whoever has to end it when this process does not live to do so.</summary>
        /// <param name="line">For <see cref="HelperSearch.KillNoted"/>.</param>
        public void Note(string line)
        {
            try
            {
                File.AppendAllText(path + NoteSuffix, line + "\n");
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                // No room for a note: its arguments give it away as well.
            }
        }

        /// <summary>
        /// A secret as a file beside this place, for a program that takes one in no better way: on this tmpfs, so never on a disk,
        /// for its owner alone, and there only until this place is given back.
        /// </summary>
        /// <returns>Its path.</returns>
        /// <exception cref="KernelFailure">It cannot be written.</exception>
        public string WriteSecret(Secret secret)
        {
            var name = $"{Name}.{_secrets.Count}{SecretSuffix}";
            var number = PathCalls.OpenAt(
                root.Number, name, PathCalls.O_WRONLY | PathCalls.O_CREAT | PathCalls.O_EXCL, PathCalls.RESOLVE_NO_SYMLINKS, out var errno,
                Convert.ToUInt32("600", 8));
            KernelFailure.ThrowIf(number < 0 ? errno : 0, $"secret {secret.Name}: its file for the helper cannot be made");
            _secrets.Add($"{path[..path.LastIndexOf('/')]}/{name}");
            using var file = new Descriptor(number);
            KernelFailure.ThrowIf(FileCalls.WriteAll(file.Number, secret.Reveal()), $"secret {secret.Name}: its file for the helper cannot be written");
            return _secrets[^1];
        }

        public void Dispose()
        {
            // First of all the mount: whatever else fails, nothing stays mounted here that nobody knows of.
            Undo(root, Name);
            foreach (var file in _secrets.Append(path + NoteSuffix)) Remove(file);
        }

        /// <summary>What cannot be removed even then goes with the tmpfs, when this worker ends.</summary>
        private static void Remove(string file)
        {
            for (var attempt = 0; attempt < RemoveAttemptsMax; attempt++)
            {
                try
                {
                    File.Delete(file);
                    return;
                }
                catch (Exception e) when (e is IOException or UnauthorizedAccessException)
                {
                    Thread.Sleep(1);
                }
            }
        }
    }

    /// <exception cref="KernelFailure">The tmpfs or the directory cannot be made.</exception>
    public Place Open()
    {
        var parent = Root();
        // Unique in this boot, with the pid above it; nobody but root gets to see it.
        var name = string.Create(
            System.Globalization.CultureInfo.InvariantCulture, $"{System.Diagnostics.Stopwatch.GetTimestamp():x}-{Interlocked.Increment(ref lastPlace)}");
        KernelFailure.ThrowIf(PathCalls.MakeDirectory(parent.Number, name, Convert.ToUInt32("700", 8)), "a staging directory cannot be made");
        return new Place(parent, $"{Own}/{name}");
    }

    /// <summary>
    /// Undoes what dead workers left: kills the helpers that still run, unmounts what they mounted, removes the directories.
    /// </summary>
    /// <param name="directory">The staging directory of all workers.</param>
    /// <param name="dead">Names (pids) of the workers.</param>
    /// <returns>Paths at which something was mounted that nobody will take over any more.</returns>
    public static IReadOnlyList<string> Sweep(string directory, IEnumerable<string> dead)
    {
        var undone = new List<string>();
        foreach (var worker in dead.Take(WorkersMax).Select(name => $"{directory}/{name}"))
        {
            using var root = OpenDirectory(worker);
            if (root is null) continue;
            foreach (var name in NamesIn(root))
            {
                HelperSearch.Kill($"{worker}/{name}");
                foreach (var line in NoteOf($"{worker}/{name}")) HelperSearch.KillNoted(line);
                if (Undo(root, name)) undone.Add($"{worker}/{name}");
            }
            for (var i = 0; i < UndoAttemptsMax && MountCalls.Unmount(worker, MountCalls.MNT_DETACH | MountCalls.UMOUNT_NOFOLLOW) == 0; i++) { }
            PathCalls.RemoveDirectory(PathCalls.AT_FDCWD, worker);
        }
        return undone;
    }

    /// <summary>The workers that have a staging directory, living or dead.</summary>
    public static IReadOnlyList<string> WorkersIn(string directory) =>
        Directory.Exists(directory)
            ? [.. Directory.EnumerateDirectories(directory).Take(WorkersMax).Select(path => Path.GetFileName(path))]
            : [];

    /// <returns>Whether something was mounted there.</returns>
    private static bool Undo(Descriptor root, string name)
    {
        var found = false;
        // A helper that is late may mount between our unmount and our rmdir, which then fails; after it, it cannot.
        for (var attempt = 0; attempt < UndoAttemptsMax; attempt++)
        {
            var path = $"/proc/self/fd/{root.Number}/{name}";
            if (MountCalls.Unmount(path, MountCalls.MNT_DETACH | MountCalls.UMOUNT_NOFOLLOW) == 0)
            {
                found = true;
                continue;
            }
            if (PathCalls.RemoveDirectory(root.Number, name) != Errno.EBUSY) break;
        }
        return found;
    }

    private Descriptor Root()
    {
        lock (Making) return root ??= Make();
    }

    private Descriptor Make()
    {
        const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
        try
        {
            Directory.CreateDirectory(directory, OwnerOnly);
            Directory.CreateDirectory(Own, OwnerOnly);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new KernelFailure(Errno.EACCES, $"the staging directory {Own} cannot be made: {e.Message}");
        }
        using var below = OpenDirectory(Own) ?? throw new KernelFailure(Errno.ENOENT, $"the staging directory {Own} cannot be opened");
        var mount = DetachedMount.Make(MountPlan.Of(new MountSpec("mountledger-staging", "tmpfs", ["mode=700", "nodev", "noexec", "nosuid", "size=4m"])));
        try
        {
            KernelFailure.ThrowIf(MountCalls.Attach(mount.Number, below.Number), $"the staging tmpfs cannot be attached at {Own}");
            // Where the directory lies on a shared mount, what is mounted in here must not appear in other namespaces, and a mount
            // below a shared one cannot be moved.
            KernelFailure.ThrowIf(MountCalls.MakePrivate(mount.Number), "mount_setattr of the staging tmpfs: mount helpers need Linux 5.12 or newer");
            return mount;
        }
        catch
        {
            mount.Dispose();
            throw;
        }
    }

    private static string[] NoteOf(string place)
    {
        try
        {
            return File.Exists(place + NoteSuffix) ? File.ReadAllLines(place + NoteSuffix) : [];
        }
        catch (IOException)
        {
            return [];
        }
    }

    private static IReadOnlyList<string> NamesIn(Descriptor root)
    {
        try
        {
            return [.. Directory.EnumerateDirectories($"/proc/self/fd/{root.Number}").Take(PlacesMax).Select(path => Path.GetFileName(path))];
        }
        catch (IOException)
        {
            return [];
        }
    }

    private static Descriptor? OpenDirectory(string path)
    {
        var number = PathCalls.OpenAt(
            PathCalls.AT_FDCWD, path, PathCalls.O_PATH | PathCalls.O_DIRECTORY, PathCalls.RESOLVE_NO_MAGICLINKS, out _);
        return number < 0 ? null : new Descriptor(number);
    }
}
