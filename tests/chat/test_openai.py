"""OpenAI-shaped dictionaries: all the shapes that people send, what is refused and how; nothing else happens."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tusi.chat.messages import ImagePart, Message, Part, TextPart, ToolCall, VideoPart, iter_media
from tusi.chat.openai import parse_messages, parse_tools, to_openai
from tusi.core.errors import RequestError


def content(*items: Any) -> tuple[Part, ...]:
    return parse_messages([{"role": "user", "content": list(items)}])[0].content


PICTURE = object()  # stands for a PIL image or an array

IMAGE_SHAPES = [
    ({"type": "image_url", "image_url": {"url": "http://a/b.png"}}, ImagePart("http://a/b.png")),
    ({"type": "image_url", "image_url": {"url": "u", "detail": "auto"}}, ImagePart("u")),
    ({"type": "image_url", "image_url": {"url": "u", "detail": "low"}}, ImagePart("u", {"max_pixels": 262_144})),
    ({"type": "image_url", "image_url": "data:image/png;base64,AA"}, ImagePart("data:image/png;base64,AA")),
    ({"type": "image_url", "image_url": {"url": "u", "max_pixels": 99}}, ImagePart("u", {"max_pixels": 99})),
    ({"type": "input_image", "image_url": "u", "detail": "high"}, ImagePart("u")),
    ({"type": "image", "image": "/a/b.png"}, ImagePart("/a/b.png")),
    ({"type": "image", "image": "u", "min_pixels": 3136}, ImagePart("u", {"min_pixels": 3136})),
    ({"type": "image", "url": "u"}, ImagePart("u")),
    ({"type": "image", "path": Path("a.png")}, ImagePart(Path("a.png"))),
    ({"type": "image", "image": b"\x89PNG"}, ImagePart(b"\x89PNG")),
    ({"type": "image", "image": PICTURE}, ImagePart(PICTURE)),
    ({"image": "u"}, ImagePart("u")),
    ({"type": "image_url", "image_url": {"url": "u"}, "cache_control": {"type": "x"}, "uuid": None}, ImagePart("u")),
]
VIDEO_SHAPES = [
    ({"type": "video_url", "video_url": {"url": "u"}}, VideoPart("u")),
    ({"type": "video_url", "video_url": "u", "fps": 1.5}, VideoPart("u", {"fps": 1.5})),
    ({"type": "video", "video": "u", "max_frames": 8, "fps": 2}, VideoPart("u", {"max_frames": 8, "fps": 2})),
    ({"type": "video", "video": ["a", "b"], "fps": 2}, VideoPart(("a", "b"), {"fps": 2})),
    ({"type": "video", "video": [b"", PICTURE], "timestamps": [3]}, VideoPart((b"", PICTURE), {"timestamps": (3,)})),
    ({"type": "video", "video": "u", "frames_sample": "middle"}, VideoPart("u", {"frames_sample": "middle"})),
    ({"video": "u"}, VideoPart("u")),
]  # fmt: skip


@pytest.mark.parametrize(("item", "part"), [*IMAGE_SHAPES, *VIDEO_SHAPES])
def test_media_in_every_shape(item: dict[str, Any], part: Part) -> None:
    assert content(item, {"type": "text", "text": "?"}) == (part, TextPart("?"))
    tool = parse_messages([{"role": "tool", "tool_call_id": "1", "content": [item]}])
    assert tool == (Message(role="tool", tool_call_id="1", content=(part,)),)


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ("plain", "plain"),
        ({"text": "no type"}, "no type"),
        ({"type": "text", "text": ""}, ""),
        ({"type": "input_text", "text": "a"}, "a"),
        ({"type": "output_text", "text": "a", "annotations": [], "logprobs": []}, "a"),
        ({"type": "refusal", "refusal": "no"}, "no"),
    ],
)
def test_text_in_every_shape(item: object, text: str) -> None:
    assert content(item) == (TextPart(text),)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"role": "system", "content": "a"}, Message(role="system", content=(TextPart("a"),))),
        ({"role": "developer", "content": "a"}, Message(role="system", content=(TextPart("a"),))),
        ({"role": "user", "content": ""}, Message(role="user")),
        ({"role": "user", "content": {"type": "text", "text": "a"}}, Message(role="user", content=(TextPart("a"),))),
        ({"role": "user", "content": "a", "name": "Bo"}, Message(role="user", content=(TextPart("a"),))),
        ({"role": "assistant", "content": None}, Message(role="assistant")),
        ({"role": "assistant", "content": None, "refusal": "no"}, Message(role="assistant", content=(TextPart("no"),))),
        ({"role": "assistant", "reasoning": "hm"}, Message(role="assistant", reasoning="hm")),
        ({"role": "assistant", "reasoning_content": "h", "reasoning": "h"}, Message(role="assistant", reasoning="h")),
        ({"role": "assistant", "content": "", "reasoning": ""}, Message(role="assistant")),
        ({"role": "tool", "tool_call_id": "x", "content": None}, Message(role="tool", tool_call_id="x")),
        (
            {"role": "assistant", "content": None, "refusal": None, "audio": None, "function_call": None, "id": "1"},
            Message(role="assistant"),
        ),
    ],
)  # fmt: skip
def test_messages_of_every_role(message: dict[str, Any], expected: Message) -> None:
    assert parse_messages([message]) == (expected,)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ({"id": "1", "type": "function", "function": {"name": "f", "arguments": "{ }"}}, ToolCall("1", "f", "{ }")),
        ({"id": "1", "index": 0, "function": {"name": "f", "arguments": {"é": [1]}}}, ToolCall("1", "f", '{"é": [1]}')),
        ({"function": {"name": "f", "arguments": ""}}, ToolCall("call_0", "f", "{}")),
        ({"function": {"name": "f"}}, ToolCall("call_0", "f", "{}")),
        ({"name": "f", "arguments": {}}, ToolCall("call_0", "f", "{}")),
    ],
)  # fmt: skip
def test_calls_in_every_shape(call: dict[str, Any], expected: ToolCall) -> None:
    assert parse_messages([{"role": "assistant", "tool_calls": [call]}])[0].tool_calls == (expected,)


CALL: dict[str, Any] = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def assistant(**call: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{**CALL, **call}]}


@pytest.mark.parametrize(
    ("message", "param", "advice"),
    [
        (3, "messages[0]", "must be a JSON object"),
        ({"content": "a"}, "messages[0].role", "Use one of: system"),
        ({"role": "function", "name": "f", "content": "a"}, "messages[0].role", "Send role 'tool' with tool_call_id"),
        ({"role": ["user"], "content": "a"}, "messages[0].role", "Use one of"),
        ({"role": "user"}, "messages[0].content", "a string or a list of parts"),
        ({"role": "user", "content": 3}, "messages[0].content", "a string or a list of parts"),
        ({"role": "user", "content": "\ud83d"}, "messages[0].content", "Send whole characters"),
        ({"role": "user", "content": "a", "contents": "b"}, "messages[0].contents", "Known fields: content"),
        ({"role": "user", "content": "a", "reasoning": "b"}, "messages[0].reasoning", "Only assistant messages may"),
        ({"role": "user", "content": "a", "tool_call_id": "b"}, "messages[0].tool_call_id", "Only tool messages may"),
        ({"role": "assistant", "function_call": {}}, "messages[0].function_call", "Send tool_calls instead"),
        (
            {"role": "assistant", "reasoning": "a", "reasoning_content": "b"},
            "messages[0].reasoning_content",
            "Send one of them",
        ),
        ({"role": "assistant", "audio": {"id": 1}}, "messages[0].audio", "Leave it out"),
        ({"role": "assistant", "tool_calls": {}}, "messages[0].tool_calls", "must be a list of calls"),
        (assistant(type="custom"), "messages[0].tool_calls[0].type", "Only function calls are"),
        (assistant(function={"name": ""}), "messages[0].tool_calls[0].function.name", "Give the name"),
        (assistant(function={"arguments": "{}"}), "messages[0].tool_calls[0].function.name", "must be a string"),
        (assistant(function={"name": "f", "arguments": "{"}), "messages[0].tool_calls[0].function.arguments", "wrote"),
        (assistant(function={"name": "f", "arguments": "[]"}), "messages[0].tool_calls[0].function.arguments", "wrote"),
        (
            assistant(function={"name": "f", "arguments": {"a": {1}}}),
            "messages[0].tool_calls[0].function.arguments",
            "Use",
        ),
        (assistant(function={"name": "f", "args": {}}), "messages[0].tool_calls[0].function.args", "Known fields"),
    ],
)
def test_messages_that_are_refused(message: object, param: str, advice: str) -> None:
    with pytest.raises(RequestError, match=advice) as caught:
        parse_messages([message])
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("item", "where", "advice"),
    [
        (3, "", "must be a JSON object"),
        ({"type": "input_audio", "input_audio": {}}, ".type", "transcribe the sound"),
        ({"type": "file", "file": {}}, ".type", "text part"),
        ({"type": "tool_result"}, ".type", "with role 'tool'"),
        ({"type": "img", "image": "u"}, ".type", "Use one of: text"),
        ({"type": 7}, ".type", "Use one of: text"),
        ({"txt": "a"}, "", "Give type"),
        ({"text": "a", "image": "u"}, "", "Give type"),
        ({"type": "text"}, ".text", "must be a string"),
        ({"type": "text", "text": "a", "colour": 1}, ".colour", "Known fields: text, type"),
        ({"type": "image"}, "", "Give exactly one of: image, url, path"),
        ({"type": "image", "image": "u", "url": "u"}, "", "Give exactly one of"),
        ({"type": "image", "image": ["u"]}, ".image", "It must be a URL"),
        ({"type": "image", "image": True}, ".image", "It must be a URL"),
        ({"type": "image", "image": "  "}, ".image", "Give a URL"),
        ({"type": "image_url", "image_url": {}}, ".image_url.url", "It must be a URL"),
        ({"type": "image_url", "image_url": {"url": "u", "detail": "max"}}, ".detail", "Use auto, high or low"),
        ({"type": "image_url", "image_url": {"url": "u", "size": 3}}, ".image_url.size", "Known fields"),
        ({"image_url": {"url": "u", "max_pixels": 9}, "max_pixels": 9}, ".image_url.max_pixels", "Give"),
        ({"type": "image", "image": "u", "resized_height": 5}, ".resized_height", "max_pixels"),
        ({"type": "image", "image": "u", "max_pixels": "9"}, ".max_pixels", "must be a number"),
        ({"type": "image", "image": "u", "max_pixels": float("nan")}, ".max_pixels", "must be a number"),
        ({"type": "input_image", "file_id": "f"}, ".file_id", "Known fields"),
        ({"type": "video", "video": []}, ".video", "at least one frame"),
        ({"type": "video", "video": ["a", None]}, ".video[1]", "It must be a URL"),
        ({"type": "video", "video": "u", "nframes": 4}, ".nframes", "target_frames"),
        ({"type": "video", "video": "u", "timestamps": "1"}, ".timestamps", "list of seconds"),
        ({"type": "video", "video": ["u"], "timestamps": [None]}, ".timestamps[0]", "must be a number"),
        ({"type": "video", "video": "u", "frames_sample": 1}, ".frames_sample", "must be a string"),
    ],
)  # fmt: skip
def test_content_that_is_refused(item: object, where: str, advice: str) -> None:
    with pytest.raises(RequestError, match=advice) as caught:
        content("hi", item)
    assert caught.value.param == f"messages[0].content[1]{where}"


@pytest.mark.parametrize("messages", [None, {}, "hi", 3, []])
def test_conversations_that_are_refused(messages: object) -> None:
    with pytest.raises(RequestError) as caught:
        parse_messages(messages)
    assert caught.value.param == "messages"


# Tools.

PARAMETERS = {"type": "object", "properties": {"q": {"type": "string"}}}


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "function", "function": {"name": "f", "parameters": PARAMETERS}},
        {"name": "f", "parameters": PARAMETERS},
        {"type": "function", "name": "f", "parameters": PARAMETERS},
        {"function": {"name": "f", "parameters": PARAMETERS}},
    ],
)
def test_tools_in_every_shape(tool: dict[str, Any]) -> None:
    parsed = parse_tools([tool])
    assert parsed == ({"type": "function", "function": {"name": "f", "parameters": PARAMETERS}},)
    parsed[0]["function"]["parameters"]["properties"].clear()
    assert PARAMETERS["properties"], "tools must be copied"
    assert parse_tools(None) == ()


@pytest.mark.parametrize(
    ("tool", "param", "advice"),
    [
        (3, "tools[0]", "must be a JSON object"),
        ({"type": "web_search"}, "tools[0].type", "run other tools yourself"),
        ({"type": "function", "function": {}}, "tools[0].function.name", "must be a string"),
        ({"name": ""}, "tools[0].function.name", "1 to 128"),
        ({"name": "a\nb"}, "tools[0].function.name", "visible"),
        ({"name": "f", "parameters": "x"}, "tools[0].function.parameters", "must be a JSON object"),
        ({"type": "function", "function": {"name": "f"}, "strict": True}, "tools[0].strict", "Leave it out"),
        ({"name": "f", "strict": "yes"}, "tools[0].function.strict", "true or false"),
        ({"name": "f", "parameters": {"a": object()}}, "tools[0]", "cannot be written as JSON"),
        ({"name": "f", "description": "\ud800"}, "tools[0]", "Send whole characters"),
    ],
)
def test_tools_that_are_refused(tool: object, param: str, advice: str) -> None:
    with pytest.raises(RequestError, match=advice) as caught:
        parse_tools([tool])
    assert caught.value.param == param


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(RequestError, match="name of its own") as caught:
        parse_tools([{"name": "f"}, {"name": "f"}])
    assert caught.value.param == "tools[1]"


# There and back, and anything at all.

CONVERSATION: list[dict[str, Any]] = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": [item for item, _ in IMAGE_SHAPES[:8]] + ["and", {"type": "text", "text": "?"}]},
    {"role": "assistant", "content": None, "reasoning": "h", "tool_calls": [CALL, {"name": "g", "arguments": {}}]},
    {"role": "tool", "tool_call_id": "1", "content": [item for item, _ in VIDEO_SHAPES]},
    {"role": "assistant", "content": "Yes.", "reasoning_content": "I see."},
    {"role": "user", "content": [{"type": "text", "text": ""}]},
]  # fmt: skip


def test_there_and_back() -> None:
    messages = parse_messages(CONVERSATION)
    assert parse_messages(to_openai(messages)) == messages
    assert len(list(iter_media(messages))) == 8 + len(VIDEO_SHAPES)
    wire = to_openai(messages)[4]
    assert wire == {"role": "assistant", "content": "Yes.", "reasoning": "I see.", "reasoning_content": "I see."}


def test_what_is_given_is_never_changed_nor_shared() -> None:
    given = copy.deepcopy([message for message in CONVERSATION if message["role"] != "tool"])
    before = json.dumps(given)
    messages = parse_messages(given)
    assert json.dumps(given) == before
    given[1]["content"][3]["image_url"] = "changed"
    given[1]["content"].clear()
    assert len(list(iter_media(messages))) == 8
    assert all(part.source != "changed" for part in iter_media(messages))


JSON_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(
    ["user", "assistant", "text", "image_url", "video", "\ud800", "function", "{}"]
)  # fmt: skip
KEYS = st.sampled_from(["role", "content", "type", "text", "image_url", "url", "video", "tool_calls", "function", "name", "fps"])  # fmt: skip  # noqa: E501
ANYTHING = st.recursive(
    JSON_SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(ANYTHING)
def test_anything_is_read_or_refused(value: Any) -> None:
    for attempt in (parse_messages, parse_tools):
        for shape in (
            value,
            [value],
            [{"role": "assistant", "content": value}],
            [{"role": "user", "content": [value]}],
        ):
            refusal = refusal_of(attempt, shape)
            if refusal is not None:
                str(refusal).encode()
                assert refusal.param


def refusal_of(read: Callable[[Any], object], value: Any) -> RequestError | None:
    try:
        read(value)
    except RequestError as error:
        return error
    return None


def test_thousands_of_mutated_conversations_are_read_or_refused() -> None:
    generator = random.Random(3)
    values = [
        None,
        True,
        0,
        -1,
        1e400,
        "",
        "user",
        "tool",
        "\ud800",
        [],
        {},
        [[]],
        {"url": "u"},
        "{}",
        b"\x00",
        object(),
    ]
    refused = 0
    for _ in range(2000):
        conversation = copy.deepcopy(CONVERSATION)
        for _ in range(generator.randrange(1, 4)):
            mutate(conversation, generator, values)
        refusal = refusal_of(parse_messages, conversation)
        if refusal is not None:
            refused += 1
            assert str(refusal.param).startswith("messages")
            assert len(str(refusal)) < 600
        else:
            messages = parse_messages(conversation)
            assert parse_messages(to_openai(messages)) == messages
    assert 500 < refused < 2000


def mutate(value: Any, generator: random.Random, values: list[Any]) -> None:
    """Change one place somewhere inside: drop it, replace it, copy another over it, or add a field."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = generator.choice(keys)
        if isinstance(value[key], dict | list) and generator.random() < 0.7:
            value = value[key]
            continue
        action = generator.randrange(4)
        if action == 0:
            del value[key]
        elif action == 1:
            value[key] = generator.choice(values)
        elif action == 2:
            value[key] = value[generator.choice(keys)]
        elif isinstance(value, dict):
            value[generator.choice(["type", "text", "image", "fps", "detail", "oops"])] = generator.choice(values)
        return
