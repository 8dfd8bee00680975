"""Tools that run inside the server: every step on the wire, limits, clients who leave, clients who know of nothing."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.fixtures.http_server import Running, running, wait_until
from tests.server.test_chat_completions import HELLO, model_of, picture_message
from tusi.agent.tool import ConversationMedia
from tusi.agent.tools.calculator import Calculator
from tusi.agent.tools.zoom import ImageZoomInTool
from tusi.agent.types import AgentLimits
from tusi.backends.fake import FakeBackend, FakeReply
from tusi.backends.local.backend import LocalBackend
from tusi.backends.protocol import NamedToolChoice
from tusi.chat.messages import ImagePart, Part, TextPart, ToolCall
from tusi.core.errors import ConfigError
from tusi.server.config import ServerConfig
from tusi.server.server_tools import ServerTools

ZOOM = {"type": "builtin", "name": "image_zoom_in_tool"}
ALL = {"type": "builtin"}
OWN = {"type": "function", "function": {"name": "own", "parameters": {"type": "object", "properties": {}}}}
TOOLS = ServerTools((ImageZoomInTool(), Calculator()), AgentLimits(max_turns=4, max_tool_calls=3))


def zoom(*box: float) -> FakeReply:
    call = ToolCall("x", "image_zoom_in_tool", json.dumps({"bbox_2d": box}))
    return FakeReply(reasoning="Too small.", content="Let me look.", tool_calls=(call,))


def add(text: str = "1+1") -> ToolCall:
    return ToolCall("x", "calculator", json.dumps({"expression": text}))


ANSWER = FakeReply(reasoning="I see.", content="A cat.")


@pytest.fixture
def served(fake: FakeBackend) -> Any:
    with running(fake, tools=TOOLS) as server:
        yield server


def ask(server: Running, **body: Any) -> httpx.Response:
    with server.http() as client:
        return client.post("/v1/chat/completions", json={"messages": [picture_message()], "tools": [ALL], **body})


def chunks_of(server: Running, **body: Any) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in ask(server, stream=True, **body).text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def four_colours() -> str:
    pixels = np.zeros((400, 400, 3), np.uint8)
    pixels[:200, :200], pixels[:200, 200:] = (255, 0, 0), (0, 255, 0)
    pixels[200:, :200], pixels[200:, 200:] = (0, 0, 255), (255, 255, 255)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def test_every_step_is_streamed_with_its_crop_and_box(fake: FakeBackend, served: Running) -> None:
    fake.queue(zoom(500, 0, 1200, 500), ANSWER)
    said = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": four_colours()}}]}]
    chunks = chunks_of(served, messages=said, stream_options={"include_usage": True})
    steps = [chunk["step"] for chunk in chunks if "step" in chunk]
    assert [(step["type"], step["turn"]) for step in steps] == [
        ("turn", 0), ("turn_end", 0), ("tool_call", 0), ("tool_result", 0), ("turn", 1), ("turn_end", 1),
    ]  # fmt: skip
    _, turn_end, call, result, _, answer = steps
    assert call["origin"] == result["origin"] == {"img_idx": 0, "bbox_2d": [500, 0, 1000, 500]}
    assert json.loads(call["call"]["arguments"]) == {"bbox_2d": [500, 0, 1200, 500]}
    assert turn_end["message"]["tool_calls"][0]["id"] == result["message"]["tool_call_id"] == call["call"]["id"]
    [part] = result["message"]["content"]
    data = base64.b64decode(part["image_url"]["url"].removeprefix("data:image/png;base64,"))
    crop = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert {tuple(pixel) for pixel in crop.reshape(-1, 3).tolist()} == {(0, 255, 0)}
    assert answer["message"] == {
        "role": "assistant", "content": "A cat.", "reasoning": "I see.", "reasoning_content": "I see.",
    }  # fmt: skip
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert "".join(delta.get("content", "") for delta in deltas) == "Let me look.\n\nA cat."
    assert "".join(delta.get("reasoning", "") for delta in deltas) == "Too small.\n\nI see."
    assert not any("tool_calls" in delta for delta in deltas)
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["completion_tokens"] > len("Let me look.A cat.")


@pytest.mark.parametrize(
    "replies",
    [
        [ANSWER],
        [zoom(0, 0, 500, 500), ANSWER],
        [zoom(5, 5, 5, 5), FakeReply(tool_calls=(add(), add("2/0"))), ANSWER],
        [FakeReply(content="Both.", tool_calls=(add(), ToolCall("x", "own", '{"a": 1}'), ToolCall("x", "own", "{}")))],
        [FakeReply(text="<tool_call>\n{not json\n</tool_call>")],
        [FakeReply(text="")],
    ],
)
@pytest.mark.parametrize("options", [{}, {"max_tokens": 30}, {"max_tokens": 1}])
def test_streamed_equals_unstreamed(
    fake: FakeBackend, served: Running, replies: list[FakeReply], options: dict[str, Any]
) -> None:
    fake.queue(*replies, *[ANSWER] * 3)
    client = served.openai()
    whole = ask(served, **options, tools=[ALL, OWN]).json()["choices"][0]
    fake._replies.clear()
    fake.queue(*replies, *[ANSWER] * 3)
    said = {"model": "fake", "messages": [picture_message()], "tools": [ALL, OWN]}
    stream = client.chat.completions.create(**said, **options, stream=True)
    total = added_up(stream)
    assert total["content"] == whole["message"]["content"]
    assert total["reasoning"] == whole["message"]["reasoning"]
    calls = [
        (call["function"]["name"], call["function"]["arguments"]) for call in whole["message"].get("tool_calls", ())
    ]
    assert total["calls"] == calls
    assert without_ids(total["steps"]) == without_ids(whole["steps"])
    assert {name: whole[name] for name in total["end"]} == total["end"]


def added_up(stream: Any) -> dict[str, Any]:
    """What a client makes of a stream; what was never said stays None."""
    total: dict[str, Any] = {"content": None, "reasoning": None, "calls": [], "steps": [], "end": {}}
    for chunk in stream:
        total["steps"] += [chunk.model_extra["step"]] if "step" in chunk.model_extra else []
        [choice] = chunk.choices
        for name, piece in (
            ("content", choice.delta.content),
            ("reasoning", choice.delta.model_extra.get("reasoning")),
        ):
            if piece is not None:
                total[name] = (total[name] or "") + piece
        for call in choice.delta.tool_calls or ():
            if call.index == len(total["calls"]):
                total["calls"].append((call.function.name, ""))
            name, arguments = total["calls"][call.index]
            total["calls"][call.index] = (name, arguments + call.function.arguments)
        if choice.finish_reason:
            names = ("finish_reason", "stop_reason", "thinking_truncated", "budget_spent")
            total["end"] = {name: getattr(choice, name) for name in names}
    return total


def without_ids(value: Any) -> Any:
    """Ids of calls differ between two runs."""
    if isinstance(value, dict):
        return {name: without_ids(item) for name, item in value.items() if name not in ("id", "tool_call_id")}
    return [without_ids(item) for item in value] if isinstance(value, list) else value


def test_a_client_that_knows_nothing_of_it_gets_an_ordinary_answer(fake: FakeBackend, served: Running) -> None:
    fake.queue(zoom(0, 0, 500, 500), ANSWER)
    answer = served.openai().chat.completions.create(
        model="fake",
        messages=[picture_message()],
        tools=[{"type": "mcp", "server_label": "tusi", "require_approval": "never"}],  # type: ignore[list-item]
    )
    assert answer.choices[0].message.content == "Let me look.\n\nA cat."
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].finish_reason == "stop"


def test_what_the_model_saw_can_be_sent_back(fake: FakeBackend, served: Running) -> None:
    fake.queue(zoom(0, 0, 500, 500), ANSWER, "Yes.")
    steps = ask(served).json()["choices"][0]["steps"]
    said = [step["message"] for step in steps if "message" in step]
    ask(served, messages=[picture_message(), *said, {"role": "user", "content": "Sure?"}])
    before, after = fake.requests[1].messages, fake.requests[2].messages
    assert after[1] == before[1]
    assert [type(part) for part in after[2].content] == [ImagePart]
    assert [message.text for message in after[3:]] == ["A cat.", "Sure?"]


def test_a_call_of_the_clients_own_tool_is_handed_over(fake: FakeBackend, served: Running) -> None:
    fake.queue(FakeReply(tool_calls=(add("6*7"), ToolCall("x", "own", '{"a": 1}'))))
    choice = ask(served, tools=[OWN, ALL]).json()["choices"][0]
    [call] = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert call["function"] == {"name": "own", "arguments": '{"a": 1}'}
    results = [step for step in choice["steps"] if step["type"] == "tool_result"]
    assert [step["message"]["content"] for step in results] == [[{"type": "text", "text": "42"}]]
    assert [tool["function"]["name"] for tool in fake.requests[0].tools] == ["image_zoom_in_tool", "calculator", "own"]


@pytest.mark.parametrize("body", [{"max_turns": 2}, {"max_tool_calls": 1}, {}, {"max_turns": 99, "max_tool_calls": 99}])
def test_limits_end_in_an_answer(fake: FakeBackend, served: Running, body: dict[str, int]) -> None:
    fake.queue(*[FakeReply(tool_calls=(add(),))] * min(3, body.get("max_turns", 4) - 1, body.get("max_tool_calls", 3)))
    fake.queue(ANSWER)
    choice = ask(served, **body).json()["choices"][0]
    assert (choice["message"]["content"], choice["budget_spent"]) == ("A cat.", True)
    assert fake.requests[-1].tools == ()


def test_max_tokens_holds_for_all_turns_together(fake: FakeBackend, served: Running) -> None:
    fake.queue(FakeReply(content="x" * 40, tool_calls=(add(),)), FakeReply(content="y" * 500))
    body = ask(served, max_tokens=300).json()
    assert 250 <= body["usage"]["completion_tokens"] <= 300
    assert body["choices"][0]["finish_reason"] == "length"


def test_tool_choice_holds_for_the_first_turn(fake: FakeBackend, served: Running) -> None:
    fake.queue(FakeReply(tool_calls=(add(),)), ANSWER)
    ask(served, tool_choice={"type": "function", "function": {"name": "calculator"}})
    assert [request.tool_choice for request in fake.requests] == [NamedToolChoice("calculator"), "auto"]
    fake.queue(ANSWER)
    assert "steps" not in ask(served, tool_choice="none").json()["choices"][0]


@pytest.mark.parametrize(
    ("body", "param", "advice"),
    [
        ({"tools": [{"type": "builtin", "name": "weather"}]}, "tools[0]", "image_zoom_in_tool, calculator"),
        ({"tools": [{"type": "builtin", "label": "x"}]}, "tools[0]", "Correct it"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0]", "--mcp"),
        ({"tools": [{"type": "mcp", "server_label": "tusi", "server_url": "http://10.0.0.1"}]}, "tools[0]", "--mcp"),
        (
            {"tools": [{"type": "mcp", "server_label": "tusi", "require_approval": "always"}]},
            "tools[0].require_approval",
            "run them yourself",
        ),
        ({"tools": [ALL, {"type": "function", "function": {"name": "calculator"}}]}, "tools", "Rename it"),
        ({"n": 2}, "n", "run it 2 times"),
        ({"tools": [OWN], "max_turns": 2}, "max_turns", "Leave it out"),
        ({"tool_choice": {"type": "function", "function": {"name": "nope"}}}, "tool_choice", "Choose one of them"),
    ],
)
def test_what_cannot_be_is_refused(served: Running, body: dict[str, Any], param: str, advice: str) -> None:
    for stream in (False, True):
        response = ask(served, stream=stream, **body)
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (400, param), error
        assert advice in error["message"]


def test_two_tools_of_one_name_are_refused_at_start() -> None:
    with pytest.raises(ConfigError, match="Drop one of them"):
        ServerTools((Calculator(), Calculator()))


def test_the_list_of_tools(served: Running) -> None:
    with served.http() as client:
        listed = client.get("/v1/tools").json()["data"]
    assert [tool["id"] for tool in listed] == ["image_zoom_in_tool", "calculator"]
    assert listed[0]["parameters"]["required"] == ["bbox_2d"]


class Gate:
    """A tool that waits until it is let through."""

    name = "gate"
    schema = {"type": "function", "function": {"name": "gate", "parameters": {"type": "object"}}}  # noqa: RUF012

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()

    def call(self, arguments: Mapping[str, Any], media: ConversationMedia) -> tuple[Part, ...]:
        self.entered.set()
        self.open.wait(10)
        return (TextPart("through"),)


def test_a_client_who_leaves_during_a_call_ends_the_loop(fake: FakeBackend) -> None:
    gate = Gate()
    fake.queue(FakeReply(tool_calls=(ToolCall("x", "gate", "{}"),)), ANSWER)
    config = ServerConfig(drain_seconds=5)
    with running(fake, config, tools=ServerTools((gate,))) as server:
        with (
            server.http() as client,
            client.stream("POST", "/v1/chat/completions", json={"messages": HELLO, "tools": [ALL], "stream": True}),
        ):
            assert gate.entered.wait(10)
        wait_until(lambda: server.metric("tusi_requests_in_flight") == 0)
        gate.open.set()
    assert len(fake.requests) == 1


class NarrowZoom(ImageZoomInTool):
    """Noise chooses no sensible box: this one leaves it no choice."""

    schema = {  # noqa: RUF012
        "type": "function",
        "function": {
            "name": "image_zoom_in_tool",
            "parameters": {
                "type": "object",
                "properties": {"bbox_2d": {"const": [0, 0, 500, 500]}},
                "required": ["bbox_2d"],
                "additionalProperties": False,
            },
        },
    }


def test_a_real_engine_zooms_and_a_client_who_leaves_frees_its_blocks(tiny_backend: LocalBackend) -> None:
    tools = ServerTools((NarrowZoom(),))
    forced = {"tools": [ZOOM], "tool_choice": "required", "parallel_tool_calls": False, "thinking_budget": 4}
    with running(tiny_backend, tools=tools) as server:
        body = ask(server, **forced, model=model_of(server), seed=1, max_tokens=400, max_turns=2).json()
        steps = body["choices"][0]["steps"]
        assert [step["type"] for step in steps].count("tool_result") == 1
        assert steps[-1]["type"] == "turn_end"
        with (
            server.http() as client,
            client.stream(
                "POST",
                "/v1/chat/completions",
                json={"messages": [picture_message()], "stream": True, "ignore_eos": True, **forced},
            ) as response,
        ):
            next(line for line in response.iter_lines() if '"turn":1' in line)
        wait_until(lambda: server.metric("tusi_requests_running") == 0)
        wait_until(lambda: server.metric("tusi_kv_blocks_used") == 0)
