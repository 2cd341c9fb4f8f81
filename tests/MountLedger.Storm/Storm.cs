using System.Diagnostics;
using System.Globalization;

namespace MountLedger.Storm;

/// <summary>What came of a storm. <paramref name="Logs"/>: where what all lives of the agent said was kept, when something was violated.</summary>
internal sealed record StormResult(
    int Seed, int Kills, int AtPoints, IReadOnlyDictionary<string, int> ByPoint, IReadOnlyDictionary<string, int> ByVictim,
    IReadOnlyDictionary<string, int> Missed, long Pairs, long Repeats, int Starts, int Events, TimeSpan Took,
    IReadOnlyDictionary<string, int> Notes, IReadOnlyCollection<string> Violations, string? Logs)
{
    public double PairsBetweenKills => Kills == 0 ? 0 : (double)Pairs / Kills;
}

/// <summary>
/// A real agent with its workers and its own PostgreSQL, many clients, and one blow after the other. After each blow everything is started
/// again that has died, the clients finish what they are at, and all invariants are checked.
/// </summary>
internal sealed class Storm
{
    /// <summary>So many there are between two kills, on average; some blows take two kills.</summary>
    public const int PairsBetweenKillsMin = 10;

    private const int Clients = 12;
    private const int PairsBetween = 12;
    private const int WholeEvery = 25;
    private static readonly TimeSpan SlowMin = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan HeldMax = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan ServingMax = TimeSpan.FromSeconds(90);
    private static readonly TimeSpan WorkMax = TimeSpan.FromSeconds(90);

    private readonly Random _random;
    private readonly int _seed;
    private readonly Action<string> _say;
    private readonly StormAgent _agent;
    private readonly Tally _tally = new();
    private readonly PauseGate _gate = new();
    private readonly Inspection _inspection;
    private readonly List<StormClient> _clients = [];
    private readonly SortedDictionary<string, int> _byPoint = new(StringComparer.Ordinal);
    private readonly SortedDictionary<string, int> _byVictim = new(StringComparer.Ordinal);
    private readonly SortedDictionary<string, int> _missed = new(StringComparer.Ordinal);
    private int _kills;
    private int _atPoints;
    private int _starts = 1;

    private Storm(int seed, StormAgent agent, Action<string> say)
    {
        (_seed, _agent, _say) = (seed, agent, say);
        _random = new Random(seed);
        _inspection = new Inspection(agent, _tally, Vandalised);
    }

    /// <param name="kills">How many times somebody is killed.</param>
    /// <param name="seed">Decides which points and victims, in which order; what meets them is chance.</param>
    /// <param name="say">Gets a line now and then.</param>
    /// <param name="killsMax">Up to so many, until there were enough kills at a point and pairs between kills for the storm to say something.</param>
    public static async Task<StormResult> RunAsync(int kills, int seed, Action<string> say, int killsMax = 0)
    {
        RootEnvironment.Require();
        var clock = Stopwatch.StartNew();
        await using var agent = await StormAgent.StartAsync();
        var storm = new Storm(seed, agent, say);
        using var http = AgentProcess.ClientOf(agent.Process.Socket);
        http.Timeout = TimeSpan.FromSeconds(30);
        await storm.RunAsync(kills, Math.Max(kills, killsMax), http);
        var violations = storm._tally.Violations;
        return new StormResult(
            seed, storm._kills, storm._atPoints, storm._byPoint, storm._byVictim, storm._missed, storm._tally.Pairs, storm._tally.Repeats, storm._starts,
            storm._inspection.Events, clock.Elapsed, storm._tally.Notes, violations, violations.Count == 0 ? null : storm.KeepLogs());
    }

    private string Vandalised => _agent.Process.PathOf("vandalised");

    /// <summary>Of so many kills, the least that are to be at a point: of three blows, two are.</summary>
    public static int AtPointsMin(int kills) => kills / 3;

    private async Task RunAsync(int kills, int killsMax, HttpClient http)
    {
        using var stop = new CancellationTokenSource();
        for (var number = 0; number < Clients; number++)
            _clients.Add(new StormClient($"c{number}", http, PlacesOf(number), _tally, _seed * 1000 + number));
        var work = _clients.Select(client => Task.Run(() => client.RunAsync(_gate, stop.Token)))
            .Append(Task.Run(() => VandaliseAsync(http, stop.Token)))
            .Append(Task.Run(() => WatchStacksAsync(stop.Token))).ToArray();
        try
        {
            await WorkAsync();
            foreach (var blow in KillPlan.Blows(_random))
            {
                if (_kills >= killsMax || (_kills >= kills && IsEnough(kills)) || _tally.Violations.Count > 0) break;
                await StrikeAsync(blow);
                await ServeAsync();
                await CheckAsync(whole: _kills % WholeEvery == 0 || _kills >= kills);
                await WorkAsync();
            }
        }
        finally
        {
            await stop.CancelAsync();
            _gate.Open();
            await Task.WhenAll(work);
        }
    }

    private bool IsEnough(int kills) => _atPoints >= AtPointsMin(kills) && _tally.Pairs >= PairsBetweenKillsMin * _kills;

    /// <summary>Of one client: places of its own, some that all share, and a pair of which one is below the other.</summary>
    private List<Place> PlacesOf(int number)
    {
        var source = _agent.Process.Below($"source-{number}");
        List<Place> places =
        [
            new(_agent.Process.PathOf($"own-{number}/a"), "scratch", "tmpfs", ["size=4M"], HasOwnFiles: true, IsPrivate: true),
            new(_agent.Process.PathOf($"own-{number}/b"), "scratch", "tmpfs", [], HasOwnFiles: true, IsPrivate: true),
            new(_agent.Process.PathOf($"own-{number}/bind"), source, "bind", [], HasOwnFiles: false, IsPrivate: true),
            new(_agent.Process.PathOf($"shared/{number % 3}"), "scratch", "tmpfs", [], HasOwnFiles: true, IsPrivate: false),
            new(_agent.Process.PathOf($"nest-{number % 2}"), "scratch", "tmpfs", [], HasOwnFiles: true, IsPrivate: false),
            new(_agent.Process.PathOf($"nest-{number % 2}/below"), "scratch", "tmpfs", [], HasOwnFiles: true, IsPrivate: false),
        ];
        if (number % 4 == 0) places.Add(new(_agent.Process.PathOf($"own-{number}/fuse"), source, "fuse.bindfs", [], HasOwnFiles: false, IsPrivate: true));
        return places;
    }

    private async Task StrikeAsync(Blow blow)
    {
        if (blow.Point is not { } point)
        {
            await Task.Delay(_random.Next(0, 400));
            await KillAsync(blow.Victim, "(at any time)");
            return;
        }
        _agent.Arm(point, blow.Count);
        if (blow.Occasion == Occasion.Start)
        {
            await KillAsync(Victim.Agent, "(before a start)");
            Launch();
        }
        else if (blow.Occasion == Occasion.Settling)
        {
            await KillAsync(Victim.Worker, "(before a settling)");
        }
        if (await _agent.HeldAsync(HeldMax) is not { } held)
        {
            _missed[point] = _missed.GetValueOrDefault(point) + 1;
            return;
        }
        // Before its first worker, an agent has none to lose.
        var victim = blow.Victim == Victim.Worker && _agent.Process.Workers().Count == 0 ? Victim.Agent : blow.Victim;
        _atPoints++;
        await KillAsync(victim, point);
        // A worker that outlives its agent may be stuck for long, and sometimes is: the next agent has to bring about its end.
        if (!_agent.Process.HasExited || _random.Next(2) == 0) StormAgent.Continue(held);
    }

    private async Task KillAsync(Victim victim, string point)
    {
        await _agent.KillAsync(victim);
        _kills++;
        _byPoint[point] = _byPoint.GetValueOrDefault(point) + 1;
        _byVictim[victim.ToString()] = _byVictim.GetValueOrDefault(victim.ToString()) + 1;
        if (_kills % 10 == 0) _say($"{_kills} kills, {_tally.Pairs} pairs, {_starts} starts, last: {victim} at {point}");
    }

    private void Launch()
    {
        _starts++;
        _agent.Process.Launch();
    }

    /// <summary>Starts the agent again whenever it has ended, as a service manager does, until it takes commands.</summary>
    private async Task ServeAsync()
    {
        var until = DateTime.UtcNow + ServingMax;
        while (DateTime.UtcNow < until)
        {
            if (_agent.Process.HasExited) Launch();
            if ((await _agent.Process.ReadyAsync()).Status == 200) return;
            await Task.Delay(20);
        }
        _tally.Violated($"the agent does not serve {ServingMax.TotalSeconds} s after it was started: {await _agent.Process.ReadyAsync()}");
    }

    private async Task CheckAsync(bool whole)
    {
        var closed = _gate.CloseAsync();
        if (await Task.WhenAny(closed, Task.Delay(SlowMin)) != closed)
            _say($"  {SlowMin.TotalSeconds} s after the blow these are still at it: {string.Join("; ", _clients.Where(client => client.Current is not null).Select(client => $"{client.Name} {client.Current}"))}");
        await closed;
        await _inspection.RestAsync(SlowMin, _say);
        if (_tally.Violations.Count == 0) await _inspection.CheckAsync(_clients, whole);
        _gate.Open();
    }

    /// <summary>A storm in which nothing succeeds proves nothing.</summary>
    private async Task WorkAsync()
    {
        var (wanted, until) = (_tally.Pairs + PairsBetween, DateTime.UtcNow + WorkMax);
        while (_tally.Pairs < wanted && _tally.Violations.Count == 0)
        {
            if (DateTime.UtcNow > until)
            {
                _tally.Violated($"fewer than {PairsBetween} mounts and unmounts in {WorkMax.TotalSeconds} s although nothing is killed");
                return;
            }
            await Task.Delay(5);
        }
    }

    /// <summary>Somebody unmounts by hand what is held, again and again: it must be made again.</summary>
    private async Task VandaliseAsync(HttpClient http, CancellationToken stop)
    {
        var place = new Place(Vandalised, "scratch", "tmpfs", [], HasOwnFiles: false, IsPrivate: false);
        var holder = new StormClient("holder", http, [place], _tally, _seed);
        await holder.HoldAsync(place);
        while (!stop.IsCancellationRequested)
        {
            try
            {
                await _gate.PassAsync(stop);
            }
            catch (OperationCanceledException)
            {
                return;
            }
            using var umount = Process.Start(new ProcessStartInfo("umount", ["--no-canonicalize", place.Path]) { RedirectStandardError = true })!;
            await umount.WaitForExitAsync(CancellationToken.None);
            _tally.Note(umount.ExitCode == 0 ? "unmounted by hand" : "not there to be unmounted by hand");
            _gate.Passed();
            await Task.Delay(300, CancellationToken.None);
        }
    }

    /// <summary>Two mounts at one path, also for a moment: looked for all the time.</summary>
    private async Task WatchStacksAsync(CancellationToken stop)
    {
        while (!stop.IsCancellationRequested)
        {
            // A table that changes while it is read may show one mount twice, but not the same two mounts twice.
            if (Stacked() is { } first && Stacked() == first) _tally.Violated($"stacked: {first}");
            await Task.Delay(25, CancellationToken.None);
        }
    }

    private string? Stacked() => File.ReadLines("/proc/self/mountinfo").Select(line => line.Split(' ', 6)).Where(fields => fields[4].StartsWith(_agent.Root + "/", StringComparison.Ordinal))
        .GroupBy(fields => fields[4], fields => fields[0]).Where(group => group.Distinct().Count() > 1)
        .Select(group => $"{group.Key}: {string.Join(' ', group.Distinct())}").FirstOrDefault();

    private string KeepLogs()
    {
        var file = Path.Combine(AppContext.BaseDirectory, $"storm-{_seed.ToString(CultureInfo.InvariantCulture)}.log");
        File.WriteAllText(file, _agent.Process.Log);
        return file;
    }
}
