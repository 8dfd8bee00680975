"""/v1/chat/completions through the official client."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.fixtures.http_server import Running, running
from tests.fixtures.media_server import media_server
from tests.fixtures.videos import make_video
from tusi.backends.fake import FakeBackend, FakeReply
from tusi.backends.local.backend import LocalBackend
from tusi.chat.messages import ImagePart, TextPart
from tusi.core.errors import BackendUnavailable, CapacityError, ContextLengthExceeded, EngineError, UnsupportedMedia
from tusi.processing.limits import MediaLimits

HELLO = [{"role": "user", "content": "Hello?"}]
TOOLS = [{"type": "function", "function": {"name": "zoom", "parameters": {"type": "object", "properties": {}}}}]
CALL = '\n<tool_call>\n{"name": "zoom", "arguments": {"a": [1, "猫"]}}\n</tool_call>\n'
REPLIES = [
    "Let me see... 一只猫。\n</think>\n\nA cat. 🐈 And more.",
    "No thought at all.",
    f"Zoom.\n</think>\n\n{CALL}",
    f"Both.\n</think>\n\nFirst some text. {CALL}{CALL}",
    "Broken.\n</think>\n\n<tool_call>\n{not json\n</tool_call> tail",
    "",
]


def data_url(size: tuple[int, int] = (60, 40)) -> str:
    file = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def picture_message(text: str = "What is it?") -> dict[str, Any]:
    return {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": data_url()}}, {"type": "text", "text": text}],
    }


def post(server: Running, **body: object) -> httpx.Response:
    with server.http() as client:
        return client.post("/v1/chat/completions", json={"model": "fake", "messages": HELLO, **body})


def streamed_sum(server: Running, **body: Any) -> dict[int, dict[str, Any]]:
    """All chunks of a stream, added up as a client does it."""
    sums: dict[int, dict[str, Any]] = {}
    with (
        server.http() as client,
        client.stream("POST", "/v1/chat/completions", json={"messages": HELLO, "stream": True, **body}) as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    for chunk in map(json.loads, lines[:-1]):
        for choice in chunk["choices"]:
            total = sums.setdefault(choice["index"], {"content": "", "reasoning": "", "calls": {}, "logprobs": []})
            delta = choice["delta"]
            assert delta.get("reasoning") == delta.get("reasoning_content")
            total["content"] += delta.get("content", "")
            total["reasoning"] += delta.get("reasoning", "")
            for call in delta.get("tool_calls", []):
                merged = total["calls"].setdefault(call["index"], {"id": None, "name": None, "arguments": ""})
                merged["id"] = merged["id"] or call.get("id")
                merged["name"] = merged["name"] or call["function"].get("name")
                merged["arguments"] += call["function"]["arguments"]
            total["logprobs"] += (choice.get("logprobs") or {}).get("content", [])
            for name in ("finish_reason", "stop_reason", "thinking_truncated"):
                if choice["finish_reason"] is not None:
                    total[name] = choice[name]
    return sums


def whole_sum(server: Running, **body: Any) -> dict[int, dict[str, Any]]:
    """The unstreamed answer in the same form."""
    with server.http() as client:
        response = client.post("/v1/chat/completions", json={"messages": HELLO, **body})
    assert response.status_code == 200, response.text
    return {
        choice["index"]: {
            "content": choice["message"]["content"] or "",
            "reasoning": choice["message"]["reasoning"] or "",
            "calls": {
                i: {"id": call["id"], **call["function"]}
                for i, call in enumerate(choice["message"].get("tool_calls", []))
            },
            "logprobs": (choice["logprobs"] or {}).get("content", []),
            **{name: choice[name] for name in ("finish_reason", "stop_reason", "thinking_truncated")},
        }
        for choice in response.json()["choices"]
    }


def without_ids(sums: dict[int, dict[str, Any]]) -> object:
    """Ids of calls hold the request's id, which differs."""
    for total in sums.values():
        for call in total["calls"].values():
            assert call.pop("id").startswith("call_")
    return sums


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    replies=st.lists(st.sampled_from(REPLIES), min_size=1, max_size=3),
    options=st.fixed_dictionaries(
        {},
        optional={
            "max_tokens": st.integers(1, 60),
            "stop": st.sampled_from(["cat", ["e", "。"]]),
            "thinking_budget": st.integers(0, 12),
            "tools": st.just(TOOLS),
        },
    ),
)
def test_streamed_chunks_add_up_to_the_unstreamed_answer(
    fake: FakeBackend, served: Running, replies: list[str], options: dict[str, Any]
) -> None:
    fake.queue(*replies, *replies)
    streamed = streamed_sum(served, n=len(replies), **options)
    assert without_ids(streamed) == without_ids(whole_sum(served, n=len(replies), **options))


@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": 24},
        {"max_tokens": 24, "n": 2, "seed": 7, "temperature": 1.0},
        {"max_tokens": 16, "logprobs": True, "top_logprobs": 3},
        {"max_tokens": 12, "messages": [picture_message()]},
        {"max_tokens": 30, "thinking_budget": 4, "temperature": 0, "response_format": {"type": "json_object"}},
    ],
)
def test_streamed_equals_unstreamed_with_a_real_engine(tiny: Running, options: dict[str, Any]) -> None:
    options = {"seed": 3, "ignore_eos": True, **options}
    streamed = streamed_sum(tiny, **options)
    assert streamed == whole_sum(tiny, **options)
    assert any(total["content"] or total["reasoning"] for total in streamed.values())


def test_an_answer_has_reasoning_content_usage_and_reasons(fake: FakeBackend, served: Running) -> None:
    fake.queue(FakeReply(reasoning="Hm.", content="A cat."))
    answer = served.openai().chat.completions.create(model="fake", messages=HELLO)
    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("A cat.", "stop")
    assert choice.message.reasoning == choice.message.reasoning_content == "Hm."
    assert choice.thinking_truncated is False
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens_details.reasoning_tokens > 0
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


def test_a_stream_ends_with_usage_if_asked(fake: FakeBackend, served: Running) -> None:
    fake.queue("A cat.", "A cat.")
    ask = {"model": "fake", "messages": HELLO, "stream": True}
    chunks = list(served.openai().chat.completions.create(**ask, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == len("A cat.")
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.usage is None for chunk in served.openai().chat.completions.create(**ask))


def test_tools_are_called_and_their_pictures_go_back(fake: FakeBackend, served: Running) -> None:
    fake.queue(REPLIES[2], "It is red.")
    client = served.openai()
    first = client.chat.completions.create(model="fake", messages=HELLO, tools=TOOLS).choices[0]
    [call] = first.message.tool_calls
    assert first.finish_reason == "tool_calls"
    assert (call.function.name, json.loads(call.function.arguments)) == ("zoom", {"a": [1, "猫"]})
    result = {
        "role": "tool",
        "tool_call_id": call.id,
        "content": [{"type": "image_url", "image_url": {"url": data_url()}}, {"type": "text", "text": "the crop"}],
    }
    messages = [*HELLO, first.message.model_dump(exclude_none=True), result]
    client.chat.completions.create(model="fake", messages=messages, tools=TOOLS)
    said = fake.requests[1].messages
    assert said[1].tool_calls[0].id == call.id
    assert said[1].reasoning == "Zoom."
    assert [type(part) for part in said[2].content] == [ImagePart, TextPart]


def test_a_picture_inside_a_tool_message_reaches_the_model(tiny: Running) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "zoom", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "c", "content": picture_message("crop")["content"]}
    messages = [picture_message(), {"role": "assistant", "content": None, "tool_calls": [call]}, result]
    client = tiny.openai()
    both = client.chat.completions.create(model=model_of(tiny), messages=messages, tools=TOOLS, max_tokens=2)
    one = client.chat.completions.create(model=model_of(tiny), messages=messages[:1], max_tokens=2)
    tokens = [answer.usage.prompt_tokens_details.image_tokens for answer in (both, one)]
    assert tokens[0] == 2 * tokens[1] > 0


def test_media_come_by_url_and_data_url(tiny_model: Path) -> None:
    video, picture = make_video(6), base64.b64decode(data_url().partition(",")[2])
    with (
        media_server() as web,
        LocalBackend.load(
            tiny_model, dtype="fp32", max_model_len=2048, media_limits=MediaLimits(allow_private_addresses=True)
        ) as backend,
        running(backend) as server,
    ):
        web.pages |= {"/a.png": (200, {}, picture), "/a.mp4": (200, {}, video)}
        usages = [
            server.openai()
            .chat.completions.create(
                model=backend.model,
                messages=[{"role": "user", "content": [{"type": kind, kind: {"url": url}} for kind, url in media]}],
                max_tokens=1,
            )
            .usage
            for media in (
                [("image_url", f"{web.url}/a.png"), ("video_url", f"{web.url}/a.mp4")],
                [
                    ("image_url", data_url()),
                    ("video_url", "data:video/mp4;base64," + base64.b64encode(video).decode()),
                ],
            )
        ]
    assert usages[0].prompt_tokens == usages[1].prompt_tokens
    details = usages[0].prompt_tokens_details
    assert min(details.image_tokens, details.video_tokens) > 0


def model_of(server: Running) -> str:
    return server.openai().models.list().data[0].id


def test_tool_choice_none_hides_the_tools(fake: FakeBackend, served: Running) -> None:
    fake.queue("No.", "No.")
    for choice, shown in (("none", 0), ("auto", 1)):
        served.openai().chat.completions.create(model="fake", messages=HELLO, tools=TOOLS, tool_choice=choice)
        assert len(fake.requests[-1].tools) == shown


FIND = {
    "name": "find",
    "parameters": {
        "type": "object",
        "properties": {"side": {"enum": ["left", "right"]}},
        "required": ["side"],
        "additionalProperties": False,
    },
}
CHOICES = [
    ("required", True, range(1, 17)),
    ("required", False, [1]),
    ({"type": "function", "function": {"name": "find"}}, False, [1]),
]


@pytest.mark.parametrize(("choice", "parallel", "counts"), CHOICES)
@pytest.mark.parametrize("thinks", [True, False])
def test_a_model_that_must_call_a_tool_does(
    tiny: Running, choice: Any, parallel: bool, counts: Any, thinks: bool
) -> None:
    tools = [{"type": "function", "function": FIND}, {"type": "function", "function": {**FIND, "name": "seek"}}]
    ask = {
        "tools": tools, "tool_choice": choice, "parallel_tool_calls": parallel, "seed": 5, "thinking_budget": 3,
        "chat_template_kwargs": {"enable_thinking": thinks}, "max_tokens": 3000,
    }  # fmt: skip
    total = whole_sum(tiny, **ask)[0]
    calls = [*total["calls"].values()]
    assert (len(calls) in counts, total["content"], total["finish_reason"]) == (True, "", "tool_calls")
    assert all(json.loads(call["arguments"]) in ({"side": "left"}, {"side": "right"}) for call in calls)
    assert {call["name"] for call in calls} <= ({"find", "seek"} if choice == "required" else {"find"})
    streamed = streamed_sum(tiny, **ask)
    assert without_ids(streamed) == without_ids({0: total})


def test_one_call_ends_the_answer_where_parallel_ones_are_not_wanted(fake: FakeBackend, served: Running) -> None:
    for parallel, count in ((True, 2), (False, 1)):
        fake.queue(REPLIES[3])
        total = whole_sum(served, tools=TOOLS, parallel_tool_calls=parallel)[0]
        assert (len(total["calls"]), total["content"]) == (count, "First some text. ")
        assert total["finish_reason"] == "tool_calls"


def test_an_answer_beside_tools_is_a_call_or_follows_the_format(tiny: Running) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {**FIND["parameters"]}}}
    tools = [{"type": "function", "function": FIND}]
    ask = {"tools": tools, "response_format": wanted, "thinking_budget": 2, "max_tokens": 200, "n": 4, "seed": 1}
    for total in whole_sum(tiny, **ask).values():
        if total["finish_reason"] == "length":
            continue
        assert total["calls"] or json.loads(total["content"])["side"] in ("left", "right")


def test_a_schema_that_cannot_be_enforced_is_refused(tiny: Running) -> None:
    for parameters, advice in (({"type": "array"}, "Set it to 'object'"), ({"type": "object", "not": {}}, "to 'auto'")):
        tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
        with tiny.http() as client:
            response = client.post(
                "/v1/chat/completions", json={"messages": HELLO, "tools": tools, "tool_choice": "required"}
            )
        assert (response.status_code, response.json()["error"]["param"]) == (400, "tools")
        assert advice in response.json()["error"]["message"]


def test_logprobs_name_every_token(tiny: Running) -> None:
    answer = tiny.openai().chat.completions.create(
        model=model_of(tiny), messages=HELLO, max_tokens=6, logprobs=True, top_logprobs=2, temperature=0,
        extra_body={"ignore_eos": True},
    )  # fmt: skip
    entries = answer.choices[0].logprobs.content
    assert len(entries) == answer.usage.completion_tokens == 6
    for entry in entries:
        assert len(entry.top_logprobs) == 2
        # Not always the likeliest: a thought that must end is closed by force.
        assert entry.logprob <= entry.top_logprobs[0].logprob <= 0
        assert bytes(entry.bytes).decode("utf-8", "replace") == entry.token


def test_every_sampling_field_arrives(fake: FakeBackend, served: Running) -> None:
    fake.queue("x", "x")
    fields = {
        "n": 2, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2,
        "presence_penalty": 0.3, "frequency_penalty": -0.4, "seed": 11, "ignore_eos": True, "min_tokens": 1,
        "skip_special_tokens": False, "include_stop_str_in_output": True, "thinking_budget": 9,
    }  # fmt: skip
    extra = {
        "stop": ["a", "b"], "stop_token_ids": [3], "logit_bias": {"7": 1.5}, "max_completion_tokens": 50,
        "chat_template_kwargs": {"enable_thinking": False}, "mm_processor_kwargs": {"fps": 2}, "user": "me",
        "metadata": {"a": "b"}, "guided_choice": ["x", "y"], "parallel_tool_calls": True, "store": False,
    }  # fmt: skip
    assert post(served, **fields, **extra).status_code == 200
    request = fake.requests[-1]
    params = request.sampling_params
    assert {name: getattr(params, name) for name in fields} == fields
    assert (params.stop, params.stop_token_ids, params.logit_bias) == (("a", "b"), (3,), {7: 1.5})
    assert (params.max_tokens, params.structured_outputs.choice) == (50, ("x", "y"))
    assert (request.template_kwargs, request.mm_processor_kwargs) == ({"enable_thinking": False}, {"fps": 2})


def test_answers_follow_a_schema(tiny: Running) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"],
              "additionalProperties": False}  # fmt: skip
    wanted = {"type": "json_schema", "json_schema": {"name": "count", "schema": schema, "strict": True}}
    answer = tiny.openai().chat.completions.create(
        model=model_of(tiny), messages=HELLO, max_tokens=200, response_format=wanted, seed=1,
        extra_body={"thinking_budget": 2},
    )  # fmt: skip
    assert set(json.loads(answer.choices[0].message.content)) == {"n"}


def test_effort_none_leaves_thoughts_out(fake: FakeBackend, served: Running) -> None:
    fake.queue("A cat.")
    served.openai().chat.completions.create(model="fake", messages=HELLO, reasoning_effort="none")
    assert fake.requests[-1].template_kwargs == {"enable_thinking": False}


def test_a_thought_without_end_is_reported_as_such(fake: FakeBackend, served: Running) -> None:
    fake.queue(FakeReply(text="on and on", starts_in_reasoning=True))
    total = whole_sum(served, max_tokens=4)[0]
    assert (total["thinking_truncated"], total["finish_reason"]) == (True, "length")


@pytest.mark.parametrize(
    ("body", "param", "advice"),
    [
        ({"tool_choice": "required"}, "tool_choice", "Give tools"),
        ({"tools": TOOLS, "tool_choice": "always"}, "tool_choice", "Use 'auto', 'none', 'required'"),
        ({"tools": TOOLS, "tool_choice": {"type": "custom", "name": "zoom"}}, "tool_choice", '"function": {"name"'),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "zoo"}}},
            "tool_choice",
            "Choose one of them",
        ),
        ({"parallel_tool_calls": 0}, "parallel_tool_calls", "Correct this field"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "Set thinking_budget"),
        ({"store": True}, "store", "keep the answer yourself"),
        ({"functions": [{}]}, "functions", "use tools"),
        ({"guided_grammar": "x"}, "guided_grammar", "guided_json"),
        ({"tempratur": 1}, "tempratur", "correct its name"),
        ({"temperature": "hot"}, "temperature", "Correct this field"),
        ({"temperature": -1}, "temperature", "0 or more"),
        ({"n": 129}, "n", "less than or equal to 128"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "Set stream to true"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "correct its name"),
        ({"top_logprobs": 2}, "top_logprobs", "Set logprobs to true"),
        ({"logit_bias": {"cat": 1}}, "logit_bias", "/tokenize tells"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens", "Give one of them"),
        ({"thinking_budget": 5, "reasoning_max_tokens": 6}, "reasoning_max_tokens", "Give one of them"),
        ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "guided_regex", "Leave the others out"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "Give it"),
        ({"structured_outputs": {}}, "structured_outputs", "set one of json, regex, choice"),
        ({"messages": []}, "messages", "Send at least one"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0]",
            "Give exactly",
        ),
        ({"messages": [{"role": "bot", "content": "x"}]}, "messages[0].role", "Use one of"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(served: Running, body: Any, param: str, advice: str) -> None:
    response = post(served, **body)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert advice in error["message"]


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        (ContextLengthExceeded("too long; shorten it.", param="messages"), 400, "context_length_exceeded"),
        (UnsupportedMedia("no picture. Send one."), 400, "unsupported_media"),
        (CapacityError("full; wait.", retry_after=2.5), 429, "server_busy"),
        (EngineError("broken."), 500, "engine_error"),
        (BackendUnavailable("nothing there."), 503, "unavailable"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_of_the_backend_have_their_status(
    fake: FakeBackend, served: Running, raised: Any, status: int, code: str, stream: bool
) -> None:
    fake.queue(raised)
    response = post(served, stream=stream)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert response.json()["error"]["message"] == str(raised)
    assert response.headers.get("retry-after") == ("3" if status == 429 else None)


def test_the_clients_own_exceptions_come_up(fake: FakeBackend, served: Running) -> None:
    fake.queue(CapacityError("full; wait."))
    with pytest.raises(openai.RateLimitError):
        served.openai().chat.completions.create(model="fake", messages=HELLO)
    with pytest.raises(openai.NotFoundError, match=r"is not served here\. Use 'fake'"):
        served.openai().chat.completions.create(model="gpt-4", messages=HELLO)


def test_an_error_in_the_middle_ends_the_stream_with_it(fake: FakeBackend, served: Running) -> None:
    fake.queue(FakeReply(content="Some", error=EngineError("the engine died of old age.")))
    stream = served.openai().chat.completions.create(model="fake", messages=HELLO, stream=True)
    said = []
    with pytest.raises(openai.APIError, match="died of old age"):
        said.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "".join(said) == "Some"
