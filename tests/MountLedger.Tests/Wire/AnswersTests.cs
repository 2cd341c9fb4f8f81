using System.Text.Encodings.Web;
using System.Text.Json;
using MountLedger.Wire;

namespace MountLedger.Tests.Wire;

public sealed class AnswersTests
{
    [Theory]
    [InlineData("vol", "vm-1")]
    [InlineData("ü \"quoted\" \\ 日本 \ud83d\ude00", "\u0001\n\t/<>&'+\u2028")]
    public void An_attachment_is_written_as_the_serializer_would_write_it_and_read_again(string volume, string consumer)
    {
        var view = new AttachmentView(volume, consumer, new DateTimeOffset(2026, 11, 22, 1, 2, 3, 456, TimeSpan.Zero), "uid:0");
        var plain = new AnswerJson(new JsonSerializerOptions(AnswerJson.Default.Options) { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping });

        var written = JsonSerializer.Serialize(view, Answers.Json.AttachmentView);

        Assert.Equal(JsonSerializer.Serialize(view, plain.AttachmentView), written);
        Assert.Equal(view, JsonSerializer.Deserialize(written, Answers.Json.AttachmentView));
    }
}
