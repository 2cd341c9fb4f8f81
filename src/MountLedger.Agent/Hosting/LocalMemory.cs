using System.Globalization;

namespace MountLedger.Agent;

/// <summary>
/// What an agent remembers by itself, in case the ledger is restored from an older backup: the highest epoch that it has
/// had. Written before the epoch is used, by rename, so that a crash leaves the old or the new.
/// </summary>
public sealed class LocalMemory(string stateDir)
{
    private string File => Path.Combine(stateDir, "epoch");

    /// <summary>0 when there is none, or when it cannot be read.</summary>
    public long ReadEpoch() =>
        System.IO.File.Exists(File)
        && long.TryParse(System.IO.File.ReadAllText(File).Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out var epoch)
            ? epoch : 0;

    public void WriteEpoch(long epoch)
    {
        var next = File + ".new";
        using (var stream = new FileStream(next, FileMode.Create, FileAccess.Write))
        {
            stream.Write(System.Text.Encoding.ASCII.GetBytes(epoch.ToString(CultureInfo.InvariantCulture) + "\n"));
            stream.Flush(flushToDisk: true);
        }
        System.IO.File.Move(next, File, overwrite: true);
    }
}
