using System.Diagnostics;
using System.Globalization;
using MountLedger.Agent;
using MountLedger.Postgres;
using Npgsql;

namespace MountLedger.EndToEnd;

/// <summary>A PostgreSQL of one test, to which it can do what happens to servers. Disposal leaves nothing of it.</summary>
public sealed class MortalPostgres : IAsyncDisposable
{
    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("mountledger-pg-");
    private readonly bool _onDiskOfItsOwn;
    private EmbeddedPostgres? _server;

    private MortalPostgres(int? diskMiB)
    {
        _onDiskOfItsOwn = diskMiB is not null;
        if (diskMiB is { } size)
            Shell.Run("mount", "-t", "tmpfs", "-o", string.Create(CultureInfo.InvariantCulture, $"size={size}m,mode=0755"), "pgdisk", _directory.FullName);
    }

    public string ConnectionString { get; private set; } = "";

    public string SocketDirectory => _server!.SocketDirectory;

    /// <summary>As somebody who may do everything.</summary>
    public string Administrator => $"Host={SocketDirectory};Username={ClusterSetup.Superuser};Database={ClusterSetup.Superuser};Pooling=false";

    /// <param name="diskMiB">Its cluster is alone on a filesystem of this size; null: on that of the temporary directory.</param>
    public static async Task<MortalPostgres> StartAsync(int? diskMiB = null)
    {
        RootEnvironment.Require();
        var server = new MortalPostgres(diskMiB);
        try
        {
            await server.StartAgainAsync();
            return server;
        }
        catch
        {
            await server.DisposeAsync();
            throw;
        }
    }

    public async Task StartAgainAsync()
    {
        if (_server is not null) await _server.DisposeAsync();
        _server = await EmbeddedPostgres.StartAsync(_directory.FullName, CancellationToken.None);
        ConnectionString = _server.ConnectionString;
    }

    /// <summary>In order.</summary>
    public async Task StopAsync() => await _server!.StopAsync(TimeSpan.FromSeconds(20), CancellationToken.None);

    /// <summary>SIGKILL of all its processes, as when the machine loses power.</summary>
    public void Kill()
    {
        var clock = Stopwatch.StartNew();
        while (Processes().Any())
        {
            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(20), "PostgreSQL does not die");
            foreach (var pid in Processes()) AgentProcess.KillQuietly(pid);
            Thread.Sleep(20);
        }
    }

    /// <summary>Nothing of it answers until <see cref="Continue"/>; its sockets stay.</summary>
    public void Freeze()
    {
        foreach (var pid in Processes()) RootSignal.Send(pid, "STOP");
    }

    public void Continue()
    {
        foreach (var pid in Processes()) RootSignal.Send(pid, "CONT");
    }

    /// <summary>Takes all that is left of its disk. Disposal of the result gives it back.</summary>
    public IDisposable FillDisk()
    {
        var ballast = Path.Combine(_directory.FullName, "ballast");
        Shell.Run("/bin/sh", "-c", $"dd if=/dev/zero of={ballast} bs=4k 2>/dev/null; true");
        return new Ballast(ballast);
    }

    public async Task RunAsync(string sql)
    {
        await using var connection = new NpgsqlConnection(Administrator);
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand(sql, connection);
        await command.ExecuteNonQueryAsync();
    }

    public async ValueTask DisposeAsync()
    {
        if (_server is not null)
        {
            Continue();
            Kill();
            await _server.DisposeAsync();
        }
        if (_onDiskOfItsOwn) Shell.Run("umount", "--lazy", _directory.FullName);
        _directory.Delete(recursive: true);
    }

    /// <summary>
    /// Its processes by their working directory, which is the cluster's. Each is looked at only when it is asked for: while the first of them die, the id of
    /// another one may be given to somebody else.
    /// </summary>
    private IEnumerable<int> Processes() =>
        from directory in Directory.GetDirectories("/proc")
        where char.IsAsciiDigit(Path.GetFileName(directory)[0]) && IsOfCluster(directory)
        select int.Parse(Path.GetFileName(directory), CultureInfo.InvariantCulture);

    private bool IsOfCluster(string process)
    {
        try
        {
            return new FileInfo(Path.Combine(process, "cwd")).LinkTarget == Path.Combine(_directory.FullName, "postgres", "data");
        }
        catch (IOException)
        {
            // It ended meanwhile.
            return false;
        }
    }

    private sealed class Ballast(string file) : IDisposable
    {
        public void Dispose() => File.Delete(file);
    }
}
