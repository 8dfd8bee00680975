"""/v1/responses with OpenAI's own client: items in and out, events, stored conversations, tools on either side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.fixtures.http_server import Running, running
from tests.server.test_chat_completions import data_url, model_of
from tests.server.test_server_tools import TOOLS, add
from tusi.backends.fake import FakeBackend, FakeReply
from tusi.chat.messages import ImagePart, Message, TextPart, ToolCall
from tusi.core.errors import EngineError
from tusi.server.config import ServerConfig

WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALL = FakeReply(reasoning="I ask.", tool_calls=(ToolCall("x", "weather", '{"city": "Paris"}'),))


@pytest.fixture
def served(fake: FakeBackend) -> Iterator[Running]:
    with running(fake, tools=TOOLS) as server:
        yield server


def create(server: Running, **body: Any) -> Any:
    with server.openai() as client:
        answer = client.responses.create(model=model_of(server), **body)
        return [*answer] if body.get("stream") else answer


def said_to(fake: FakeBackend) -> list[Message]:
    return [*fake.requests[-1].messages]


def without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: without_ids(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if key not in ("id", "call_id", "created_at", "completed_at")}
    return [without_ids(item) for item in value] if isinstance(value, list) else value


REPLIES = [
    FakeReply(content="A cat."),
    FakeReply(reasoning="Fur.", content="A cat."),
    CALL,
    FakeReply(
        content="Both.", tool_calls=(ToolCall("x", "weather", "{}"), ToolCall("y", "weather", '{"city": "Rome"}'))
    ),
    FakeReply(content=""),
    "I think\n</think>\n\n<tool_call>\n{broken",
]


@pytest.mark.parametrize("reply", REPLIES)
def test_the_events_of_a_stream_build_the_whole_response(fake: FakeBackend, served: Running, reply: Any) -> None:
    """What the deltas build, what the last event holds, and what comes unstreamed are one and the same."""
    ask: dict[str, Any] = {"input": "What is it?", "tools": [WEATHER], "store": False}
    fake.queue(reply, reply, reply)
    whole = create(served, **ask).model_dump()
    with served.openai() as client, client.responses.stream(model="fake", **ask) as stream:
        events = [*stream]
        final = stream.get_final_response().model_dump()
    assert [event.sequence_number for event in events] == [*range(len(events))]
    last = events[-1]
    assert last.type == "response.completed"
    assert without_ids(_plain(final["output"])) == without_ids(whole["output"])
    raw = [event.model_dump() for event in create(served, stream=True, **ask)]
    assert without_ids(raw[-1]["response"]) == without_ids(whole)
    assert without_ids(_built(raw)) == without_ids(whole["output"])


def _plain(output: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what the client adds for its own users."""
    for item in output:
        item.pop("parsed_arguments", None)
        for part in item.get("content") or ():
            part.pop("parsed", None)
    return output


def _built(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The output, from the deltas alone, checked against each `done`."""
    output: list[dict[str, Any]] = []
    for event in events:
        match event["type"]:
            case "response.output_item.added":
                assert event["output_index"] == len(output)
                output.append(event["item"])
            case "response.content_part.added":
                output[event["output_index"]]["content"] = [event["part"]]
            case "response.output_text.delta" | "response.reasoning_text.delta":
                output[event["output_index"]]["content"][0]["text"] += event["delta"]
            case "response.function_call_arguments.delta":
                output[event["output_index"]]["arguments"] += event["delta"]
            case "response.output_text.done" | "response.reasoning_text.done":
                assert output[event["output_index"]]["content"][0]["text"] == event["text"]
            case "response.function_call_arguments.done":
                output[event["output_index"]]["arguments"] = event["arguments"]
            case "response.output_item.done":
                output[event["output_index"]]["status"] = event["item"]["status"]
                assert output[event["output_index"]] == event["item"]
    return output


def test_a_response_reads_as_openais_client_reads_it(fake: FakeBackend, served: Running) -> None:
    fake.queue(FakeReply(reasoning="Fur.", content="A cat."))
    response = create(served, input="What is it?", instructions="Be brief.", metadata={"topic": "cats"})
    assert response.output_text == "A cat."
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.output[0].content[0].text == "Fur."
    assert (response.status, response.incomplete_details, response.error) == ("completed", None, None)
    assert response.metadata == {"topic": "cats"}
    usage = response.usage
    assert usage.output_tokens_details.reasoning_tokens > 0
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert [(m.role, m.text) for m in said_to(fake)] == [("system", "Be brief."), ("user", "What is it?")]


def test_pictures_come_as_input_image_and_answers_of_functions_hold_them(fake: FakeBackend, served: Running) -> None:
    fake.queue(CALL, "Seen.")
    question: dict[str, Any] = {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "Where?"},
            {"type": "input_image", "image_url": data_url(), "detail": "auto"},
        ],
    }
    first = create(served, input=[question], tools=[WEATHER])
    call = first.output[-1]
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", {"city": "Paris"})
    result: Any = {
        "type": "function_call_output",
        "call_id": call.call_id,
        "output": [{"type": "input_text", "text": "a map"}, {"type": "input_image", "image_url": data_url((8, 8))}],
    }
    second = create(served, input=[question, *first.output, result], tools=[WEATHER])
    assert second.output_text == "Seen."
    user, assistant, tool = said_to(fake)
    assert isinstance(user.content[1], ImagePart)
    assert (assistant.reasoning, assistant.tool_calls[0].id) == ("I ask.", call.call_id)
    assert tool.tool_call_id == call.call_id
    assert tool.content == (TextPart("a map"), ImagePart(data_url((8, 8))))


def test_a_picture_in_a_tools_output_is_seen_by_a_real_engine(tiny: Running) -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Paris"}'}
    sizes = []
    for output in ("none", [{"type": "input_image", "image_url": data_url((112, 112))}]):
        result = {"type": "function_call_output", "call_id": "c1", "output": output}
        response = create(tiny, input=[{"role": "user", "content": "Where?"}, call, result], max_output_tokens=4)
        sizes.append(response.usage.model_dump()["input_tokens_details"]["image_tokens"])
    assert sizes == [0, 16]


def test_a_stored_response_is_gone_on_with(fake: FakeBackend, tmp_path: Path) -> None:
    """Also by a server that was started later; instructions hold for one request only."""
    fake.queue(FakeReply(reasoning="Fur.", content="A cat."), "Grey.", "Still grey.")
    config = ServerConfig(state_dir=tmp_path, drain_seconds=5)
    with running(fake, config) as server:
        first = create(server, input="What is it?", instructions="Be brief.")
        second = create(server, input="What colour?", previous_response_id=first.id)
    with running(fake, config) as server:
        client = server.openai()
        create(server, input="Sure?", previous_response_id=second.id)
        assert [(m.role, m.text) for m in said_to(fake)] == [
            ("user", "What is it?"),
            ("assistant", "A cat."),
            ("user", "What colour?"),
            ("assistant", "Grey."),
            ("user", "Sure?"),
        ]
        assert client.responses.retrieve(second.id).output_text == "Grey."
        items = client.responses.input_items.list(first.id, order="asc")
        assert [item.content[0].text for item in items] == ["What is it?"]
        client.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError, match="no stored response"):
            client.responses.retrieve(first.id)
        with pytest.raises(openai.NotFoundError) as caught:
            create(server, input="And?", previous_response_id=second.id)
        assert caught.value.param == "previous_response_id"


def test_what_shall_not_be_stored_is_not(fake: FakeBackend, served: Running) -> None:
    fake.queue("A cat.")
    response = create(served, input="What is it?", store=False)
    with pytest.raises(openai.NotFoundError):
        served.openai().responses.retrieve(response.id)


class Animal(BaseModel):
    name: str
    legs: int


def test_answers_are_parsed_into_a_class(fake: FakeBackend, served: Running) -> None:
    fake.queue('{"name": "cat", "legs": 4}')
    response = served.openai().responses.parse(model="fake", input="What is it?", text_format=Animal)
    assert response.output_parsed == Animal(name="cat", legs=4)
    asked = fake.requests[-1].sampling_params.structured_outputs
    assert asked is not None
    assert json.loads(asked.json or "")["required"] == ["name", "legs"]


def test_a_real_engine_follows_the_schema(tiny: Running) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    text: Any = {"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}}
    response = create(tiny, input="Go.", text=text, max_output_tokens=64, reasoning={"effort": "none"})
    assert response.status == "completed"
    assert json.loads(response.output_text)["a"] in (1, 2)


def test_a_truncated_thought_is_reported_as_such(fake: FakeBackend, served: Running) -> None:
    fake.queue(FakeReply(text="Long thoughts without end", starts_in_reasoning=True))
    response = create(served, input="What is it?", max_output_tokens=4)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.model_dump()["thinking_truncated"] is True
    assert response.output[0].content[0].text == "Long"
    assert response.output[0].status == "incomplete"


def test_built_in_tools_are_items_with_their_pictures(fake: FakeBackend, served: Running) -> None:
    fake.queue(FakeReply(reasoning="I add.", tool_calls=(add(),)), FakeReply(content="Two."), FakeReply(content="Yes."))
    tools: Any = [{"type": "mcp", "server_label": "tusi", "require_approval": "never"}]
    response = create(served, input="1+1?", tools=tools)
    assert [item.type for item in response.output] == ["reasoning", "mcp_call", "message"]
    call = response.output[1]
    assert (call.name, call.server_label, call.output, call.status) == ("calculator", "tusi", "2", "completed")
    assert response.output_text == "Two."
    create(served, input="Sure?", previous_response_id=response.id)
    assert [message.role for message in said_to(fake)] == ["user", "assistant", "tool", "assistant", "user"]
    assert said_to(fake)[2].text == "2"


def test_a_streamed_tool_step_has_the_crop(fake: FakeBackend, served: Running) -> None:
    zoom = ToolCall("x", "image_zoom_in_tool", '{"bbox_2d": [0, 0, 500, 500]}')
    fake.queue(FakeReply(tool_calls=(zoom,)), FakeReply(content="Red."))
    content: Any = [{"type": "input_image", "image_url": data_url((200, 200))}]
    tools: Any = [{"type": "builtin", "name": "zoom"}]
    events = [*create(served, input=[{"role": "user", "content": content}], tools=tools, stream=True)]
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert [item.type for item in done] == ["mcp_call", "message"]
    step = done[0].model_dump()
    assert step["origin"] == {"img_idx": 0, "bbox_2d": [0, 0, 500, 500]}
    assert step["content"][0]["image_url"].startswith("data:image/png;base64,")
    assert "response.mcp_call.completed" in [event.type for event in events]


def test_logprobs_are_told_for_every_token_of_the_text(tiny: Running) -> None:
    response = create(
        tiny,
        input="Go.",
        max_output_tokens=6,
        top_logprobs=2,
        reasoning={"effort": "none"},
        include=["message.output_text.logprobs"],
    )
    part = response.output[-1].content[0]
    assert len(part.logprobs) >= 1
    assert all(len(entry.top_logprobs) == 2 for entry in part.logprobs)


@pytest.mark.parametrize(
    ("body", "param", "advice"),
    [
        ({"background": True}, "background", "/v1/batches"),
        ({"truncation": "auto"}, "truncation", "never cut"),
        ({"conversation": "c"}, "conversation", "previous_response_id"),
        ({"prompt": {"id": "p"}}, "prompt", "instructions"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort", "thinking_budget"),
        ({"input": []}, "input", "Give a text or items"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type", "Use message, reasoning"),
        ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input[0].content[0].type", "transcribe"),
        ({"include": ["x"]}, "include", "Known are"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema", "Give one"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", ""),
        ({"tool_choice": "sometimes"}, "tool_choice", "required"),
        ({"max_output_tokens": 0}, "max_output_tokens", "Correct this field"),
        ({"wrong": 1}, "wrong", "Leave it out"),
        ({"max_turns": 3}, "max_turns", "Leave it out"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(served: Running, body: Any, param: str, advice: str) -> None:
    with served.http() as client:
        response = client.post("/v1/responses", json={"input": "Hello", **body})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == param
    assert advice in error["message"]


def test_an_error_in_the_middle_is_the_last_event(fake: FakeBackend, served: Running) -> None:
    fake.queue(FakeReply(content="Half", error=EngineError("the engine stumbled. Try again.")))
    events = [*create(served, input="Go.", stream=True)]
    assert events[-1].type == "response.failed"
    assert events[-1].response.error.code == "server_error"
    assert events[-1].response.output[0].content[0].text == "Half"
