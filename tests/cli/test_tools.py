"""`--tools` and `--trace` of ask and chat: what is offered, what is shown, what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Run
from tests.fixtures.media_server import media_server
from tusi.agent.media import downloaded
from tusi.agent.replay import replay
from tusi.agent.trace import read_traces
from tusi.agent.types import CallResult, RunEnd
from tusi.backends.fake import FakeBackend, FakeReply
from tusi.chat.messages import ImagePart, Message, TextPart, ToolCall
from tusi.cli.chat import ChatLoop
from tusi.cli.session import AnswerOptions
from tusi.cli.tools import ToolChoice
from tusi.processing.limits import MediaLimits

pytestmark = pytest.mark.usefixtures("folder")
LIMITS = MediaLimits()
ZOOM = FakeReply(
    reasoning="Too small. I zoom.",
    tool_calls=(ToolCall("x", "image_zoom_in_tool", '{"bbox_2d": [0, 0, 500, 500], "label": "sign"}'),),
)
ADD = FakeReply(reasoning="A sum.", tool_calls=(ToolCall("x", "calculator", '{"expression": "2*21"}'),))
ANSWER = FakeReply(reasoning="Now I see.", content="42.")


def offered(backend: FakeBackend, request: int = 0) -> list[str]:
    return [tool["function"]["name"] for tool in backend.requests[request].tools]


def test_thought_call_result_and_answer_are_shown(run: Run, backend: FakeBackend) -> None:
    backend.queue(ZOOM, ADD, ANSWER)
    code, out, err = run("ask", "photo.jpg", "What is on the sign?", "--tools", "zoom,calculator")
    assert (code, out) == (0, "42.\n")
    shown = [line for line in err.splitlines() if line]
    assert shown == [
        "Too small. I zoom.",
        '-> image_zoom_in_tool {"bbox_2d": [0, 0, 500, 500], "label": "sign"}',
        "<- a picture of 317 x 158 pixels",
        "A sum.",
        '-> calculator {"expression": "2*21"}',
        "<- 42",
        "Now I see.",
    ]
    assert offered(backend) == ["image_zoom_in_tool", "calculator"]


@pytest.mark.parametrize(
    ("budget", "args", "names"),
    [
        (200 * 100 - 1, (), ["image_zoom_in_tool"]),
        (200 * 100, (), []),
        (None, (), []),
        (200 * 100 - 1, ("--tools", "none"), []),
        (200 * 100 - 1, ("--tools", "calculator"), ["calculator"]),
        (200 * 100, ("--max-pixels", "10000"), ["image_zoom_in_tool"]),
        (200 * 100 - 1, ("--max-pixels", "30000"), []),
    ],
)
def test_zoom_is_on_by_itself_for_pictures_larger_than_the_budget(
    run: Run, backend: FakeBackend, budget: int | None, args: tuple[str, ...], names: list[str]
) -> None:
    backend.image_max_pixels = budget  # type: ignore[attr-defined]
    backend.queue(ANSWER)
    assert run("ask", "other.png", "photo.jpg", "Q?", *args)[0] == 0
    assert offered(backend) == names


def test_a_schema_leaves_no_room_for_calls(run: Run, backend: FakeBackend, folder: Path) -> None:
    (folder / "schema.json").write_text("{}")
    backend.image_max_pixels = 784  # type: ignore[attr-defined]
    backend.queue(ANSWER)
    assert run("ask", "photo.jpg", "Q?", "--json-schema", "schema.json")[0] == 0
    assert offered(backend) == []
    code, _, err = run("ask", "photo.jpg", "Q?", "--json-schema", "schema.json", "--tools", "zoom")
    assert code == 2
    assert "cannot call --tools zoom. Leave one of them out" in err


@pytest.mark.parametrize(
    ("args", "advice"),
    [
        (
            ("--tools", "zoom,lens"),
            "there is no tool 'lens'; there are: zoom, image_search, knowledge_search, calculator",
        ),
        (("--tools", "knowledge_search"), "knowledge_search needs an index to look up"),
        (("--tools", "image_search", "--index", "none.index"), "there is no index 'none.index'"),
        (
            ("--tools", "zoom", "--index", "i"),
            "--index i has nothing to act on. Leave it out, or add --tools knowledge",
        ),
        (("--image-search-url", "http://x"), "--image-search-url http://x has nothing to act on"),
        (("--tools", "image_search", "--image-search-url", "ftp://x"), "is not an address. Write https://host/path"),
        (("--trace", "nowhere/t.jsonl"), "there is no folder 'nowhere'. Create it"),
        (("--trace", "."), "--trace . is a folder. Give the name of a file"),
    ],
)
@pytest.mark.parametrize("command", [("ask", "Q?"), ("chat",)])
def test_what_cannot_be_is_said_before_the_model_is_loaded(
    run: Run, command: tuple[str, ...], args: tuple[str, ...], advice: str
) -> None:
    code, _, err = run(*command, *args)
    assert code == 2
    assert advice in err


def test_json_tells_every_call(run: Run, backend: FakeBackend) -> None:
    backend.queue(ZOOM, ANSWER)
    _, out, err = run("ask", "photo.jpg", "Q?", "--tools", "zoom", "--json")
    assert not err
    value = json.loads(out)
    (call,) = value["tool_calls"]
    assert (call["name"], call["reasoning"]) == ("image_zoom_in_tool", "Too small. I zoom.")
    assert call["result"] == ["a picture of 317 x 158 pixels"]
    assert (value["content"], value["reasoning"]) == ("42.", "Now I see.")


def test_a_failed_call_and_spent_calls_are_told(run: Run, backend: FakeBackend) -> None:
    bad = FakeReply(tool_calls=(ToolCall("x", "image_zoom_in_tool", '{"bbox_2d": [5, 5, 5, 5]}'),))
    backend.queue(*[bad] * 7, ANSWER)
    _, out, err = run("ask", "photo.jpg", "Q?", "--tools", "zoom")
    assert out == "42.\n"
    assert "<- error: bbox_2d [5, 5, 5, 5] holds no area" in err
    assert "After 7 tool calls the tools were taken away" in err


def test_the_trace_plays_again_without_a_model(run: Run, backend: FakeBackend) -> None:
    backend.queue(ZOOM, ANSWER)
    run("ask", "photo.jpg", "Q?", "--tools", "zoom", "--trace", "run.jsonl")
    (trace,) = read_traces(Path("run.jsonl"))
    assert trace.answer == "42."
    events = list(replay(trace))
    (result,) = (event for event in events if isinstance(event, CallResult))
    assert isinstance(result.content[0], ImagePart)
    assert np.asarray(result.content[0].source).shape == (158, 317, 3)
    assert isinstance(events[-1], RunEnd)


def test_in_a_chat_the_crops_stay_in_the_talk(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backend = FakeBackend([ZOOM, ANSWER, FakeReply(content="Yes.")])
    lines = iter(["photo.jpg What?", "Sure?", "/save talk.json"])

    def read_line(_prompt: str) -> str:
        line = next(lines, None)
        if line is None:
            raise EOFError
        return line

    choice = ToolChoice.of("zoom", LIMITS)
    ChatLoop(backend, AnswerOptions(), read_line=read_line, tools=choice, trace=Path("run.jsonl")).run()
    assert [m.role for m in backend.requests[2].messages] == ["user", "assistant", "tool", "assistant", "user"]
    assert len(list(read_traces(Path("run.jsonl")))) == 2
    saved = json.loads((folder / "talk.json").read_text())["messages"]
    assert saved[2]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert capsys.readouterr().out == "42.\nYes.\n"


def test_a_picture_behind_a_url_is_fetched_once() -> None:
    limits = MediaLimits(allow_private_addresses=True)
    data = Path("photo.jpg").read_bytes()
    with media_server() as server:
        server.pages["/a.jpg"] = (200, {}, data)
        media = downloaded([ImagePart(f"{server.url}/a.jpg"), ImagePart("photo.jpg")], limits)
        assert len(server.requests) == 1
    assert media == (ImagePart(data), ImagePart("photo.jpg"))
    choice = ToolChoice.of(None, limits)
    backend = FakeBackend()
    backend.image_max_pixels = 784  # type: ignore[attr-defined]
    asked = (Message(role="user", content=(media[0], TextPart("Q?"))),)
    assert [tool.name for tool in choice.tools(backend, asked, {})] == ["image_zoom_in_tool"]
