using System.Collections.Concurrent;
using System.Net.Http.Json;
using System.Text.Json;

namespace MountLedger.Storm;

/// <summary>A mountpoint that clients use, and what is mounted there. <paramref name="HasOwnFiles"/>: files in it are gone with the mount.</summary>
internal sealed record Place(string Path, string Source, string Fstype, string[] Options, bool HasOwnFiles, bool IsPrivate);

/// <summary>
/// A consumer over the socket: mounts and unmounts, one request at a time, each with an idempotency key, and repeats the same request until
/// it is answered. So it knows at any time what must be so, and looks for itself that it is: a file that it left in its mount is there
/// until it detaches.
/// </summary>
internal sealed class StormClient(string name, HttpClient http, IReadOnlyList<Place> places, Tally tally, int seed)
{
    private const string Volume = "vol";
    private const int WaitSeconds = 10;
    private static readonly TimeSpan RetryDelay = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan AnswerMax = TimeSpan.FromSeconds(120);

    private readonly Random _random = new(seed);
    private readonly ConcurrentDictionary<string, ulong?> _attached = new(StringComparer.Ordinal);
    private int _requests;

    public string Name => name;

    /// <summary>Where it has been told that its mount holds, with the mount's unique id, and has not asked to leave since.</summary>
    public IReadOnlyDictionary<string, ulong?> Attached => _attached;

    /// <summary>What it waits for, with the last that it heard of it; null: nothing.</summary>
    public string? Current { get; private set; }

    /// <summary>Goes on until told to stop, and ends between two requests.</summary>
    public async Task RunAsync(PauseGate gate, CancellationToken stop)
    {
        try
        {
            while (!stop.IsCancellationRequested)
            {
                await gate.PassAsync(stop);
                try
                {
                    var place = places[_random.Next(places.Count)];
                    if (!_attached.ContainsKey(place.Path)) await MountAsync(place);
                    else if (place is { Fstype: "tmpfs", IsPrivate: true } && _random.Next(4) == 0) await RemountAsync(place);
                    else await UnmountAsync(place);
                }
                finally
                {
                    gate.Passed();
                }
            }
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            // The storm is over.
        }
    }

    /// <summary>Attaches once and for all.</summary>
    public async Task HoldAsync(Place place)
    {
        while (!_attached.ContainsKey(place.Path)) await MountAsync(place);
    }

    private async Task MountAsync(Place place)
    {
        var (status, answer) = await AskAsync("/v1/mounts", new
        {
            mountpoint = place.Path,
            source = place.Source,
            fstype = place.Fstype,
            options = place.Options,
            volume = Volume,
            consumer = name,
            waitSeconds = WaitSeconds,
        });
        if (status == 200)
        {
            _attached[place.Path] = answer.GetProperty("kernel").GetProperty("mountId").GetUInt64();
            if (place.HasOwnFiles) LeaveFile(place);
            tally.Mounted();
            return;
        }
        Refused("mount", place, status, answer);
    }

    private async Task UnmountAsync(Place place)
    {
        if (place.HasOwnFiles && !File.Exists(FileIn(place)))
            tally.Violated($"{name} is attached at {place.Path}, and the file that it left in the mount is gone");
        if (place.HasOwnFiles) File.Delete(FileIn(place));
        _attached.TryRemove(place.Path, out _);
        var (status, answer) = await AskAsync(
            "/v1/unmounts", new { mountpoint = place.Path, volume = Volume, consumer = name, waitSeconds = WaitSeconds });
        if (status == 200)
        {
            if (answer.GetProperty("outcome").GetString() == "noop") tally.Violated($"{name} was attached at {place.Path}, and its detach found nothing");
            tally.Unmounted();
        }
        else
        {
            Refused("unmount", place, status, answer);
        }
    }

    private async Task RemountAsync(Place place)
    {
        var (status, answer) = await AskAsync(
            "/v1/remounts", new { mountpoint = place.Path, options = new[] { $"size={_random.Next(1, 9)}M" }, waitSeconds = WaitSeconds });
        if (status == 200) tally.Note("remounts");
        else Refused("remount", place, status, answer);
    }

    /// <summary>The same request until there is a definite answer to it.</summary>
    private async Task<(int Status, JsonElement Answer)> AskAsync(string route, object body)
    {
        var key = $"{name}-{++_requests}";
        var until = DateTime.UtcNow + AnswerMax;
        var last = "";
        while (DateTime.UtcNow < until)
        {
            Current ??= $"{route} {JsonSerializer.Serialize(body)}";
            try
            {
                using var request = new HttpRequestMessage(HttpMethod.Post, route) { Content = JsonContent.Create(body) };
                request.Headers.TryAddWithoutValidation("Idempotency-Key", key);
                using var answer = await http.SendAsync(request);
                last = await answer.Content.ReadAsStringAsync();
                // Not settled yet, or nobody can say now: the same again.
                if ((int)answer.StatusCode is not (202 or 503))
                {
                    Current = null;
                    return ((int)answer.StatusCode, JsonDocument.Parse(last).RootElement);
                }
            }
            catch (Exception e) when (e is HttpRequestException or TaskCanceledException or IOException)
            {
                last = e.Message;
            }
            Current = $"{route} {JsonSerializer.Serialize(body)}: {last}";
            tally.Repeated();
            await Task.Delay(RetryDelay);
        }
        tally.Violated($"{name}: {route} {JsonSerializer.Serialize(body)} has no answer after {AnswerMax.TotalSeconds} s, last: {last}");
        return (0, default);
    }

    /// <summary>A failure of the kernel side is an answer; a refusal must have a reason that the clients give.</summary>
    private void Refused(string what, Place place, int status, JsonElement answer)
    {
        if (status == 0) return;
        var problem = answer.GetProperty("type").GetString()!.Split('/')[^1];
        tally.Note($"{what} {status} {problem}");
        if (status == 422 || problem is "would-hide" or "not-mounted" or "remount-pending") return;
        tally.Violated($"{name}: {what} {place.Path} was answered {status} {answer}");
    }

    private void LeaveFile(Place place)
    {
        try
        {
            File.WriteAllText(FileIn(place), name);
        }
        catch (IOException e)
        {
            tally.Violated($"{name} was told that {place.Path} is mounted, and cannot write there: {e.Message}");
        }
    }

    private string FileIn(Place place) => Path.Combine(place.Path, $".{name}");
}

/// <summary>Lets the clients through, or holds them between two requests.</summary>
internal sealed class PauseGate
{
    private readonly Lock _lock = new();
    private TaskCompletionSource _open = Opened();
    private TaskCompletionSource _still = Opened();
    private int _inside;

    public async Task PassAsync(CancellationToken stop)
    {
        while (true)
        {
            Task open;
            lock (_lock)
            {
                if (_open.Task.IsCompleted)
                {
                    _inside++;
                    return;
                }
                open = _open.Task;
            }
            await open.WaitAsync(stop);
        }
    }

    public void Passed()
    {
        lock (_lock)
        {
            if (--_inside == 0 && !_open.Task.IsCompleted) _still.TrySetResult();
        }
    }

    /// <summary>Returns when nobody is at anything any more.</summary>
    public Task CloseAsync()
    {
        lock (_lock)
        {
            _open = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            _still = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            if (_inside == 0) _still.SetResult();
            return _still.Task;
        }
    }

    public void Open()
    {
        lock (_lock) _open.TrySetResult();
    }

    private static TaskCompletionSource Opened()
    {
        var opened = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        opened.SetResult();
        return opened;
    }
}

/// <summary>What has happened, for the report; and what must not have.</summary>
internal sealed class Tally
{
    private readonly ConcurrentDictionary<string, int> _notes = new(StringComparer.Ordinal);
    private readonly ConcurrentQueue<string> _violations = new();
    private long _mounts;
    private long _unmounts;
    private long _repeats;

    /// <summary>Successful mounts with a successful unmount each.</summary>
    public long Pairs => Math.Min(Interlocked.Read(ref _mounts), Interlocked.Read(ref _unmounts));

    public long Repeats => Interlocked.Read(ref _repeats);

    public IReadOnlyDictionary<string, int> Notes => _notes;

    public IReadOnlyCollection<string> Violations => _violations;

    public void Mounted() => Interlocked.Increment(ref _mounts);

    public void Unmounted() => Interlocked.Increment(ref _unmounts);

    public void Repeated() => Interlocked.Increment(ref _repeats);

    public void Note(string what) => _notes.AddOrUpdate(what, 1, (_, count) => count + 1);

    public void Violated(string what) => _violations.Enqueue(what);
}
