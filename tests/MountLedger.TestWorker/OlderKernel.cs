using System.Runtime.InteropServices;

namespace MountLedger.TestWorker;

/// <summary>
/// Makes calls of the kernel answer ENOSYS in this process and in all that it starts, by a seccomp filter: what a kernel says that does not have them.
/// </summary>
internal static unsafe partial class OlderKernel
{
    private const int ENOSYS = 38;
    private const int SeccompX64 = 317;
    private const int SeccompArm64 = 277;
    private const int SetModeFilter = 1;
    private const int SyncAllThreads = 1;
    private const uint ReturnErrno = 0x0005_0000 | ENOSYS;
    private const uint ReturnAllow = 0x7fff_0000;
    private const uint StatxMntIdUnique = 0x4000;
    private const uint FanReportMnt = 0x4000;

    private static readonly bool IsArm64 = RuntimeInformation.ProcessArchitecture == Architecture.Arm64;

    private static readonly Dictionary<string, uint> Numbers = new()
    {
        ["open_tree"] = 428,
        ["move_mount"] = 429,
        ["fsopen"] = 430,
        ["fsconfig"] = 431,
        ["fsmount"] = 432,
        ["fspick"] = 433,
        ["openat2"] = 437,
        ["mount_setattr"] = 442,
        ["statmount"] = 457,
        ["listmount"] = 458,
        ["open_tree_attr"] = 467,
    };

    public static void Pretend(string calls)
    {
        string[] names = calls == "all" ? [.. Numbers.Keys, "unique-ids", "mount-events"] : calls.Split(',');
        var program = new List<Instruction>
        {
            // Numbers of another architecture mean other calls: they are let through.
            Load(4), Instruction.JumpIfEqual(IsArm64 ? 0xC000_00B7u : 0xC000_003Eu, 1, 0), Instruction.Return(ReturnAllow),
        };
        foreach (var name in names)
        {
            switch (name)
            {
                // Not a call of their own, but a bit of one: in the fourth argument of statx, in the first of fanotify_init.
                case "unique-ids": ArgumentBit(IsArm64 ? 291u : 332u, 3, StatxMntIdUnique); break;
                case "mount-events": ArgumentBit(IsArm64 ? 262u : 300u, 0, FanReportMnt); break;
                default:
                    program.AddRange([Load(0), Instruction.JumpIfEqual(Numbers[name], 0, 1), Instruction.Return(ReturnErrno)]);
                    break;
            }
        }
        program.Add(Instruction.Return(ReturnAllow));

        fixed (Instruction* first = program.ToArray())
        {
            var whole = new FilterProgram { Length = (ushort)program.Count, First = first };
            var rc = Call(IsArm64 ? SeccompArm64 : SeccompX64, SetModeFilter, SyncAllThreads, &whole);
            if (rc != 0) throw new InvalidOperationException($"seccomp: {Marshal.GetLastPInvokeError()}");
        }

        void ArgumentBit(uint number, int argument, uint bit) => program.AddRange(
        [
            Load(0), Instruction.JumpIfEqual(number, 0, 3), Load((uint)(16 + (8 * argument))), Instruction.JumpIfSet(bit, 0, 1),
            Instruction.Return(ReturnErrno),
        ]);
    }

    /// <summary>Becomes another program; the filter stays.</summary>
    public static void Become(string[] command)
    {
        var arguments = (nint*)NativeMemory.AllocZeroed((nuint)(command.Length + 1), (nuint)sizeof(nint));
        for (var i = 0; i < command.Length; i++) arguments[i] = Marshal.StringToCoTaskMemUTF8(command[i]);
        _ = Execute(command[0], arguments);
        throw new InvalidOperationException($"{command[0]}: {Marshal.GetLastPInvokeError()}");
    }

    private static Instruction Load(uint offset) => new(0x20, 0, 0, offset);

    /// <summary>struct sock_filter</summary>
    [StructLayout(LayoutKind.Sequential)]
    private readonly record struct Instruction(ushort Code, byte IfTrue, byte IfFalse, uint Value)
    {
        public static Instruction JumpIfEqual(uint value, byte ifTrue, byte ifFalse) => new(0x15, ifTrue, ifFalse, value);

        public static Instruction JumpIfSet(uint bits, byte ifTrue, byte ifFalse) => new(0x45, ifTrue, ifFalse, bits);

        public static Instruction Return(uint value) => new(0x06, 0, 0, value);
    }

    /// <summary>struct sock_fprog</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct FilterProgram
    {
        public ushort Length;
        public Instruction* First;
    }

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial nint Call(nint number, nint operation, nint flags, FilterProgram* program);

    [LibraryImport("libc", EntryPoint = "execv", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Execute(string path, nint* arguments);
}
