using System.Collections.Frozen;
using System.Collections.Immutable;
using System.Text.RegularExpressions;

namespace MountLedger;

/// <summary>What the source of a filesystem is.</summary>
public enum SourceKind
{
    /// <summary>Any text; the kernel shows it and makes nothing of it.</summary>
    Label,

    /// <summary>The absolute path of a block device or of an image file.</summary>
    DeviceOrImage,

    /// <summary>The absolute path of a directory.</summary>
    Directory,

    /// <summary>What a mount helper takes: a server and a path, a bucket, … (<see cref="Filesystem.Form"/>).</summary>
    Remote,
}

/// <summary>How the source of a type must look. <paramref name="Pattern"/> admits nothing that a program could read as a flag.</summary>
public sealed record SourceForm(Regex Pattern, string Expected);

/// <summary>What an option acts on.</summary>
public enum OptionTarget
{
    /// <summary>A flag of the mount (<c>MOUNT_ATTR_*</c>): the same filesystem can have it here and not there.</summary>
    Mount,

    /// <summary>Of the filesystem: a key of <c>fsconfig</c>.</summary>
    Superblock,

    /// <summary>Says how to mount (<c>loop</c>, <c>rbind</c>); the kernel never sees it.</summary>
    Instruction,
}

/// <summary>Whether an option has a value.</summary>
public enum ValueNeed { Never, Optional, Always }

/// <summary>What the value of an option looks like.</summary>
public enum ValueSyntax
{
    None,

    /// <summary>Bytes: digits and at most one of <c>k m g t p</c>.</summary>
    Size,

    /// <summary>A <see cref="Size"/>, or a share of memory from <c>0%</c> to <c>100%</c>.</summary>
    SizeOrPercent,

    /// <summary>Permission bits in octal, up to <c>7777</c>.</summary>
    OctalMode,

    /// <summary>A decimal number of at most 32 bits, without leading zeros: the kernel takes those for octal.</summary>
    Number,

    /// <summary>As <see cref="Number"/>, of 64 bits.</summary>
    LongNumber,

    /// <summary>An absolute, normalised path.</summary>
    Path,

    /// <summary>Such paths, with colons between them; their order matters.</summary>
    Paths,

    /// <summary>A path within the filesystem, with or without the first slash.</summary>
    InnerPath,

    /// <summary>One of <see cref="OptionRule.Words"/>.</summary>
    Word,

    /// <summary>Some of <see cref="OptionRule.Words"/>, with colons between them.</summary>
    Words,

    /// <summary>An algorithm of <see cref="OptionRule.Words"/>, optionally with a colon and a level.</summary>
    Compression,

    /// <summary>Printable text.</summary>
    Text,

    /// <summary><c>secret:NAME</c> and nothing else (<see cref="SecretRules"/>).</summary>
    Secret,

    /// <summary>Letters, digits and <c>_ . / : @ % + = ~ # -</c>: nothing that the option parser of any mount helper gives a meaning to.</summary>
    HelperText,
}

/// <summary>
/// One option of a filesystem. <see cref="Group"/>: of the options of one group at most one can hold (<c>ro</c>, <c>rw</c>).
/// </summary>
public sealed record OptionRule(string Name, OptionTarget Target, ValueNeed Need, ValueSyntax Syntax)
{
    public ImmutableArray<string> Words { get; init; } = [];

    public string Group { get; init; } = Name;

    /// <summary>It is so anyway, so it is left out of a canonical spec.</summary>
    public bool IsDefault { get; init; }

    /// <summary>Another spelling of this option, which is the one that a canonical spec holds.</summary>
    public string? AliasOf { get; init; }

    /// <summary>Those of <see cref="Words"/> that are refused unless the configuration allows them.</summary>
    public ImmutableArray<string> RefusedWords { get; init; } = [];

    /// <summary>The whole option is refused unless the configuration allows it; this says why.</summary>
    public string? ByPolicy { get; init; }
}

/// <summary>A filesystem type that can be mounted. <paramref name="ReadOnly"/>: it cannot be written by nature.</summary>
public sealed record Filesystem(
    string Type, SourceKind Source, FrozenDictionary<string, OptionRule> Options, ImmutableArray<string> RequiredOptions, bool ReadOnly)
{
    /// <summary>A program mounts it (<c>/sbin/mount.TYPE</c>), not the kernel's mount interface.</summary>
    public bool ByHelper { get; init; }

    /// <summary>How its source must look, where the kind does not say it all.</summary>
    public SourceForm? Form { get; init; }

    /// <summary>The rule of an option as it stands in a spec (<c>size=1g</c>, <c>ro</c>), or null.</summary>
    public OptionRule? RuleOf(string option) => Options.GetValueOrDefault(KeyOf(option));

    /// <summary>What stands before the first equals sign.</summary>
    public static string KeyOf(string option) =>
        option.IndexOf('=', StringComparison.Ordinal) is >= 0 and var sign ? option[..sign] : option;

    /// <summary>What stands after the first equals sign, or null.</summary>
    public static string? ValueOf(string option) =>
        option.IndexOf('=', StringComparison.Ordinal) is >= 0 and var sign ? option[(sign + 1)..] : null;
}
