using System.Buffers;
using System.Text.Json;

namespace MountLedger.Agent;

/// <summary>
/// What the agent has seen of its ledger, kept in the state directory: for each mountpoint that is not absent its newest head (version, hash, folded state),
/// and the newest event of all. By these it knows a ledger that was restored from a backup, and what that one has lost. A log of lines
/// (<see cref="HeadsLine"/>), written before an append is answered, made anew when it has grown; a line that is torn or damaged is one line less.
/// </summary>
/// <remarks>
/// Written without waiting for the disk, so what is lost with the power is what came after the last flush, a part of a second; with the power the mounts are gone as well. When it
/// cannot be written (a full disk) the agent goes on, says so, and writes everything as soon as it can.
/// </remarks>
public sealed class HeadsMemory : IKeptHeads, IDisposable
{
    private const long LogBytesMin = 1 << 20;

    /// <summary>After one that failed: all that is known is read and written for it.</summary>
    private static readonly TimeSpan RewriteDelay = TimeSpan.FromSeconds(1);

    private const int GrowthMax = 4;

    private readonly string _path;
    private readonly ILogger _logger;
    private readonly Lock _lock = new();
    private readonly Lock _rewriting = new();
    private readonly HeadsFile _onDisk;
    private readonly HeadsContent _content;
    private readonly HashSet<string> _whole = new(StringComparer.Ordinal);
    private FileStream? _file;
    private ArrayBufferWriter<byte>? _meanwhile;
    private bool _isFed;
    private bool _mustRewrite;
    private bool _isDirty;
    private long _retryAt;
    private long _appends;
    private long _rewriteAt = LogBytesMin;

    private HeadsMemory(string stateDir, string host, ILogger logger)
    {
        (_path, _logger) = (Path.Combine(stateDir, "heads"), logger);
        _onDisk = new HeadsFile(_path, host, logger);
        _content = new HeadsContent(host);
    }

    /// <summary>The newest event that was recorded; null when none is known.</summary>
    public (long Seq, string Hash)? Newest { get; private set; }

    /// <summary>How many appends this agent has made since its start.</summary>
    public long Appends => Volatile.Read(ref _appends);

    /// <summary>Why the file cannot be written at the moment; null when it can.</summary>
    public string? Problem { get; private set; }

    /// <summary>Whether what else is kept beside the file may be about this host: it is not when the file is another one's.</summary>
    public bool MayBeOfThisHost => _onDisk.MayBeOfThisHost;

    /// <summary>Opens what is there. Nothing about it can keep the agent from starting.</summary>
    public static HeadsMemory Open(string stateDir, string host, ILogger logger)
    {
        var memory = new HeadsMemory(stateDir, host, logger);
        memory.ReadNewest();
        return memory;
    }

    /// <summary>
    /// Takes in all that the file says, for the ledger seems to be behind. <paramref name="lost"/>: which of these heads the ledger has lost;
    /// <paramref name="present"/>: the mountpoints that it believes in. From then on those are kept as they are until they are decided.
    /// </summary>
    /// <returns>How many mountpoints are concerned.</returns>
    internal async Task<int> FoundBehindAsync(
        Func<IReadOnlyCollection<(string Mountpoint, long Version, string? Hash)>, Task<IReadOnlyCollection<string>>> lost, IEnumerable<string> present)
    {
        lock (_lock)
        {
            // While the agent runs it knows better than the file; of what has not changed since its start only the hashes are there.
            if (_isFed) TakeHashes(_onDisk.ReadContent());
            else Load();
        }
        var gone = await lost([.. _content.Heads.Select(head => (head.Key, head.Value.State.Version, head.Value.Hash))]);
        // What the ledger believes in and nothing is kept of was given up after the backup was made.
        string[] concerned = [.. gone.Concat(present.Where(mountpoint => !_content.Heads.ContainsKey(mountpoint))).Distinct(StringComparer.Ordinal)];
        lock (_lock)
        {
            foreach (var mountpoint in concerned)
            {
                var known = _content.Behind.GetValueOrDefault(mountpoint)?.Kept ?? _content.Heads.GetValueOrDefault(mountpoint);
                _content.Behind[mountpoint] = new BehindHead(known, Marked: false);
                _content.Heads.Remove(mountpoint);
            }
            // From here on it is this ledger whose newest event is remembered.
            Newest = null;
            _mustRewrite = true;
        }
        Upkeep();
        return concerned.Length;
    }

    /// <summary>There are mountpoints that an operator has not decided: all that is kept of them is read.</summary>
    public IReadOnlyCollection<(string Mountpoint, MountState? Kept, bool Marked)> Behind()
    {
        lock (_lock) return [.. _content.Behind.Select(line => (line.Key, line.Value.Kept?.State, line.Value.Marked))];
    }

    public void Marked(string mountpoint) => Note(mountpoint, "marked", behind => behind with { Marked = true });

    public void Decided(string mountpoint) => Note(mountpoint, "decided", _ => null);

    /// <summary>An append to a mountpoint's stream, at version <paramref name="before"/>, is in the ledger.</summary>
    internal void Recorded(MountState state, long before, AttachmentChanges changes, RecordedEvent last)
    {
        lock (_lock)
        {
            _appends++;
            var known = _content.Heads.GetValueOrDefault(state.Mountpoint);
            if (known is not null && known.State.Version >= state.Version) return;
            var head = new KeptHead(state, last.Hash);
            Keep(head);
            // Ten thousand attachments are not written again with each one that comes or goes.
            var isChange = known?.State.Version == before && _whole.Contains(state.Mountpoint);
            Write(last.Seq, last.Hash, json => WriteHead(json, head, isChange ? (before, changes) : null));
        }
    }

    /// <summary>An event of the host's own stream is in the ledger.</summary>
    internal void Recorded(RecordedEvent last)
    {
        lock (_lock)
        {
            _appends++;
            Write(last.Seq, last.Hash, static json => json.WriteString("k", "host"));
        }
    }

    /// <summary>A state was read from the ledger. Written only if it is newer than what is known: somebody else has appended.</summary>
    internal void Read(MountState state)
    {
        lock (_lock)
        {
            var known = _content.Heads.GetValueOrDefault(state.Mountpoint);
            if (known is null ? !IsKept(state) : known.State.Version >= state.Version) return;
            var head = new KeptHead(state, Hash: null);
            Keep(head);
            // After a start that found nothing wrong the file holds these already; what it holds less of is written with the next change.
            if (known is not null) Write(0, null, json => WriteHead(json, head, null));
        }
    }

    /// <summary>Puts on the disk what was written, and makes the file anew when it must be. Called a few times each second; never throws.</summary>
    public void Upkeep()
    {
        lock (_rewriting)
        {
            try
            {
                bool rewrite, flush;
                lock (_lock)
                {
                    rewrite = (_mustRewrite || _file?.Length > _rewriteAt) && Environment.TickCount64 >= _retryAt;
                    // What is written from here on is flushed the next time.
                    (flush, _isDirty) = (_isDirty, false);
                }
                if (rewrite) Rewrite();
                else if (flush && _file is { } file) RandomAccess.FlushToDisk(file.SafeFileHandle);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                _retryAt = Environment.TickCount64 + (long)RewriteDelay.TotalMilliseconds;
                lock (_lock) Failed(e);
            }
        }
    }

    public void Dispose()
    {
        Upkeep();
        lock (_lock)
        {
            _file?.Dispose();
            _file = null;
        }
    }

    private static bool IsKept(MountState state) => state.Phase != Phase.Absent || !state.Attachments.IsEmpty;

    private void Keep(KeptHead head)
    {
        _isFed = true;
        if (IsKept(head.State)) _content.Heads[head.State.Mountpoint] = head;
        else _content.Heads.Remove(head.State.Mountpoint);
    }

    private void WriteHead(Utf8JsonWriter json, KeptHead head, (long Before, AttachmentChanges Attachments)? change)
    {
        json.WriteString("m", head.State.Mountpoint);
        if (!IsKept(head.State))
        {
            json.WriteString("k", "gone");
            _whole.Remove(head.State.Mountpoint);
            return;
        }
        json.WriteString("k", "head");
        if (change is { } made) HeadsContent.WriteChange(json, head, made.Before, made.Attachments);
        else HeadsContent.WriteFull(json, head);
        _whole.Add(head.State.Mountpoint);
    }

    private void Note(string mountpoint, string kind, Func<BehindHead, BehindHead?> change)
    {
        lock (_lock)
        {
            if (!_content.Behind.TryGetValue(mountpoint, out var behind)) return;
            if (change(behind) is { } next) _content.Behind[mountpoint] = next;
            else _content.Behind.Remove(mountpoint);
            Write(0, null, json =>
            {
                json.WriteString("m", mountpoint);
                json.WriteString("k", kind);
            });
        }
    }

    private void Write(long seq, string? hash, Action<Utf8JsonWriter> members)
    {
        if (seq > 0 && (Newest is null || seq > Newest.Value.Seq)) Newest = (seq, hash!);
        if (_file is null && _meanwhile is null) return; // It is made anew soon, with everything.
        var line = new ArrayBufferWriter<byte>(1024);
        HeadsLine.Write(line, seq, hash, members);
        _meanwhile?.Write(line.WrittenSpan);
        if (_file is null) return;
        try
        {
            _file.Write(line.WrittenSpan);
            _isDirty = true;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            Failed(e);
        }
    }

    /// <summary>What was written last may be half a line: nothing more is written to this file.</summary>
    private void Failed(Exception failure)
    {
        if (Problem is null) _logger.HeadsUnwritable(_path, failure.Message);
        Problem = failure.Message;
        _mustRewrite = true;
        _meanwhile = null;
        _file?.Dispose();
        _file = null;
    }

    /// <summary>A new file with all that is known, and with what is recorded while it is written; the old one is replaced in one step.</summary>
    private void Rewrite()
    {
        var before = _onDisk.ReadContent();
        KeptHead[] heads;
        KeyValuePair<string, BehindHead>[] behind;
        (long Seq, string Hash)? newest;
        lock (_lock)
        {
            TakeHashes(before);
            (heads, behind, newest) = ([.. _content.Heads.Values], [.. _content.Behind], Newest);
            _meanwhile = new ArrayBufferWriter<byte>();
            _mustRewrite = false;
            _whole.Clear();
            _whole.UnionWith(heads.Select(head => head.State.Mountpoint));
        }
        var next = _path + ".new";
        var file = new FileStream(next, FileMode.Create, FileAccess.Write, FileShare.Read, bufferSize: 0);
        try
        {
            _onDisk.Write(file, newest, heads, behind);
            RandomAccess.FlushToDisk(file.SafeFileHandle);
            lock (_lock)
            {
                // The old file failed meanwhile: what was recorded since then is in neither.
                if (_meanwhile is not { } meanwhile) throw new IOException(Problem);
                file.Write(meanwhile.WrittenSpan);
                _meanwhile = null;
                File.Move(next, _path, overwrite: true);
                _file?.Dispose();
                _file = file;
                _rewriteAt = LogBytesMin + (GrowthMax * file.Length);
                if (Problem is not null) _logger.HeadsWritableAgain(_path);
                Problem = null;
            }
        }
        catch
        {
            file.Dispose();
            File.Delete(next);
            throw;
        }
    }

    /// <summary>Only what tells whether the ledger is behind, and what is undecided: the heads of ten thousand mountpoints are read when they are needed.</summary>
    private void ReadNewest()
    {
        var lines = _onDisk.Lines(out var damaged);
        _mustRewrite = lines.Count == 0 || damaged > 0;
        if (damaged > 0) _logger.HeadsDamaged(_path, damaged);
        if (lines.Count == 0) return;
        foreach (var line in lines)
        {
            if (line.Seq > 0 && (Newest is null || line.Seq > Newest.Value.Seq)) Newest = (line.Seq, line.Hash);
        }
        // A line that begins with what is undecided, or ends it.
        if (lines.Any(line => line.Document.Span.IndexOf("\"k\":\"behind\""u8) >= 0)) Load();
        if (!_mustRewrite) OpenToAppend();
    }

    private void Load()
    {
        var content = _onDisk.ReadContent();
        foreach (var (mountpoint, head) in content.Heads) _content.Heads.TryAdd(mountpoint, head);
        foreach (var (mountpoint, behind) in content.Behind) _content.Behind.TryAdd(mountpoint, behind);
    }

    private void TakeHashes(HeadsContent content)
    {
        foreach (var (mountpoint, head) in content.Heads)
        {
            if (_content.Heads.TryGetValue(mountpoint, out var known) && known.Hash is null && known.State.Version == head.State.Version)
                _content.Heads[mountpoint] = known with { Hash = head.Hash };
        }
    }

    private void OpenToAppend()
    {
        try
        {
            _file = new FileStream(_path, FileMode.Append, FileAccess.Write, FileShare.Read, bufferSize: 0);
            _rewriteAt = LogBytesMin + (GrowthMax * _file.Length);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            Failed(e);
        }
    }
}
