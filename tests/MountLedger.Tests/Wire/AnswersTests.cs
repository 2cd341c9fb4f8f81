using System.Text;
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

    /// <summary>Text that is kept of runs, and put together, is the text that would have been written now.</summary>
    [Fact]
    public void An_answer_with_many_attachments_is_what_the_serializer_would_write_also_after_changes()
    {
        var random = new Random(7);
        var at = DateTimeOffset.UnixEpoch;
        var state = MountState.Initial(new StreamKey("host-a", "/srv/\"attachments\":[]"));
        for (var step = 0; step < 3_000; step++)
        {
            var consumer = $"vm-{random.Next(1_200)} \"attachments\":[] \u00fc";
            at = at.AddMilliseconds(7);
            state = state.Evolve(
                random.Next(3) > 0
                    ? new MountEvent.AttachmentAdded("v", consumer, OnFailure.Forget)
                    : new MountEvent.AttachmentRemoved("v", consumer, RemovalReason.Detached),
                state.Version + 1, at, "uid:0");
            if (step % 29 == 0 || step > 2_990) AssertIsWhole(state);
        }
        Assert.InRange(state.Attachments.Count, 400, 1_200);
    }

    private static void AssertIsWhole(MountState state)
    {
        var expected = JsonSerializer.Serialize(new OutcomeView(Views.Of(state), "attached"), Answers.Json.OutcomeView);
        var (status, json) = Answers.Render(new CommandResult.Done(Outcome.Attached, state));
        Assert.Equal((200, expected), (status, Encoding.UTF8.GetString(json)));
    }
}
