using System.Buffers.Binary;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.RegularExpressions;

namespace MountLedger.Postgres.Tests;

/// <summary>The hash chain, checked by a verifier of its own that follows docs/events.md and shares nothing with the program.</summary>
public sealed partial class HashTests(PostgresServer server) : LedgerTest(server)
{
    [PostgresFact]
    public async Task Every_stored_hash_is_what_the_document_says()
    {
        await AppendAsync(Stream, FirstAttach("völ\\\"", "🦊"), new AppendOrigin("Ünï", "c1", "cause", null, "agent", LocalAgent: true));
        await AppendAsync(Stream, [new MountEvent.MountStarted(1, "boot", ulong.MaxValue, 1UL << 40, ["/srv/data"]), new MountEvent.Mounted("boot", 4026531841, ulong.MaxValue, [])]);
        await AppendHostAsync(new HostEvent.HostDown(null));

        Assert.Equal(5, await VerifyAsync());
    }

    [PostgresTheory]
    [InlineData("data = data || '{\"consumer\": \"mallory\"}'")]
    [InlineData("timestamp = timestamp + interval '1 microsecond'")]
    [InlineData("user_name = 'mallory'")]
    [InlineData("type = 'mounted'")]
    [InlineData("causation_id = ''")]
    [InlineData("headers = headers || '{\"epoch\": 9}'")]
    public async Task A_change_of_any_part_is_seen(string change)
    {
        await AppendAsync(Stream, FirstAttach());
        await ExecuteAsync($"update mountledger.mt_events set {change} where version = 2");

        await Assert.ThrowsAnyAsync<Xunit.Sdk.XunitException>(VerifyAsync);
    }

    [Fact]
    public void The_example_of_the_document_is_right()
    {
        var document = File.ReadAllText(System.IO.Path.Combine(AppContext.BaseDirectory, "events.md"));
        var section = document[document.IndexOf("### Example", StringComparison.Ordinal)..];
        var fields = FieldRow().Matches(section).ToDictionary(match => match.Groups[1].Value, match => match.Groups[2].Value);
        var bytes = Encode(
            fields["prev"], fields["host"], fields["stream"], long.Parse(fields["version"], CultureInfo.InvariantCulture), fields["id"],
            fields["type"], long.Parse(fields["timestamp"], CultureInfo.InvariantCulture), fields["actor"], fields["correlation"],
            fields["causation"] == "null" ? null : fields["causation"], fields["data"], fields["headers"]);

        var hex = Whitespace().Replace(HexBlock().Match(section).Groups[1].Value, "");
        Assert.Equal(hex, Convert.ToHexStringLower(bytes));
        Assert.Equal(fields["hash"], Convert.ToHexStringLower(SHA256.HashData(bytes)));
    }

    [PostgresFact]
    public async Task The_database_computes_the_example_of_the_document()
    {
        var document = File.ReadAllText(System.IO.Path.Combine(AppContext.BaseDirectory, "events.md"));
        var fields = FieldRow().Matches(document[document.IndexOf("### Example", StringComparison.Ordinal)..])
            .ToDictionary(match => match.Groups[1].Value, match => match.Groups[2].Value);

        Assert.Equal(fields["hash"], await ScalarAsync<string>(
            $"""
            select mountledger.ledger_event_hash('{fields["prev"]}', '{fields["host"]}', '{fields["stream"]}', {fields["version"]},
              '{fields["id"]}', '{fields["type"]}', {fields["timestamp"]}, '{fields["actor"]}', '{fields["correlation"]}', null,
              '{fields["data"]}'::jsonb::text, '{fields["headers"]}'::jsonb::text)
            """));
    }

    private async Task<int> VerifyAsync()
    {
        await using var command = Database.DataSource.CreateCommand(
            """
            select tenant_id, stream_id, version, id::text, type, timestamp, user_name, correlation_id, causation_id, data::text,
              (headers - 'hash')::text, headers ->> 'prev', headers ->> 'hash'
            from mountledger.mt_events order by tenant_id, stream_id, version
            """);
        await using var row = await command.ExecuteReaderAsync();
        var (verified, stream, head) = (0, "", "");
        while (await row.ReadAsync())
        {
            string? Text(int column) => row.IsDBNull(column) ? null : row.GetString(column);
            if (Text(1) != stream) (stream, head) = (Text(1)!, new string('0', 64));
            Assert.Equal(head, Text(11));
            var micros = (row.GetFieldValue<DateTimeOffset>(5) - DateTimeOffset.UnixEpoch).Ticks / TimeSpan.TicksPerMicrosecond;
            var bytes = Encode(
                head, Text(0), Text(1), row.GetInt64(2), Text(3), Text(4), micros, Text(6), Text(7), Text(8), Text(9), Text(10));
            head = Convert.ToHexStringLower(SHA256.HashData(bytes));
            Assert.Equal(head, Text(12));
            verified++;
        }
        return verified;
    }

    private static byte[] Encode(
        string? prev, string? host, string? stream, long version, string? id, string? type, long micros, string? actor,
        string? correlation, string? causation, string? data, string? headers)
    {
        using var bytes = new MemoryStream();
        Text(prev);
        Text(host);
        Text(stream);
        Number(version);
        Text(id);
        Text(type);
        Number(micros);
        Text(actor);
        Text(correlation);
        Text(causation);
        Text(data);
        Text(headers);
        return bytes.ToArray();

        void Text(string? value)
        {
            var utf8 = value is null ? null : Encoding.UTF8.GetBytes(value);
            var length = new byte[4];
            BinaryPrimitives.WriteInt32BigEndian(length, utf8?.Length ?? -1);
            bytes.Write(length);
            bytes.Write(utf8 ?? []);
        }

        void Number(long value)
        {
            var field = new byte[12];
            BinaryPrimitives.WriteInt32BigEndian(field, 8);
            BinaryPrimitives.WriteInt64BigEndian(field.AsSpan(4), value);
            bytes.Write(field);
        }
    }

    [GeneratedRegex(@"^\| (\w+) \| `([^`]*)` \|", RegexOptions.Multiline)]
    private static partial Regex FieldRow();

    [GeneratedRegex(@"```hex\n([0-9a-f\s]+)```")]
    private static partial Regex HexBlock();

    [GeneratedRegex(@"\s")]
    private static partial Regex Whitespace();
}
