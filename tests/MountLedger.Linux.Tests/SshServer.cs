using System.Diagnostics;
using System.Net.Sockets;

namespace MountLedger.Linux.Tests;

/// <summary>An sshd on loopback that knows one key, made for it, and ends with this object.</summary>
internal sealed class SshServer : IDisposable
{
    private readonly Process process;

    public SshServer(string directory)
    {
        Directory.CreateDirectory(directory);
        var hostKey = Path.Combine(directory, "host");
        (Key, KnownHosts, Port) = (Path.Combine(directory, "user"), Path.Combine(directory, "known"), KernelTest.FreePort());
        foreach (var key in (string[])[hostKey, Key]) KernelTest.Run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key);
        File.WriteAllText(KnownHosts, $"[127.0.0.1]:{Port} {File.ReadAllText(hostKey + ".pub")}");
        var config = Path.Combine(directory, "config");
        File.WriteAllText(config, $"Port {Port}\nListenAddress 127.0.0.1\nHostKey {hostKey}\nAuthorizedKeysFile {Key}.pub\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n");
        Directory.CreateDirectory("/run/sshd"); // Its privilege separation wants it to be there.
        process = Process.Start(new ProcessStartInfo("/usr/sbin/sshd", ["-D", "-e", "-f", config]) { RedirectStandardError = true })!;
        process.ErrorDataReceived += (_, _) => { };
        process.BeginErrorReadLine();
        HelperTests.Until(() => Answers(Port), "sshd listens");
    }

    public string Key { get; }

    public string KnownHosts { get; }

    public int Port { get; }

    public void Dispose()
    {
        process.Kill(entireProcessTree: true);
        process.WaitForExit();
        process.Dispose();
    }

    private static bool Answers(int port)
    {
        using var client = new TcpClient();
        try
        {
            client.Connect(System.Net.IPAddress.Loopback, port);
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }
}
