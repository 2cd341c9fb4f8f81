using System.Text;
using MountLedger.Linux.Interop;

namespace MountLedger.Linux;

/// <summary>
/// The layers of an overlay. They are handed over as descriptors, opened without following links, where the kernel takes
/// them so (Linux 6.13); else as strings.
/// </summary>
internal static class Overlay
{
    public static bool IsLayerKey(string key) => key is "lowerdir" or "lowerdir+" or "upperdir" or "workdir";

    /// <summary>The layers in the order of the options; <c>lowerdir=a:b</c> makes two, topmost first.</summary>
    public static IReadOnlyList<(string Key, string Path)> LayersOf(MountPlan plan)
    {
        var layers = new List<(string, string)>();
        foreach (var (key, value) in plan.Parameters)
        {
            if (!IsLayerKey(key)) continue;
            if (string.IsNullOrEmpty(value)) throw new KernelFailure(Errno.EINVAL, $"{key} needs a directory");
            if (key == "lowerdir") layers.AddRange(SplitLower(value).Select(path => ("lowerdir+", path)));
            else layers.Add((key, value));
        }
        return layers;
    }

    /// <summary>Splits at colons; <c>\:</c> is a colon within a name, as in the kernel's own syntax.</summary>
    public static IReadOnlyList<string> SplitLower(string value)
    {
        var layers = new List<string>();
        var layer = new StringBuilder();
        for (var i = 0; i < value.Length; i++)
        {
            if (value[i] == '\\' && i + 1 < value.Length) layer.Append(value[++i]);
            else if (value[i] != ':') layer.Append(value[i]);
            else if (layer.Length > 0)
            {
                layers.Add(layer.ToString());
                layer.Clear();
            }
        }
        if (layer.Length > 0) layers.Add(layer.ToString());
        return layers;
    }

    public static void Configure(Descriptor context, IReadOnlyList<(string Key, string Path)> layers)
    {
        foreach (var (key, path) in layers)
        {
            using var directory = DetachedMount.OpenSource(path, PathCalls.O_PATH | PathCalls.O_DIRECTORY);
            var errno = MountCalls.Configure(context.Number, MountCalls.FSCONFIG_SET_FD, key, null, directory.Number);
            if (errno == 0) continue;
            var byDescriptor = DetachedMount.Failure(context, errno, $"layer {key}={path}");
            if (errno is not (Errno.EINVAL or Errno.EBADF)) throw byDescriptor;
            // Older kernels take strings only.
            DetachedMount.Step(context, MountCalls.FSCONFIG_SET_STRING, key, path);
        }
    }
}
