using System.Collections.Immutable;
using System.Text.Json;
using System.Text.Json.Serialization;
using MountLedger.Linux;

namespace MountLedger.Agent;

/// <summary>A setting that cannot be used; the message names it, the rule, and what to do.</summary>
public sealed class SettingException(string message) : Exception(message);

/// <summary>
/// What an agent is started with. Later sources win: defaults, the configuration file, the environment
/// (<c>MOUNTLEDGER_…</c>), flags. Times are in seconds.
/// </summary>
public sealed record AgentSettings
{
    public const string ConfigFileDefault = "/etc/mountledger/mountledger.json";
    public const string SocketDefault = "/run/mountledger/mountledger.sock";
    public const string StateDirDefault = "/var/lib/mountledger";
    public const string RootDefault = "/mnt";
    public const string SecretsDirDefault = "/etc/mountledger/secrets";

    /// <summary>Name of this host in the ledger; null: the machine's host name, in lower case.</summary>
    public string? Host { get; init; }

    /// <summary>Holds the embedded PostgreSQL, the agent's epoch, and the records of its workers.</summary>
    public string StateDir { get; init; } = StateDirDefault;

    public string Socket { get; init; } = SocketDefault;

    /// <summary>An Npgsql connection string; null: PostgreSQL of its own under the state directory.</summary>
    public string? Postgres { get; init; }

    /// <summary>Everything is mounted strictly below one of these; what is mounted there by others is foreign.</summary>
    public ImmutableArray<string> Roots { get; init; } = [RootDefault];

    /// <summary>Where the lock that admits one agent to a mount namespace is; the same for all agents of a machine.</summary>
    public string LockDir { get; init; } = HostLock.DefaultDirectory;

    /// <summary>How long one call of the kernel may take before its outcome counts as unknown.</summary>
    public double OperationSeconds { get; init; } = 60;

    /// <summary>How long running operations may take to finish when the agent is told to stop.</summary>
    public double ShutdownSeconds { get; init; } = 20;

    /// <summary>How often the work list is read although nobody called; 0 switches it off.</summary>
    public double PollSeconds { get; init; } = 30;

    /// <summary>How often the whole mount table is compared although the kernel told of no change; 0 switches it off.</summary>
    public double AuditSeconds { get; init; } = 60;

    /// <summary>How long the lease of the host lasts when it is not renewed.</summary>
    public double LeaseSeconds { get; init; } = 15;

    /// <summary>How long a mount helper (<c>/sbin/mount.TYPE</c>) may take; it is killed then.</summary>
    public double HelperSeconds { get; init; } = 30;

    /// <summary>Where mount helpers and FUSE programs are looked for, in this order.</summary>
    public ImmutableArray<string> HelperDirs { get; init; } = [.. WorkerOptions.HelperDirectoriesDefault];

    /// <summary>Further types that a helper mounts, each with the names of the options that it may be given.</summary>
    public ImmutableSortedDictionary<string, ImmutableArray<string>> HelperTypes { get; init; } =
        ImmutableSortedDictionary<string, ImmutableArray<string>>.Empty;

    /// <summary>Permission bits, octal, of directories that are made for mountpoints.</summary>
    public string DirectoryMode { get; init; } = "0755";

    /// <summary>Who gets those directories, as UID:GID; null: root.</summary>
    public string? DirectoryOwner { get; init; }

    /// <summary>The secrets that options name, one file each; null: systemd's credentials, or else <see cref="SecretsDirDefault"/>.</summary>
    public string? SecretsDir { get; init; }

    public bool AllowSuid { get; init; }

    public bool AllowDev { get; init; }

    /// <summary>Options that callers may use although they put the host or its data at risk; <see cref="FilesystemCatalog.OffByDefault"/> lists them.</summary>
    public ImmutableArray<string> AllowOptions { get; init; } = [];

    /// <summary>Users that may change mounts which others hold, by the names that the history shows.</summary>
    public ImmutableArray<string> Admins { get; init; } = ["root"];

    /// <summary>Reads file and environment, lets <paramref name="flags"/> change the result, and checks it.</summary>
    /// <exception cref="SettingException">A source cannot be read, or a setting cannot be used.</exception>
    public static AgentSettings Load(
        string? configFile, Func<string, string?> environment, Func<AgentSettings, AgentSettings> flags)
    {
        var file = configFile ?? environment("MOUNTLEDGER_CONFIG");
        var settings = file is null && !File.Exists(ConfigFileDefault) ? new AgentSettings() : ReadFile(file ?? ConfigFileDefault);
        return flags(FromEnvironment(settings, environment)).Checked();
    }

    public InputPolicy Policy() => new(Host!, Roots)
    {
        AllowSuid = AllowSuid,
        AllowDev = AllowDev,
        Admins = Admins,
        AllowedOptions = AllowOptions,
        HelperTypes = [.. HelperTypes.Select(pair => HelperFilesystems.Configured(pair.Key, pair.Value))],
    };

    /// <summary>How workers are started: the same in the agent and in its launcher.</summary>
    internal WorkerOptions Workers() => WorkerOptions.ForThisProgram(Roots, StateDir) with
    {
        Directories = Directories,
        OperationDeadline = TimeSpan.FromSeconds(OperationSeconds),
        HelperDeadline = TimeSpan.FromSeconds(HelperSeconds),
        HelperDirectories = HelperDirs,
        SecretsDirectory = SecretsDir,
    };

    /// <summary>Mode and owner in the form that the worker is given; the settings have been checked.</summary>
    internal DirectoryAttributes Directories => new(
        DirectoryAttributes.TryMode(DirectoryMode, out var mode) ? mode : DirectoryAttributes.Default.Mode,
        DirectoryOwner is { } given && DirectoryAttributes.TryOwner(given, out var owner) ? owner : null);

    private static AgentSettings ReadFile(string path)
    {
        try
        {
            var file = JsonSerializer.Deserialize(File.ReadAllBytes(path), SettingsJson.Default.SettingsFile);
            return file?.Over(new AgentSettings()) ?? new AgentSettings();
        }
        catch (JsonException e)
        {
            throw new SettingException($"{path}, line {e.LineNumber + 1}: {e.Message.Split(" Path:")[0]}");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new SettingException($"the configuration file cannot be read: {e.Message}");
        }
    }

    private static AgentSettings FromEnvironment(AgentSettings settings, Func<string, string?> environment)
    {
        string? Value(string name) => environment("MOUNTLEDGER_" + name) is { Length: > 0 } value ? value : null;
        double Seconds(string name, double otherwise) => Value(name) is not { } value ? otherwise
            : double.TryParse(value, System.Globalization.CultureInfo.InvariantCulture, out var seconds) ? seconds
            : throw new SettingException($"MOUNTLEDGER_{name}: give a number of seconds, not '{value}'");
        return settings with
        {
            Host = Value("HOST") ?? settings.Host,
            StateDir = Value("STATE_DIR") ?? settings.StateDir,
            Socket = Value("SOCKET") ?? settings.Socket,
            Postgres = Value("POSTGRES") ?? settings.Postgres,
            Roots = Value("ROOTS")?.Split(':').ToImmutableArray() ?? settings.Roots,
            LockDir = Value("LOCK_DIR") ?? settings.LockDir,
            HelperDirs = Value("HELPER_DIRS")?.Split(':').ToImmutableArray() ?? settings.HelperDirs,
            Admins = Value("ADMINS")?.Split(',').ToImmutableArray() ?? settings.Admins,
            SecretsDir = Value("SECRETS_DIR") ?? settings.SecretsDir ?? (environment("CREDENTIALS_DIRECTORY") is { Length: > 0 } given ? given : SecretsDirDefault),
            OperationSeconds = Seconds("OPERATION_SECONDS", settings.OperationSeconds),
            HelperSeconds = Seconds("HELPER_SECONDS", settings.HelperSeconds),
            ShutdownSeconds = Seconds("SHUTDOWN_SECONDS", settings.ShutdownSeconds),
            PollSeconds = Seconds("POLL_SECONDS", settings.PollSeconds),
            AuditSeconds = Seconds("AUDIT_SECONDS", settings.AuditSeconds),
            LeaseSeconds = Seconds("LEASE_SECONDS", settings.LeaseSeconds),
            DirectoryMode = Value("DIRECTORY_MODE") ?? settings.DirectoryMode,
            DirectoryOwner = Value("DIRECTORY_OWNER") ?? settings.DirectoryOwner,
        };
    }

    private AgentSettings Checked()
    {
        var errors = new InputErrors();
        var host = Host ?? Environment.MachineName.ToLowerInvariant();
        InputRules.HostName("host", host, errors);
        InputRules.AbsolutePath("stateDir", StateDir, errors);
        InputRules.AbsolutePath("socket", Socket, errors);
        InputRules.AbsolutePath("lockDir", LockDir, errors);
        if (SecretsDir is not null && InputRules.AbsolutePath("secretsDir", SecretsDir, errors) is not null
            && !Roots.IsDefaultOrEmpty && Roots.Any(root => SecretsDir == root || MountPath.IsBelow(SecretsDir, root)))
            errors.Add("secretsDir", "outside-roots", SecretsDir, "give a directory that is not below a root, where a mount could hide it");
        if (Roots.IsDefaultOrEmpty) errors.Add("roots", "required", null, "give at least one directory to mount below");
        else foreach (var root in Roots) InputRules.AbsolutePath("roots", root, errors);
        foreach (var option in AllowOptions.IsDefault ? [] : AllowOptions)
            if (!FilesystemCatalog.OffByDefault.Contains(option))
                errors.Add("allowOptions", "known-option", option, $"give options that are off by default: {string.Join(", ", FilesystemCatalog.OffByDefault)}");
        foreach (var admin in Admins.IsDefault ? [] : Admins) InputRules.Actor("admins", admin, errors);
        if (System.Text.Encoding.UTF8.GetByteCount(Socket) > 107)
            errors.Add("socket", "socket-length", Socket, "give a path of at most 107 bytes: a unix socket cannot have a longer one");
        if (!DirectoryAttributes.TryMode(DirectoryMode, out _))
            errors.Add("directoryMode", "octal-mode", DirectoryMode, "give permission bits in octal, from 0000 to 1777, such as 0755");
        if (DirectoryOwner is not null && !DirectoryAttributes.TryOwner(DirectoryOwner, out _))
            errors.Add("directoryOwner", "uid-gid", DirectoryOwner, "give user and group by number, such as 1000:1000");
        foreach (var (name, seconds, min, max) in ((string, double, double, double)[])
            [("operationSeconds", OperationSeconds, 0.1, 3600), ("helperSeconds", HelperSeconds, 0.1, 3600), ("shutdownSeconds", ShutdownSeconds, 0, 3600),
            ("pollSeconds", PollSeconds, 0, 3600), ("auditSeconds", AuditSeconds, 0, 86_400), ("leaseSeconds", LeaseSeconds, 1, 3600)])
        {
            if (!(seconds >= min && seconds <= max))
                errors.Add(name, "seconds-range", $"{seconds}", $"give a number of seconds from {min} to {max}");
        }
        foreach (var directory in HelperDirs) InputRules.AbsolutePath("helperDirs", directory, errors);
        foreach (var (type, options) in HelperTypes)
        {
            if (!HelperFilesystems.IsTypeName(type))
                errors.Add("helperTypes", "helper-type", type, "name a type that is not built in, such as davfs or fuse.encfs");
            foreach (var option in options.Where(option => !HelperFilesystems.IsOptionName(option)))
                errors.Add("helperTypes", "helper-option", option, "give names of options, without values; one that takes a secret as NAME=secret");
        }
        return errors.Count == 0 ? this with { Host = host } : throw new SettingException(string.Join("; ", errors));
    }
}

/// <summary>What a configuration file may say; whatever it leaves out keeps its default.</summary>
internal sealed record SettingsFile(
    string? Host, string? StateDir, string? Socket, string? Postgres, ImmutableArray<string>? Roots, string? LockDir,
    double? OperationSeconds, double? ShutdownSeconds, double? PollSeconds, double? AuditSeconds, double? LeaseSeconds,
    string? DirectoryMode, string? DirectoryOwner, bool? AllowSuid, bool? AllowDev, double? HelperSeconds, ImmutableArray<string>? HelperDirs,
    ImmutableSortedDictionary<string, ImmutableArray<string>>? HelperTypes, string? SecretsDir,
    ImmutableArray<string>? Admins = null, ImmutableArray<string>? AllowOptions = null)
{
    public AgentSettings Over(AgentSettings settings) => settings with
    {
        Host = Host ?? settings.Host,
        StateDir = StateDir ?? settings.StateDir,
        Socket = Socket ?? settings.Socket,
        Postgres = Postgres ?? settings.Postgres,
        Roots = Roots ?? settings.Roots,
        LockDir = LockDir ?? settings.LockDir,
        OperationSeconds = OperationSeconds ?? settings.OperationSeconds,
        ShutdownSeconds = ShutdownSeconds ?? settings.ShutdownSeconds,
        PollSeconds = PollSeconds ?? settings.PollSeconds,
        AuditSeconds = AuditSeconds ?? settings.AuditSeconds,
        LeaseSeconds = LeaseSeconds ?? settings.LeaseSeconds,
        DirectoryMode = DirectoryMode ?? settings.DirectoryMode,
        DirectoryOwner = DirectoryOwner ?? settings.DirectoryOwner,
        AllowSuid = AllowSuid ?? settings.AllowSuid,
        AllowDev = AllowDev ?? settings.AllowDev,
        HelperSeconds = HelperSeconds ?? settings.HelperSeconds,
        HelperDirs = HelperDirs ?? settings.HelperDirs,
        HelperTypes = HelperTypes ?? settings.HelperTypes,
        Admins = Admins ?? settings.Admins,
        AllowOptions = AllowOptions ?? settings.AllowOptions,
        SecretsDir = SecretsDir ?? settings.SecretsDir,
    };
}

/// <summary>The configuration file: camel case, comments and trailing commas allowed, unknown members refused.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    ReadCommentHandling = JsonCommentHandling.Skip,
    AllowTrailingCommas = true,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow)]
[JsonSerializable(typeof(SettingsFile))]
internal sealed partial class SettingsJson : JsonSerializerContext;
