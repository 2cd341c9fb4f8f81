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
        foreach (var pid in Processes()) RootSignal.Send(pid, "KILL");
        var clock = Stopwatch.StartNew();
        while (Processes().Count > 0)
        {
            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(20), "PostgreSQL does not die");
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

    /// <summary>Its processes by their working directory, which is the cluster's.</summary>
    private List<int> Processes()
    {
        var data = Path.Combine(_directory.FullName, "postgres", "data");
        var found = new List<int>();
        foreach (var directory in Directory.GetDirectories("/proc"))
        {
            if (!int.TryParse(Path.GetFileName(directory), CultureInfo.InvariantCulture, out var pid)) continue;
            try
            {
                if (new FileInfo(Path.Combine(directory, "cwd")).LinkTarget == data) found.Add(pid);
            }
            catch (IOException)
            {
                // It ended meanwhile.
            }
        }
        return found;
    }

    private sealed class Ballast(string file) : IDisposable
    {
        public void Dispose() => File.Delete(file);
    }
}
