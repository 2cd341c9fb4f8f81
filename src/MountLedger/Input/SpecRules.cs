using System.Collections.Immutable;

namespace MountLedger;

/// <summary>
/// From a raw source, type and options to the canonical <see cref="MountSpec"/>, the one way to write what is meant: each
/// option once, in ordinal order, values in one spelling, what the kernel does anyway left out, <c>nosuid,nodev</c> added.
/// So equal meanings are equal specs, and what was canonical stays as it is.
/// </summary>
public static partial class SpecRules
{
    public const int SourceBytesMax = 2048;
    public const int OptionsMax = 64;
    public const int OptionBytesMax = 4096;

    /// <summary>Of all options together, with a separator after each.</summary>
    public const int OptionsBytesMax = 16 * 1024;

    private const int TypeLengthMax = 32;

    /// <summary>The canonical spec, or null with at least one error, under the fields <c>source</c>, <c>fstype</c>, <c>options[N]</c>.</summary>
    public static MountSpec? Spec(
        string? source, string? fstype, ImmutableArray<string>? options, InputPolicy policy, InputErrors errors)
    {
        var before = errors.Found;
        var filesystem = Type(fstype, policy, errors);
        var validSource = Source(source, filesystem, errors);
        var canonical = Options(options, filesystem, validSource, policy, errors);
        return errors.Found == before && filesystem is not null ? new MountSpec(validSource!, filesystem.Type, canonical) : null;
    }

    /// <summary>A known filesystem type, or null with an error that names the known ones.</summary>
    public static Filesystem? Type(string? fstype, InputPolicy policy, InputErrors errors)
    {
        const string field = "fstype";
        if (string.IsNullOrEmpty(fstype))
        {
            errors.Add(field, InputRule.Required, fstype, $"give a filesystem type: {string.Join(", ", FilesystemCatalog.Types)}");
            return null;
        }
        if (policy.Find(fstype) is { } filesystem) return filesystem;
        if (fstype.Length <= TypeLengthMax && fstype.StartsWith("fuse", StringComparison.Ordinal))
        {
            errors.Add(
                field, InputRule.HelperUnsupported, fstype,
                $"give one of {string.Join(", ", FilesystemCatalog.Types)}, or let the agent's configuration name the type under helperTypes, with its options");
            return null;
        }
        errors.Add(field, InputRule.KnownFilesystem, fstype, $"give one of {string.Join(", ", FilesystemCatalog.Types)}");
        return null;
    }

    /// <summary>
    /// The canonical options of a filesystem, those that policy adds included. With <paramref name="filesystem"/> null (its
    /// type was refused) only what holds for every type is checked.
    /// </summary>
    public static ImmutableArray<string> Options(
        ImmutableArray<string>? raw, Filesystem? filesystem, string? source, InputPolicy policy, InputErrors errors)
    {
        var wanted = Parsed(raw is { IsDefault: false } given ? given : [], filesystem, policy, errors);
        return filesystem is null || wanted is null ? [] : Canonical(filesystem, source, wanted, errors);
    }

    /// <summary>Each option by itself; null when there are too many to look at.</summary>
    private static OptionSet? Parsed(ImmutableArray<string> options, Filesystem? filesystem, InputPolicy policy, InputErrors errors)
    {
        if (options.Length > OptionsMax)
        {
            errors.Add("options", InputRule.OptionCount, $"{options.Length} options", $"give at most {OptionsMax} options");
            return null;
        }
        if (options.Sum(option => (option is null ? 0 : Text.Bytes(option)) + 1) > OptionsBytesMax)
        {
            errors.Add("options", InputRule.OptionsLength, null, $"give options of at most {OptionsBytesMax} bytes in all");
            return null;
        }

        var wanted = new OptionSet(errors);
        for (var i = 0; i < options.Length; i++)
        {
            var field = $"options[{i}]";
            if (IsWellFormed(field, options[i], errors) && filesystem is not null)
                One(field, options[i], filesystem, policy, errors, wanted);
        }
        return wanted;
    }

    /// <summary>
    /// The spec of a live mount with some options changed: an option takes the place of the one of its group (<c>rw</c> of
    /// <c>ro</c>, <c>size=2g</c> of <c>size=1g</c>), and those that are not named stay. Null with at least one error.
    /// </summary>
    public static MountSpec? Changed(MountSpec current, ImmutableArray<string>? raw, InputPolicy policy, InputErrors errors)
    {
        var before = errors.Found;
        var filesystem = Type(current.FsType, policy, errors);
        if (raw is not { IsDefaultOrEmpty: false } options)
        {
            errors.Add("options", InputRule.Required, null, "give the options that shall change");
            return null;
        }
        var wanted = Parsed(options, filesystem, policy, errors);
        if (filesystem is null || wanted is null || errors.Found > before) return null;
        foreach (var (field, rule) in wanted.Fixed())
            errors.Add(field, InputRule.FixedOption, rule.Name, $"leave {rule.Name} out: it says how to mount, and cannot be changed afterwards");
        wanted.AddUnlessNamed(current.Options.Select(option => (option, filesystem.RuleOf(option))));
        var canonical = Canonical(filesystem, current.Source, wanted, errors);
        return errors.Found == before ? current with { Options = canonical } : null;
    }

    private static string? Source(string? source, Filesystem? filesystem, InputErrors errors)
    {
        const string field = "source";
        if (string.IsNullOrEmpty(source))
        {
            errors.Add(field, InputRule.Required, source, "say what shall be mounted: a device, an image, a directory, or a label such as tmpfs");
            return null;
        }

        var before = errors.Found;
        if (Text.Bytes(source) > SourceBytesMax)
            errors.Add(field, InputRule.SourceLength, source, $"give a source of at most {SourceBytesMax} bytes");
        if (source[0] == '-')
            errors.Add(field, InputRule.NoLeadingDash, source, "give a source that does not begin with '-'");
        if (errors.Found > before) return null;
        if (filesystem is { Source: SourceKind.DeviceOrImage or SourceKind.Directory })
        {
            if (PathRules.Absolute(errors, field, source) == "/" && filesystem.Source == SourceKind.DeviceOrImage)
                errors.Add(field, InputRule.AbsolutePath, source, "give the absolute path of a block device or an image file");
        }
        else if (Text.Check(errors, field, source))
        {
            Text.CheckPrintable(errors, field, source);
            SecretRules.CheckSource(field, source, errors);
        }
        if (errors.Found == before && filesystem?.Form is { } form && !form.Pattern.IsMatch(source))
            errors.Add(field, InputRule.SourceForm, source, $"give {filesystem.Type} a source of the form {form.Expected}");
        return errors.Found == before ? source : null;
    }

    /// <summary>What holds for an option of whatever filesystem.</summary>
    private static bool IsWellFormed(string field, string? option, InputErrors errors)
    {
        var before = errors.Found;
        if (option is null)
        {
            errors.Add(field, InputRule.Required, null, "give an option, or leave the element out");
            return false;
        }
        if (Text.Bytes(option) is 0 or > OptionBytesMax)
            errors.Add(field, InputRule.OptionLength, option, $"give an option of 1 to {OptionBytesMax} bytes");
        if (option.StartsWith('-'))
            errors.Add(field, InputRule.NoLeadingDash, option, "give an option that does not begin with '-'");
        if (option.Contains(',', StringComparison.Ordinal))
            errors.Add(field, InputRule.NoSeparator, option, "give one option per element; a comma cannot be part of one, escaped or not");
        Text.Check(errors, field, option);
        SecretRules.CheckOption(field, option, errors);
        return errors.Found == before;
    }

    private static void One(
        string field, string option, Filesystem filesystem, InputPolicy policy, InputErrors errors, OptionSet wanted)
    {
        var value = Filesystem.ValueOf(option);
        if (filesystem.RuleOf(option) is not { } rule)
        {
            errors.Add(
                field, InputRule.KnownOption, option,
                $"{(Spelling.Nearest(Filesystem.KeyOf(option), filesystem.Options.Keys) is { } near ? $"did you mean {near}? " : "")}give an option of {filesystem.Type}: {string.Join(", ", filesystem.Options.Keys.Order(StringComparer.Ordinal))}");
        }
        else if (value is null && rule.Need == ValueNeed.Always)
        {
            errors.Add(field, InputRule.OptionNeedsValue, option, $"write {rule.Name}=VALUE, with {OptionValues.Expected(rule)}");
        }
        else if (value is not null && rule.Syntax == ValueSyntax.Secret && SecretRules.NameIn(value) is null)
        {
            SecretRules.Refuse(field, rule.Name, errors);
        }
        else if (rule.Syntax != ValueSyntax.Secret && SecretRules.NameIn(value) is not null)
        {
            errors.Add(field, InputRule.SecretUnsupported, option, $"give {rule.Name} as it is: it takes no secret");
        }
        else if (value is not null && rule.Need == ValueNeed.Never)
        {
            errors.Add(field, InputRule.OptionTakesNoValue, option, $"write {rule.Name} alone");
        }
        else if ((rule.Name == "suid" && !policy.AllowSuid) || (rule.Name == "dev" && !policy.AllowDev))
        {
            errors.Add(
                field, InputRule.OptionPolicy, option,
                $"leave {rule.Name} out: this agent mounts everything with no{rule.Name} unless its configuration allows {rule.Name}");
        }
        else if (rule.ByPolicy is { } danger && !policy.AllowedOptions.Contains(rule.Name))
        {
            errors.Add(field, InputRule.OptionPolicy, option, $"leave {rule.Name} out: {danger}, and the agent's configuration does not name it under allowOptions");
        }
        else if (value is not null && rule.RefusedWords.Contains(value) && !policy.AllowedOptions.Contains(option))
        {
            errors.Add(
                field, InputRule.OptionPolicy, option,
                $"use {OptionValues.Expected(rule)}: {option} puts the host or its data at risk, and the agent's configuration does not name it under allowOptions");
        }
        else if (filesystem.ReadOnly && rule.Name == "rw")
        {
            errors.Add(field, InputRule.ReadOnlyFilesystem, option, $"leave rw out: {filesystem.Type} cannot be written");
        }
        else if (value is null)
        {
            wanted.Add(field, rule.AliasOf ?? rule.Name, rule.AliasOf ?? rule.Name, rule);
        }
        else if (OptionValues.Canonical(rule, value) is { } canonical)
        {
            wanted.Add(field, rule.AliasOf ?? rule.Name, $"{rule.AliasOf ?? rule.Name}={canonical}", rule);
        }
        else
        {
            errors.Add(field, InputRule.OptionValue, option, $"give {rule.Name} {OptionValues.Expected(rule)}");
        }
    }

    private static ImmutableArray<string> Canonical(Filesystem filesystem, string? source, OptionSet wanted, InputErrors errors)
    {
        foreach (var required in filesystem.RequiredOptions.Where(required => !wanted.Has(required)))
            errors.Add("options", InputRule.MissingOption, null, $"add {required}=VALUE: {filesystem.Type} cannot be mounted without it");
        if (filesystem.Type == "overlay" && wanted.Has("upperdir") != wanted.Has("workdir"))
            errors.Add("options", InputRule.MissingOption, null, "give upperdir and workdir together, or neither for a read-only overlay");

        var options = wanted.Canonical.ToHashSet(StringComparer.Ordinal);
        if (!wanted.Has("suid")) options.Add("nosuid");
        if (!wanted.Has("dev")) options.Add("nodev");
        if (filesystem.ReadOnly) options.Add("ro");
        // A file gets a loop device whether one asks for it or not; only for a device does the word change anything.
        if (source is not null && !PathRules.IsBelow(source, "/dev")) options.Remove("loop");
        return [.. options.Order(StringComparer.Ordinal)];
    }

    /// <summary>The options of one request by key and group, so that two that cannot both hold are found.</summary>
    private sealed class OptionSet(InputErrors errors)
    {
        private readonly Dictionary<string, (string Key, string Option, OptionRule Rule, string Field)> _byGroup = new(StringComparer.Ordinal);

        public IEnumerable<string> Canonical =>
            _byGroup.Values.Where(wanted => !wanted.Rule.IsDefault).Select(wanted => wanted.Option);

        public void Add(string field, string key, string option, OptionRule rule)
        {
            if (_byGroup.TryAdd(rule.Group, (key, option, rule, field))) return;
            var other = _byGroup[rule.Group];
            if (other.Key != key)
                errors.Add(field, InputRule.ContradictoryOptions, option, $"give {key} or {other.Key}, not both");
            else if (other.Option != option)
                errors.Add(field, InputRule.DuplicateOption, option, $"give {key} once: it has another value before");
        }

        /// <summary>
        /// Those that say how to mount, and not that which is so anyway; and secrets, which only a helper is given: the kernel would take the name for it.
        /// </summary>
        public IEnumerable<(string Field, OptionRule Rule)> Fixed() => _byGroup.Values
            .Where(wanted => wanted.Rule is { Target: OptionTarget.Instruction, IsDefault: false } or { Syntax: ValueSyntax.Secret }).Select(wanted => (wanted.Field, wanted.Rule));

        /// <summary>Options of a spec that is canonical already, as far as nothing else of their group has been named.</summary>
        public void AddUnlessNamed(IEnumerable<(string Option, OptionRule? Rule)> options)
        {
            foreach (var (option, rule) in options)
            {
                // A name that this version does not know any more stays as it is.
                var known = rule ?? new OptionRule(Filesystem.KeyOf(option), OptionTarget.Superblock, ValueNeed.Optional, ValueSyntax.Text);
                _byGroup.TryAdd(known.Group, (known.Name, option, known, "options"));
            }
        }

        public bool Has(string key) => _byGroup.Values.Any(wanted => wanted.Key == key);
    }
}
