using System.Text.Json;

namespace MountLedger.Storm;

/// <summary>
/// Reads one stream's events in their order, by rules of its own: versions without a gap, each event chained to the one before, operations
/// one after the other and each with an outcome, no unmount under a confirmed attachment, no confirmed attachment forgotten.
/// </summary>
internal sealed class HistoryCheck(string stream)
{
    private readonly Dictionary<string, bool> _confirmed = new(StringComparer.Ordinal);
    private string? _operation;
    private bool _isUncertain;
    private bool _holds;

    public string Stream => stream;

    public long Version { get; private set; }

    public string Head { get; private set; } = new('0', 64);

    /// <summary>The operation whose start is recorded and whose outcome is not.</summary>
    public string? Operation => _operation;

    public int Events { get; private set; }

    /// <summary>volume/consumer, and whether its mount has been seen to hold.</summary>
    public IReadOnlyDictionary<string, bool> Attachments => _confirmed;

    /// <returns>What is wrong with this event; null when nothing is.</returns>
    public string? Next(long version, string type, JsonElement data, string prev, string hash, string computed)
    {
        Events++;
        string? wrong = null;
        if (version != Version + 1) wrong = $"version {version} follows {Version}";
        else if (prev != Head) wrong = "it is not chained to the event before";
        else if (hash != computed) wrong = "its hash is not that of what is stored";
        (Version, Head) = (version, hash);
        wrong ??= Apply(type, data);
        return wrong is null ? null : $"{stream} v{version} {type}: {wrong}";
    }

    private string? Apply(string type, JsonElement data)
    {
        string Key() => $"{data.GetProperty("volume").GetString()}/{data.GetProperty("consumer").GetString()}";
        switch (type)
        {
            case "attachment_added":
                return _confirmed.TryAdd(Key(), _holds && _operation is null) ? null : "it was attached already";
            case "attachment_removed":
                if (!_confirmed.Remove(Key(), out var confirmed)) return "it was not attached";
                return confirmed && data.GetProperty("reason").GetString() == "mount-failed" ? "a confirmed attachment is forgotten" : null;
            case "mount_started" or "unmount_started" or "remount_started":
                if (_operation is { } running) return $"{running} has no outcome yet";
                _operation = type.Split('_')[0];
                if (type == "mount_started" && _holds) return "a mount is started although one holds";
                return type == "unmount_started" && _confirmed.ContainsValue(true) ? "under a confirmed attachment" : null;
            case "mounted":
                return Ended("mount", holds: true);
            case "mount_failed":
                return Ended("mount", holds: false);
            case "unmounted" when data.TryGetProperty("released", out var released) && released.GetBoolean():
                _holds = false;
                return null;
            case "unmounted":
                return Ended("unmount", holds: false);
            case "unmount_failed":
                return _operation is null ? null : Ended("unmount", holds: false);
            case "remounted" or "remount_failed":
                return Ended("remount", holds: _holds);
            case "mount_adopted" or "mount_kept":
                Confirm();
                return _operation is null ? null : $"during {_operation}";
            case "unmount_requested":
                _holds = false;
                return _confirmed.Count > 0 ? "although there are attachments" : null;
            case "drift_detected" when data.GetProperty("kind").GetString() == "missing":
                _holds = false;
                return null;
            case "operation_uncertain":
                var twice = _isUncertain;
                _isUncertain = true;
                return _operation is null ? "nothing was begun" : twice ? "it is uncertain already" : null;
            case "operation_settled":
                (_operation, _isUncertain) = (null, false);
                return null;
            default:
                return null;
        }
    }

    private string? Ended(string kind, bool holds)
    {
        var wrong = _operation == kind ? null : $"it ends {_operation ?? "nothing"}";
        (_operation, _isUncertain, _holds) = (null, false, holds);
        if (holds) Confirm();
        return wrong;
    }

    private void Confirm()
    {
        _holds = true;
        foreach (var key in _confirmed.Keys.ToArray()) _confirmed[key] = true;
    }
}
