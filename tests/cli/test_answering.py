from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tusi.backends.fake import FakeBackend, FakeReply
from tusi.backends.protocol import ChatDelta, ChatRequest, DeltaStream
from tusi.chat.messages import Message, TextPart
from tusi.cli.answering import Answer, answer, remarks, summary
from tusi.cli.session import AnswerOptions, make_request
from tusi.cli.writer import AnswerWriter

MESSAGES = (Message(role="user", content=(TextPart("Hi"),)),)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Buffered(io.StringIO):
    """A pipe: the reader sees what was flushed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = ""

    def flush(self) -> None:
        self.seen = self.getvalue()


def ask(backend: FakeBackend, writer: AnswerWriter | None = None, **options: object) -> Answer:
    return answer(backend, make_request(backend, MESSAGES, AnswerOptions(**options)), show=writer)  # type: ignore[arg-type]


def test_the_answer_goes_to_one_stream_and_the_thoughts_to_the_other() -> None:
    out, err = io.StringIO(), io.StringIO()
    ask(FakeBackend(["Let me\nsee.\n</think>\n\nA cat."]), AnswerWriter(show_thoughts=True, out=out, err=err))
    assert out.getvalue() == "A cat.\n"
    assert err.getvalue().strip() == "Let me\nsee."


def test_thoughts_can_be_left_out() -> None:
    out, err = io.StringIO(), io.StringIO()
    ask(FakeBackend(["Hm.\n</think>\n\nA cat.\n"]), AnswerWriter(show_thoughts=False, out=out, err=err))
    assert (out.getvalue(), err.getvalue()) == ("A cat.\n", "")


def test_every_piece_is_out_before_the_next_is_computed() -> None:
    out, err = Buffered(), Buffered()
    seen: list[tuple[str, str]] = []

    class Watched(FakeBackend):
        def stream(self, request: ChatRequest) -> DeltaStream:
            def deltas() -> Iterator[ChatDelta]:
                for delta in super(Watched, self).stream(request):
                    yield delta
                    seen.append((err.seen.rstrip("\n"), out.seen))

            return deltas()  # type: ignore[return-value]  # a generator is a DeltaStream

    ask(Watched(["ab\n</think>\n\nxyz"]), AnswerWriter(show_thoughts=True, out=out, err=err))
    assert [pair for i, pair in enumerate(seen) if pair not in seen[:i]] == [
        ("a", ""),
        ("ab", ""),
        ("ab", "x"),
        ("ab", "xy"),
        ("ab", "xyz"),
    ]


def test_on_a_terminal_thoughts_are_dimmed_and_control_characters_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out, err = Terminal(), Terminal()
    ask(
        FakeBackend(["\x1b]0;hm\x07\n</think>\n\n\x1b[31mred\ttab"]), AnswerWriter(show_thoughts=True, out=out, err=err)
    )
    assert "\x1b[2m" in err.getvalue()
    assert "\x1b]0;" not in err.getvalue()
    assert out.getvalue() == "\ufffd[31mred\ttab\n"


def test_into_a_pipe_the_answer_goes_unchanged() -> None:
    out = io.StringIO()
    ask(FakeBackend(["\x1b[31mred"]), AnswerWriter(show_thoughts=True, out=out, err=io.StringIO()))
    assert out.getvalue() == "\x1b[31mred\n"


def test_no_colour_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    err = Terminal()
    ask(FakeBackend(["Hm.\n</think>\n\nA."]), AnswerWriter(show_thoughts=True, out=Terminal(), err=err))
    assert "\x1b" not in err.getvalue()


def test_a_thought_that_was_cut_is_reported_with_advice() -> None:
    backend = FakeBackend([FakeReply(text="I think and think and think", starts_in_reasoning=True)])
    result = ask(backend)
    cut = replace(result, choice=replace(result.choice, thinking_truncated=True, content=""))
    (remark,) = remarks(cut)
    assert "There is no answer: the thinking was cut after" in remark
    for option in ("--max-tokens", "--max-model-len", "--thinking-budget", "--no-thinking"):
        assert option in remark


def test_a_closed_thought_and_a_cut_answer_are_reported() -> None:
    result = ask(FakeBackend(["A long answer"]), max_tokens=3)
    assert [line.split(".")[0] for line in remarks(result)] == ["The answer was cut after 3 tokens"]
    closed = replace(result, choice=replace(result.choice, thinking_truncated=True, finish_reason="stop"))
    assert "The thinking was closed after" in remarks(closed)[0]
    repeated = replace(result, choice=replace(result.choice, stop_reason="repetition"))
    assert "repeated itself" in remarks(repeated)[0]


def test_an_answer_that_ended_by_itself_needs_no_remark() -> None:
    result = ask(FakeBackend(["Hm.\n</think>\n\nA cat."]))
    assert remarks(result) == []
    assert result.choice.content == "A cat."
    assert 0 <= result.ttft <= result.e2e_latency
    assert "tokens in" in summary(result)


def test_ctrl_c_closes_the_stream_and_ends_the_line() -> None:
    closed: list[bool] = []

    class Stopping:
        def __iter__(self) -> Iterator[ChatDelta]:
            yield ChatDelta(content="A c", text="A c")
            raise KeyboardInterrupt

        def close(self) -> None:
            closed.append(True)

    backend = FakeBackend()
    backend.stream = lambda request: Stopping()  # type: ignore[assignment,method-assign,return-value]
    out = io.StringIO()
    writer = AnswerWriter(show_thoughts=True, out=out, err=io.StringIO())
    with pytest.raises(KeyboardInterrupt):
        ask(backend, writer)
    assert closed == [True]
    assert out.getvalue() == "A c\n"
    assert writer.content == "A c"
