using System.Diagnostics;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux.Tests;

/// <summary>What identifies host, boot and user, and the lock that keeps a second agent out.</summary>
public sealed class HostTests
{
    [Fact]
    public void Identity_is_that_of_this_process()
    {
        var identity = KernelIdentityReader.Read();
        Assert.True(Guid.TryParse(identity.BootId, out _));
        Assert.NotEqual(0ul, identity.MountNamespaceId);
        Assert.Equal(identity, KernelIdentityReader.Read());
    }

    [Fact]
    public void Machine_without_an_id_is_known_by_its_boot() =>
        Assert.Equal(KernelIdentityReader.ReadBootId(), KernelIdentityReader.ReadMachineId("/nonexistent/machine-id"));

    [Fact]
    public void Users_have_names_or_numbers()
    {
        Assert.Equal("root", UserNames.Of(0));
        Assert.Equal("uid:987654321", UserNames.Of(987654321));
    }

    [Fact]
    public void Lock_is_refused_with_the_holders_pid_and_free_again_afterwards()
    {
        var directory = Directory.CreateTempSubdirectory("mountledger-test-").FullName;
        try
        {
            using (var held = HostLock.TryTake(directory, 42, out _))
            {
                Assert.NotNull(held);
                Assert.Null(HostLock.TryTake(directory, 42, out var pid));
                Assert.Equal(Environment.ProcessId, pid);
                using var other = HostLock.TryTake(directory, 43, out _);
                Assert.NotNull(other);
            }
            using var again = HostLock.TryTake(directory, 42, out _);
            Assert.NotNull(again);
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }
    }

    [Theory]
    [InlineData(1, "EPERM")]
    [InlineData(16, "EBUSY")]
    [InlineData(36, "ENAMETOOLONG")]
    [InlineData(61, "ENODATA")]
    [InlineData(75, "EOVERFLOW")]
    [InlineData(107, "ENOTCONN")]
    [InlineData(116, "ESTALE")]
    [InlineData(133, "EHWPOISON")]
    [InlineData(41, "errno 41")]
    [InlineData(999, "errno 999")]
    public void Errors_have_their_names(int errno, string name) => Assert.Equal(name, Errno.Name(errno));
}
