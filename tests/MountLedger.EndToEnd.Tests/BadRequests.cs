using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using static MountLedger.InputRule;

namespace MountLedger.EndToEnd;

/// <summary>
/// The table of requests that must be refused: what is wrong, how it is sent, the status, and the field and rule that the
/// answer must name (null where there is no body to name anything in).
/// </summary>
internal static class BadRequests
{
    public sealed record Case(string What, Func<AgentProcess, HttpRequestMessage> Request, int Status, string? Field, string? Rule);

    private const string Mounts = "/v1/mounts";
    private const string Unmounts = "/v1/unmounts";
    private const string Json = "application/json";

    private static readonly string Name129 = new('n', 129);

    public static IReadOnlyList<Case> All { get; } =
        [.. Paths(), .. Names(), .. Specs(), .. Options(), .. JsonShapes(), .. Bodies(), .. Headers(), .. Queries(), .. Hosts(), .. Routes()];

    private static IEnumerable<Case> Paths() =>
    [
        .. new (string What, string? Value, string Rule)[]
        {
            ("empty", "", Required), ("null", null, Required), ("relative", "mnt/a", AbsolutePath), ("a flag", "--help", AbsolutePath),
            ("the host's stream", "@host", AbsolutePath), ("traversal", "ROOT/../../etc", NormalisedPath), ("traversal at the end", "ROOT/a/..", NormalisedPath),
            ("dot", "ROOT/./a", NormalisedPath), ("doubled slash", "ROOT//a", NormalisedPath), ("doubled slash at the start", "/ROOT/a", NormalisedPath),
            ("slash at the end", "ROOT/a/", NormalisedPath), ("newline", "ROOT/a\nb", NoControlCharacters), ("NUL", "ROOT/a\0b", NoControlCharacters),
            ("escape sequence", "ROOT/\u001b[31m", NoControlCharacters), ("replacement character", "ROOT/\ufffd", ValidUtf8),
            ("component of 256 bytes", "ROOT/" + new string('a', 256), ComponentLength),
            ("more than 2 048 bytes", "ROOT" + string.Concat(Enumerable.Repeat("/" + new string('a', 200), 11)), PathLength),
            ("outside", "/etc", InsideRoot), ("the root itself", "ROOT", InsideRoot), ("a sibling that begins alike", "ROOTx/a", InsideRoot),
        }.Select(path => Mount($"mountpoint {path.What}", "mountpoint", path.Value, path.Rule)),
        Unmount("mountpoint missing", "mountpoint", null, Required),
        Unmount("mountpoint traversal", "mountpoint", "ROOT/../a", NormalisedPath),
        Unmount("mountpoint outside", "mountpoint", "/", InsideRoot),
    ];

    private static IEnumerable<Case> Names() =>
    [
        .. new[] { "volume", "consumer" }.SelectMany(field => (Case[])
        [
            Mount($"{field} null", field, null, Required), Mount($"{field} empty", field, "", Required),
            Mount($"{field} of 129 characters", field, Name129, NameLength), Mount($"{field} with newline", field, "a\nb", NoControlCharacters),
            Mount($"{field} with a zero width space", field, "a\u200bb", Printable), Mount($"{field} with a space before", field, " a", NoSurroundingSpace),
            Unmount($"{field} null", field, null, Required), Unmount($"{field} of 129 characters", field, Name129, NameLength),
        ]),
        Mount("host with capitals", "host", "E2E", InputRule.HostName), Mount("host of 64", "host", new string('h', 64), InputRule.HostName),
        Mount("another host", "host", "elsewhere", OwnHost), Unmount("another host", "host", "elsewhere", OwnHost),
    ];

    private static IEnumerable<Case> Specs() =>
    [
        Mount("source null", "source", null, Required), Mount("source is a flag", "source", "-orw", NoLeadingDash),
        Mount("source of 2 049 bytes", "source", new string('s', 2049), SourceLength), Mount("source with NUL", "source", "a\0", NoControlCharacters),
        Of("image relative", "source", AbsolutePath, body => Spec(body, "ext4", "images/a.img")),
        Of("image by traversal", "source", NormalisedPath, body => Spec(body, "squashfs", "/srv/../etc/shadow")),
        Of("export without a server", "source", InputRule.SourceForm, body => Spec(body, "nfs4", "/export")),
        Of("bind of a relative directory", "source", AbsolutePath, body => Spec(body, "bind", "data")),
        Mount("fstype null", "fstype", null, Required), Mount("fstype unknown", "fstype", "ext5", KnownFilesystem), Mount("fstype proc", "fstype", "proc", KnownFilesystem),
        Mount("fstype is a flag", "fstype", "-t", KnownFilesystem), Mount("fstype with a helper", "fstype", "fuse.unheard-of", HelperUnsupported),
        Mount("wait negative", "waitSeconds", -1, WaitRange), Mount("wait of more than an hour", "waitSeconds", 3600.5, WaitRange),
        Unmount("wait negative", "waitSeconds", -0.5, WaitRange),
    ];

    private static IEnumerable<Case> Options() =>
    [
        .. new (string Option, string Rule)[]
        {
            ("", OptionLength), ("mpol=" + new string('x', 4092), OptionLength), ("ro,noexec", NoSeparator), ("size=1m,suid", NoSeparator),
            (@"size=1m\,suid", NoSeparator), ("ro\n", NoControlCharacters), ("-o", NoLeadingDash), ("--bind", NoLeadingDash), ("password=hunter2", NoClearSecret), ("mode=secret:db", SecretUnsupported),
            ("noexce", KnownOption),
            ("frobnicate", KnownOption), ("lowerdir=/a", KnownOption), ("RO", KnownOption), ("=1", KnownOption), ("suid", OptionPolicy), ("dev", OptionPolicy),
            ("size", OptionNeedsValue), ("ro=1", OptionTakesNoValue), ("size=", OptionValue), ("size=1=2", OptionValue), ("size=-1", OptionValue), ("mode=rwx", OptionValue),
        }.Select(option => Of($"option {option.Option[..Math.Min(option.Option.Length, 20)]}", "options[0]", option.Rule, body => body["options"] = new JsonArray(option.Option))),
        Of("option null", "options[0]", Required, body => body["options"] = new JsonArray((JsonNode?)null)),
        Of("65 options", "options", OptionCount, body => body["options"] = new JsonArray([.. Enumerable.Repeat(0, 65).Select(_ => (JsonNode)"ro")])),
        Of("options of more than 16 KiB", "options", OptionsLength,
            body => body["options"] = new JsonArray([.. Enumerable.Range(0, 5).Select(i => (JsonNode)$"mpol={new string('x', 4000)}{i}")])),
        Of("ro and rw", "options[1]", ContradictoryOptions, body => body["options"] = new JsonArray("ro", "rw")),
        Of("two sizes", "options[1]", DuplicateOption, body => body["options"] = new JsonArray("size=1m", "size=2m")),
        Of("overlay without layers", "options", MissingOption, body => Spec(body, "overlay", "o")),
        Of("rw of squashfs", "options[0]", ReadOnlyFilesystem, body => Spec(body, "squashfs", "/srv/a.img", "rw")),
        Of("layer by traversal", "options[0]", OptionValue, body => Spec(body, "overlay", "o", "lowerdir=/a/../b")),
    ];

    private static IEnumerable<Case> JsonShapes() =>
    [
        .. new[] { "host", "mountpoint", "source", "fstype", "volume", "consumer" }.Select(field => Mount($"{field} is a number", field, 7, "json-type")),
        .. new[] { "mountpoint", "volume", "consumer" }.Select(field => Unmount($"{field} is an object", field, new JsonObject(), "json-type")),
        .. new[] { "mountpoint", "source", "fstype", "volume", "consumer" }
            .Select(field => Of($"{field} missing", field, Required, body => body.Remove(field))),
        Mount("options is a string", "options", "ro,noexec", "json-type"), Of("an option is a number", "options[0]", "json-type", body => body["options"] = new JsonArray(1)),
        Mount("waitSeconds is a string", "waitSeconds", "10", "json-type"), Mount("waitSeconds is true", "waitSeconds", true, "json-type"),
        Mount("onFailure is unknown", "onFailure", "explode", "json-type"), Mount("onFailure is a number", "onFailure", 0, "json-type"),
        Unmount("mode is unknown", "mode", "gentle", "json-type"), Unmount("mode is a number", "mode", 2, "json-type"),
        Mount("unknown member", "wait", 3, "known-member"), Mount("member in another case", "Mountpoint", "/a", "known-member"),
        Mount("member of unmount", "mode", "lazy", "known-member"), Unmount("member of mount", "options", new JsonArray(), "known-member"),
        Text("a member twice", "volume", "once", """{"mountpoint":"ROOT/bad","source":"s","fstype":"tmpfs","volume":"a","volume":"b","consumer":"c"}"""),
        Text("lone high surrogate", "volume", ValidUtf8, """{"mountpoint":"ROOT/bad","source":"s","fstype":"tmpfs","volume":"\ud83d","consumer":"c"}"""),
        Text("lone low surrogate in an option", "options[0]", ValidUtf8,
            """{"mountpoint":"ROOT/bad","source":"s","fstype":"tmpfs","volume":"v","consumer":"c","options":["size=1\ude00"]}"""),
        Text("lone surrogate in a member's name", "body", ValidUtf8, """{"\ud83d":1}"""),
        Text("wait of 1e400", "waitSeconds", WaitRange,
            """{"mountpoint":"ROOT/bad","source":"s","fstype":"tmpfs","volume":"v","consumer":"c","waitSeconds":1e400}"""),
    ];

    private static IEnumerable<Case> Bodies() =>
    [
        Text("empty body", "body", Required, ""), Text("not JSON", "body", "json", "mountpoint=/a"), Text("half a document", "mountpoint", "json", """{"mountpoint":"""),
        Text("two documents", "body", "json", "{}{}"), Text("a comment", "body", "json", "{/**/}"), Text("a trailing comma", "body", "json", """{"host":"e2e",}"""),
        Text("null", "body", "json-object", "null"), Text("an array", "body", "json-object", "[]"), Text("a string", "body", "json-object", "\"a\""),
        Text("NaN", "waitSeconds", "json", """{"waitSeconds":NaN}"""),
        Text("deep nesting", "options[0]", "json-type", $$"""{"options":{{new string('[', 100_000)}}"""),
        Text("deep nesting of an unknown member", "body", "json", new string('{', 100_000)),
        Bytes("a byte that is not UTF-8", "body", "utf-8", [.. "{\"volume\":\""u8, 0xff, .. "\"}"u8]),
        Bytes("a surrogate in UTF-8", "body", "utf-8", [.. "{\"volume\":\""u8, 0xed, 0xa0, 0x80, .. "\"}"u8]),
        Bytes("an overlong slash", "body", "utf-8", [.. "{\"mountpoint\":\""u8, 0xc0, 0xaf, .. "\"}"u8]),
        Bytes("UTF-16", "body", "json", Encoding.Unicode.GetBytes("{}")), Bytes("random bytes", "body", "utf-8", RandomBytes(4096)),
        new("a body of more than 1 MiB", _ => Post(Mounts, new byte[(1 << 20) + 1], Json), 413, null, null),
        new("a body of more than 1 MiB in chunks", _ => Chunked(Post(Mounts, new byte[(1 << 20) + 1], Json)), 413, null, null),
        .. new[] { "text/plain", "application/x-www-form-urlencoded", "application/jsonlines", "application/json-patch+json" }
            .Select(type => new Case($"a body of {type}", _ => Post(Mounts, "{}"u8.ToArray(), type), 415, null, null)),
    ];

    private static IEnumerable<Case> Headers() =>
    [
        Header("empty key", "Idempotency-Key", Required, ""), Header("key with a blank", "Idempotency-Key", InputRule.IdempotencyKey, "a b"),
        Header("key of 256", "Idempotency-Key", InputRule.IdempotencyKey, new string('k', 256)),
        Header("word for a version", "If-Match", InputRule.Version, "abc"), Header("weak tag", "If-Match", InputRule.Version, "W/\"1\""),
        Header("list of tags", "If-Match", InputRule.Version, "\"1\", \"2\""), Header("negative version", "If-Match", InputRule.Version, "-1"),
        Header("two tags", "If-Match", InputRule.Version, "\"1\"", "\"2\""), Header("version of 20 digits", "If-Match", InputRule.Version, "99999999999999999999"),
    ];

    private static IEnumerable<Case> Queries() =>
    [
        .. new (string Route, string Field, string Rule)[]
        {
            ("mountpoints?limit=0", "limit", LimitRange), ("mountpoints?limit=1001", "limit", LimitRange), ("mountpoints?limit=ten", "limit", LimitRange),
            ("mountpoints?phase=gone", "phase", KnownValue), ("mountpoints?phase=1", "phase", KnownValue), ("mountpoints?cursor=nonsense", "cursor", "cursor"),
            ("mountpoints?cursor=%00", "cursor", "cursor"), ("mountpoints?consumer=", "consumer", Required), ("mountpoints?consumer=%0a", "consumer", NoControlCharacters),
            ("mountpoints?consumer=%ef%bf%bd", "consumer", ValidUtf8), ("mountpoints?host=E2E", "host", InputRule.HostName),
            ("mountpoints?fase=mounted", "fase", "known-parameter"), ("mountpoints?phase=mounted&phase=failed", "phase", "once"),
            ("mountpoints/status", "path", Required), ("mountpoints/status?path=a", "path", AbsolutePath), ("mountpoints/status?path=/a/../b", "path", NormalisedPath),
            ("mountpoints/status?path=/a%00b", "path", NoControlCharacters), ("mountpoints/status?path=/a&path=/b", "path", "once"),
            ("mountpoints/status?path=/a&host=-", "host", InputRule.HostName),
            ("history?path=a", "path", AbsolutePath), ("history?since=yesterday", "since", Time), ("history?until=2026-02-30T00:00:00Z", "until", Time),
            ("history?until=", "until", Required), ("history?type=Mounted", "type", KnownEventType), ("history?type=mounted'%20or%20'1'='1", "type", KnownEventType),
            ("history?cursor=-1", "cursor", "cursor"), ("history?cursor=1e3", "cursor", "cursor"), ("history?cursor=99999999999999999999", "cursor", "cursor"),
            ("history?order=up", "order", KnownValue), ("history?limit=-5", "limit", LimitRange), ("history?volume=" + Name129, "volume", NameLength),
            ("history?actor=%e2%80%8b", "actor", Printable), ("history?since=1m&since=2m", "since", "once"), ("history?follow=1", "follow", "known-parameter"),
            ("hosts?all=1", "all", "known-parameter"),
        }.Select(query => new Case($"GET {query.Route[..Math.Min(query.Route.Length, 50)]}", _ => new(HttpMethod.Get, "/v1/" + query.Route), 400, query.Field, query.Rule)),
        new("POST mounts with a query", _ => Valid(Mounts, new HttpRequestMessage(HttpMethod.Post, Mounts + "?dryRun=true")), 400, "dryRun", "known-parameter"),
    ];

    private static IEnumerable<Case> Hosts() =>
    [
        new("down of a host with a bad name", _ => Post("/v1/hosts/E2E/down", "{}"u8.ToArray(), Json), 400, "host", InputRule.HostName),
        new("down of another host", _ => Post("/v1/hosts/elsewhere/down", "{}"u8.ToArray(), Json), 400, "host", OwnHost),
        HostDown("reason is a number", "reason", "json-type", """{"reason":1}"""), HostDown("reason of 1 025", "reason", ReasonLength, $$"""{"reason":"{{new string('r', 1025)}}"}"""),
        HostDown("reason of two lines", "reason", NoControlCharacters, """{"reason":"a\nb"}"""), HostDown("unknown member", "until", "known-member", """{"until":"1h"}"""),
        HostDown("not JSON", "body", "json", "because"),
    ];

    private static IEnumerable<Case> Routes() =>
    [
        new("GET mounts", _ => new(HttpMethod.Get, Mounts), 405, null, null), new("DELETE mountpoints", _ => new(HttpMethod.Delete, "/v1/mountpoints"), 405, null, null),
        new("POST healthz", _ => new(HttpMethod.Post, "/healthz"), 405, null, null), new("an unknown method", _ => new(new HttpMethod("FROB"), Mounts), 405, null, null),
        new("an unknown route", _ => new(HttpMethod.Get, "/v1/nothing"), 404, null, null), new("another version", _ => new(HttpMethod.Post, "/v2/mounts"), 404, null, null),
        new("no route", _ => new(HttpMethod.Get, "/"), 404, null, null), new("sideways", _ => new(HttpMethod.Post, "/v1/hosts/e2e/sideways"), 404, null, null),
    ];

    /// <summary>A request in which everything is in order.</summary>
    private static JsonObject Body(AgentProcess agent, string route) => route == Mounts
        ? new() { ["mountpoint"] = agent.PathOf("bad"), ["source"] = "scratch", ["fstype"] = "tmpfs", ["options"] = new JsonArray(), ["volume"] = "v", ["consumer"] = "c" }
        : new() { ["mountpoint"] = agent.PathOf("bad"), ["volume"] = "v", ["consumer"] = "c" };

    private static void Spec(JsonObject body, string fstype, string source, params string[] options)
    {
        body["fstype"] = fstype;
        body["source"] = source;
        body["options"] = new JsonArray([.. options.Select(option => (JsonNode)option)]);
    }

    private static Case Mount(string what, string field, JsonNode? value, string rule) =>
        Of($"mount: {what}", field, rule, (body, agent) => body[field] = Rooted(agent, value));

    private static Case Unmount(string what, string field, JsonNode? value, string rule) =>
        Of($"unmount: {what}", field, rule, (body, agent) => body[field] = Rooted(agent, value), Unmounts);

    private static Case Of(string what, string field, string rule, Action<JsonObject> change) => Of(what, field, rule, (body, _) => change(body));

    private static Case Of(string what, string field, string rule, Action<JsonObject, AgentProcess> change, string route = Mounts) => new(
        what,
        agent =>
        {
            var body = Body(agent, route);
            change(body, agent);
            return Post(route, Encoding.UTF8.GetBytes(body.ToJsonString()), Json);
        },
        400, field, rule);

    private static Case Text(string what, string field, string rule, string body) => new(
        $"body: {what}", agent => Post(Mounts, Encoding.UTF8.GetBytes(body.Replace("ROOT", agent.Root, StringComparison.Ordinal)), Json), 400, field, rule);

    private static Case Bytes(string what, string field, string rule, byte[] body) => new($"body: {what}", _ => Post(Mounts, body, Json), 400, field, rule);

    private static Case HostDown(string what, string field, string rule, string body) => new(
        $"host down: {what}", _ => Post($"/v1/hosts/{AgentProcess.HostName}/down", Encoding.UTF8.GetBytes(body), Json), 400, field, rule);

    private static Case Header(string what, string field, string rule, params string[] values) => new(
        $"{field}: {what}",
        agent =>
        {
            var request = Post(Mounts, Encoding.UTF8.GetBytes(Body(agent, Mounts).ToJsonString()), Json);
            foreach (var value in values) request.Headers.TryAddWithoutValidation(field, value);
            return request;
        },
        400, field, rule);

    private static HttpRequestMessage Valid(string route, HttpRequestMessage request)
    {
        request.Content = Post(route, "{}"u8.ToArray(), Json).Content;
        return request;
    }

    private static HttpRequestMessage Post(string route, byte[] body, string type)
    {
        var request = new HttpRequestMessage(HttpMethod.Post, route) { Content = new ByteArrayContent(body) };
        request.Content.Headers.ContentType = MediaTypeHeaderValue.Parse(type);
        return request;
    }

    private static HttpRequestMessage Chunked(HttpRequestMessage request)
    {
        request.Headers.TransferEncodingChunked = true;
        return request;
    }

    private static JsonNode? Rooted(AgentProcess agent, JsonNode? value) =>
        value?.GetValueKind() == JsonValueKind.String ? value.GetValue<string>().Replace("ROOT", agent.Root, StringComparison.Ordinal) : value?.DeepClone();

    private static byte[] RandomBytes(int count)
    {
        var bytes = new byte[count];
        new Random(1).NextBytes(bytes);
        return bytes;
    }
}
