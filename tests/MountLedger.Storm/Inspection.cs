using System.Text.Json;
using MountLedger.Linux;
using MountLedger.Postgres;
using Npgsql;

namespace MountLedger.Storm;

/// <summary>What must be so whenever nothing is going on: what the clients believe, the ledger, its history, and the kernel agree.</summary>
/// <param name="agent">Whose ledger and mounts.</param>
/// <param name="tally">Is told of violations.</param>
/// <param name="vandalised">Where somebody unmounts by hand: it takes a moment until that is noticed and repaired.</param>
internal sealed class Inspection(StormAgent agent, Tally tally, string vandalised)
{
    private const int LooksMax = 5;
    private static readonly TimeSpan RestMax = TimeSpan.FromSeconds(90);

    private readonly Dictionary<string, HistoryCheck> _histories = new(StringComparer.Ordinal);
    private long _seq;

    /// <summary>Events that were looked at, and operations without an outcome among them.</summary>
    public int Events => _histories.Values.Sum(history => history.Events);

    /// <summary>Waits until the ledger wants nothing that the kernel has not; a storm that never comes to rest is a violation.</summary>
    public async Task RestAsync(TimeSpan slowMin, Action<string> say)
    {
        var (began, isTold) = (DateTime.UtcNow, false);
        var until = began + RestMax;
        var last = "";
        while (DateTime.UtcNow < until)
        {
            try
            {
                var states = await StatesAsync();
                var busy = states.Where(state => (MountFlow.NextAction(state).Kind != ActionKind.None && !WaitsForBelow(state, states)) || state.Operation is not null).ToList();
                var isRepaired = states.FirstOrDefault(state => state.Mountpoint == vandalised) is not { Kernel.MountId: { } id }
                    || MountInfoReader.Read(out _).Exists(entry => entry.Mount.MountId == id);
                if (busy.Count == 0 && isRepaired) return;
                last = busy.Count == 0 ? $"{vandalised} is not mounted again" : string.Join("; ", busy.Take(3).Select(state => $"{state.Mountpoint} is {state.Phase}, next {MountFlow.NextAction(state).Kind}: {state.Error?.Message}"));
            }
            catch (LedgerUnavailableException e)
            {
                last = e.Message;
            }
            if (!isTold && DateTime.UtcNow - began > slowMin)
            {
                isTold = true;
                say($"  no rest after {slowMin.TotalSeconds} s: {last}");
            }
            await Task.Delay(50);
        }
        tally.Violated($"no rest after {RestMax.TotalSeconds} s: {last}");
    }

    /// <summary>All invariants; the clients are at rest.</summary>
    public async Task CheckAsync(IEnumerable<StormClient> clients, bool whole)
    {
        var states = await ReadAsync();
        if (whole) await CountEventsAsync();
        var mounts = MountInfoReader.Read(out _).Select(entry => entry.Mount).Where(mount => MountPath.IsBelow(mount.Path, agent.Root)).ToLookup(mount => mount.Path);

        foreach (var state in states.Values)
        {
            if (_histories.GetValueOrDefault(state.Mountpoint) is not { } history || history.Version != state.Version)
                tally.Violated($"{state.Mountpoint}: its row has version {state.Version}, its events {_histories.GetValueOrDefault(state.Mountpoint)?.Version}");
            else if (history.Operation is { } open)
                tally.Violated($"{state.Mountpoint}: {open} has no outcome in the history");
            else if (!history.Attachments.OrderBy(pair => pair.Key, StringComparer.Ordinal).Select(pair => (pair.Key, pair.Value)).SequenceEqual(
                state.Attachments.Select(one => ($"{one.Volume}/{one.Consumer}", one.Confirmed)).OrderBy(pair => pair.Item1, StringComparer.Ordinal)))
                tally.Violated($"{state.Mountpoint}: its attachments are not what its events say");

            var there = mounts[state.Mountpoint].ToList();
            if (WaitsForBelow(state, states.Values)) continue;
            if (state.Attachments.IsEmpty ? there.Count > 0 : there.Count != 1 || there[0].MountId != state.Kernel?.MountId)
            {
                tally.Violated(
                    $"{state.Mountpoint}: {state.Attachments.Count} attachments, the ledger's mount is {state.Kernel?.MountId}, the kernel has "
                    + $"[{string.Join(", ", there.Select(mount => $"{mount.MountId} {mount.Described}"))}]");
            }
        }
        foreach (var path in mounts.Select(group => group.Key).Where(path => !states.ContainsKey(path))) tally.Violated($"{path}: a mount where the ledger wants none");
        foreach (var client in clients) CheckBeliefs(client, states);
    }

    /// <summary>
    /// History and rows, as they belong together. Whoever waits for what is below it tries again now and then, and each try is an event, which may come between the
    /// two looks: then both are read again.
    /// </summary>
    private async Task<Dictionary<string, MountState>> ReadAsync()
    {
        for (var look = 1; ; look++)
        {
            await ReadHistoryAsync();
            var states = (await StatesAsync()).ToDictionary(state => state.Mountpoint, StringComparer.Ordinal);
            if (look == LooksMax || !states.Values.Any(state =>
                state.Version != _histories.GetValueOrDefault(state.Mountpoint)?.Version && WaitsForBelow(state, states.Values)))
                return states;
        }
    }

    /// <summary>Nobody needs it, and what is mounted below it is needed: by rule 14 it stays until that has gone.</summary>
    private static bool WaitsForBelow(MountState state, IEnumerable<MountState> states) =>
        MountFlow.NextAction(state).Kind == ActionKind.Unmount && state.Operation is null
        && states.Any(child => MountPath.IsBelow(child.Mountpoint, state.Mountpoint) && !child.Attachments.IsEmpty);

    private void CheckBeliefs(StormClient client, Dictionary<string, MountState> states)
    {
        foreach (var (path, mountId) in client.Attached)
        {
            if (!states.TryGetValue(path, out var state) || !state.Attachments.Any(one => one.Consumer == client.Name))
                tally.Violated($"{path}: the acknowledged attachment of {client.Name} is lost");
            else if (state.Kernel?.MountId != mountId)
                tally.Violated($"{path}: {client.Name} was told of mount {mountId}, and since then it has become {state.Kernel?.MountId}");
        }
        foreach (var state in states.Values)
        {
            if (state.Attachments.Any(one => one.Consumer == client.Name) && !client.Attached.ContainsKey(state.Mountpoint))
                tally.Violated($"{state.Mountpoint}: {client.Name} was detached or never told that it is attached, and is");
        }
    }

    private async Task<IReadOnlyList<MountState>> StatesAsync()
    {
        await using var database = LedgerDatabase.Open(agent.Ledger);
        return (await new LedgerQueries(database).ListMountpointsAsync(
            new MountpointFilter(AgentProcess.HostName, null, null, null, 1000), CancellationToken.None)).Items;
    }

    /// <summary>What has been appended since the last look, stream by stream.</summary>
    private async Task ReadHistoryAsync()
    {
        await using var connection = new NpgsqlConnection($"{agent.Ledger};Pooling=false");
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand(
            """
            select seq_id, stream_id, version, type, data::text, headers ->> 'prev', headers ->> 'hash',
              mountledger.ledger_event_hash(headers ->> 'prev', tenant_id, stream_id, version, id::text, type,
                (extract(epoch from timestamp) * 1000000)::bigint, user_name, correlation_id, causation_id, data::text, (headers - 'hash')::text)
            from mountledger.mt_events where tenant_id = $1 and seq_id > $2 order by stream_id, version
            """,
            connection);
        command.Parameters.Add(new NpgsqlParameter { Value = AgentProcess.HostName });
        command.Parameters.Add(new NpgsqlParameter { Value = _seq });
        await using var row = await command.ExecuteReaderAsync();
        while (await row.ReadAsync())
        {
            _seq = Math.Max(_seq, row.GetInt64(0));
            var stream = row.GetString(1);
            if (!_histories.TryGetValue(stream, out var history)) _histories.Add(stream, history = new HistoryCheck(stream));
            using var data = JsonDocument.Parse(row.GetString(4));
            if (history.Next(row.GetInt64(2), row.GetString(3), data.RootElement, row.GetString(5), row.GetString(6), row.GetString(7)) is { } wrong)
                tally.Violated(wrong);
        }
    }

    /// <summary>Nothing that was read before has gone: as many events as versions, and the heads are those that were seen.</summary>
    private async Task CountEventsAsync()
    {
        await using var connection = new NpgsqlConnection($"{agent.Ledger};Pooling=false");
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand(
            """
            select s.id, s.version, count(e.*), (select l.headers ->> 'hash' from mountledger.mt_events l
              where l.tenant_id = s.tenant_id and l.stream_id = s.id and l.version = s.version)
            from mountledger.mt_streams s left join mountledger.mt_events e on e.tenant_id = s.tenant_id and e.stream_id = s.id
            where s.tenant_id = $1 group by s.tenant_id, s.id, s.version
            """,
            connection);
        command.Parameters.Add(new NpgsqlParameter { Value = AgentProcess.HostName });
        await using var row = await command.ExecuteReaderAsync();
        while (await row.ReadAsync())
        {
            var (stream, version, count, head) = (row.GetString(0), row.GetInt64(1), row.GetInt64(2), row.GetString(3));
            // What has come since it was read is read with the next look.
            if (count != version || _histories.GetValueOrDefault(stream) is not { } history || history.Version > version || (history.Version == version && history.Head != head))
                tally.Violated($"{stream}: version {version}, {count} events, head {head[..8]}; read before: {_histories.GetValueOrDefault(stream)?.Version}");
        }
    }
}
