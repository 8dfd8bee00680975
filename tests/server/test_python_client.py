"""OpenAI's Python client as its documentation shows it: helpers, async, raw answers; the counterpart of tests/node."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI, pydantic_function_tool
from pydantic import BaseModel, Field

from tests.fixtures.http_server import Running, running
from tests.fixtures.scripted import scripted_backend
from tests.server.test_chat_completions import data_url, model_of
from tests.server.test_server_tools import TOOLS
from tusi.server.config import ServerConfig

MODEL = "scripted"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(scripted_backend(), tools=TOOLS) as served:
        yield served


@pytest.fixture
def client(server: Running) -> OpenAI:
    return server.openai()


def say(text: str, *urls: str) -> Any:
    pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [{"type": "text", "text": text}, *pictures]}]


class Animal(BaseModel):
    name: str
    legs: int = Field(description="how many")


class weather(BaseModel):  # the name of the function
    city: str


def test_chat_parses_answers_and_the_arguments_of_strict_tools(client: OpenAI) -> None:
    parsed = client.chat.completions.parse(model=MODEL, messages=say("json"), response_format=Animal)
    assert parsed.choices[0].message.parsed == Animal(name="cat", legs=4)
    called = client.chat.completions.parse(
        model=MODEL, messages=say("weather"), tools=[pydantic_function_tool(weather)]
    )
    [call] = called.choices[0].message.tool_calls or []
    assert call.function.parsed_arguments == weather(city="Paris")


def test_the_stream_helper_builds_the_completion(client: OpenAI) -> None:
    tool = pydantic_function_tool(weather)
    for text in ("hello", "weather", "twice"):
        whole = client.chat.completions.create(model=MODEL, messages=say(text), tools=[tool]).choices[0]
        with client.chat.completions.stream(model=MODEL, messages=say(text), tools=[tool]) as stream:
            kinds = {event.type for event in stream}
            final = stream.get_final_completion().choices[0]
        assert (final.message.content or "") == (whole.message.content or "")
        assert final.finish_reason == whole.finish_reason
        streamed, asked = final.message.tool_calls or [], whole.message.tool_calls or []
        assert [call.function.arguments for call in streamed] == [call.function.arguments for call in asked]  # type: ignore[union-attr]
        assert ("tool_calls.function.arguments.done" in kinds) == bool(asked)


def test_thoughts_go_by_both_names_and_may_be_sent_back(client: OpenAI) -> None:
    message = client.chat.completions.create(model=MODEL, messages=say("hello")).choices[0].message
    assert message.model_dump()["reasoning"] == message.model_dump()["reasoning_content"] == "Hm."
    again = client.chat.completions.create(model=MODEL, messages=[*say("hello"), message, *say("more")])
    assert again.choices[0].message.content == "You said 'more' with 0 pictures."


def test_many_clients_ask_at_once(server: Running) -> None:
    async def ask_all() -> list[str]:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:

            async def ask(number: int) -> str:
                stream = await client.chat.completions.create(model=MODEL, messages=say(f"n{number}"), stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*(ask(number) for number in range(20)))

    assert asyncio.run(ask_all()) == [f"You said 'n{number}' with 0 pictures." for number in range(20)]


def test_async_responses_files_and_batches(server: Running) -> None:
    async def run() -> tuple[str, list[str]]:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            async with client.responses.stream(model=MODEL, input="hello") as stream:
                said = (await stream.get_final_response()).output_text
            file = await client.files.create(file=("x.jsonl", b"{}\n"), purpose="batch")
            batch = await client.batches.create(
                input_file_id=file.id, endpoint="/v1/responses", completion_window="24h", metadata={"a": "b"}
            )
            while batch.status not in ("failed", "completed"):
                await asyncio.sleep(0.02)
                batch = await client.batches.retrieve(batch.id)
            return said, [error.code or "" for error in (batch.errors.data or [])] if batch.errors else []

    assert asyncio.run(run()) == ("You said 'hello' with 0 pictures.", ["invalid_json_line"])


def test_raw_answers_have_their_headers(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=say("hello"))
    assert raw.headers["content-type"] == "application/json"
    assert raw.parse().choices[0].message.content == "You said 'hello' with 0 pictures."
    with client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=say("hello"), stream=True
    ) as live:
        assert live.headers["content-type"].startswith("text/event-stream")
        assert [line for line in live.iter_lines() if line][-1] == "data: [DONE]"


def test_a_client_that_tries_again_waits_as_told(server: Running) -> None:
    client = server.openai().with_options(max_retries=1)
    waited: list[float] = []
    client._sleep_for_retry = lambda **given: waited.append(  # type: ignore[method-assign,assignment]
        float(given["response"].headers["retry-after"])
    )
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model=MODEL, messages=say("busy"))
    assert waited == [1.0]


def test_malformed_calls_lose_no_text(client: OpenAI) -> None:
    tool = pydantic_function_tool(weather)
    choice = client.chat.completions.create(model=MODEL, messages=say("malformed"), tools=[tool]).choices[0]
    assert choice.message.tool_calls is None
    assert '<tool_call>\n{"name": "weather", "arguments": {"city": ' in (choice.message.content or "")
    response = client.responses.create(model=MODEL, input="malformed", tools=[{"type": "function", **tool["function"]}])  # type: ignore[list-item,misc]
    assert '{"name": "weather", "arguments": {"city": ' in response.output_text


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_truncated_thought_says_so(client: OpenAI, field: Literal["max_tokens"]) -> None:
    choice = client.chat.completions.create(model=MODEL, messages=say("think"), **{field: 4}).choices[0]  # type: ignore[call-overload]
    assert (choice.finish_reason, choice.model_dump()["thinking_truncated"]) == ("length", True)
    assert choice.model_dump()["message"]["reasoning"] == "on a"


def test_every_option_at_once_with_a_real_engine(tiny: Running) -> None:
    """What is drawn twice from one seed is the same, streamed or not, in every option's presence."""
    options: dict[str, Any] = {
        "model": model_of(tiny),
        "messages": say("What?", data_url()),
        "n": 2,
        "seed": 11,
        "temperature": 0.9,
        "top_p": 0.9,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.1,
        "logit_bias": {"5": -2},
        "stop": ["zzzz", "\n\n\n\n\n"],
        "max_completion_tokens": 8,
        "logprobs": True,
        "top_logprobs": 3,
        "user": "me",
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "extra_body": {"top_k": 50, "min_p": 0.01, "repetition_penalty": 1.05, "thinking_budget": 3, "min_tokens": 1},
    }
    client = tiny.openai()
    whole = client.chat.completions.create(**options)
    contents = {0: "", 1: ""}
    ids: dict[int, list[str]] = {0: [], 1: []}
    for chunk in client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            contents[choice.index] += choice.delta.content or ""
            ids[choice.index] += [entry.token for entry in (choice.logprobs.content or [])] if choice.logprobs else []
        usage = chunk.usage
    for choice in whole.choices:
        assert contents[choice.index] == (choice.message.content or "")
        assert ids[choice.index] == [entry.token for entry in choice.logprobs.content]
        assert all(len(entry.top_logprobs) == 3 for entry in choice.logprobs.content)
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert whole.usage.model_dump()["prompt_tokens_details"]["image_tokens"] > 0


def test_tokens_go_there_and_back(tiny: Running) -> None:
    with tiny.http() as http:
        tokens = http.post("/tokenize", json={"prompt": "One, 二, three."}).json()["tokens"]
        assert http.post("/detokenize", json={"tokens": tokens}).json() == {"prompt": "One, 二, three."}
        said = http.post("/tokenize", json={"messages": say("What?", data_url())}).json()["count"]
    usage = tiny.openai().chat.completions.create(model=model_of(tiny), messages=say("What?", data_url()), max_tokens=1)
    assert usage.usage is not None
    assert usage.usage.prompt_tokens == said


def test_models_and_tools_are_listed(client: OpenAI, server: Running) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")
    with server.http() as http:
        assert [tool["id"] for tool in http.get("/v1/tools").json()["data"]] == ["image_zoom_in_tool", "calculator"]


def test_a_wrong_key_is_the_clients_own_exception() -> None:
    with running(scripted_backend(), ServerConfig(api_keys=("right",), drain_seconds=5)) as guarded:
        with pytest.raises(openai.AuthenticationError):
            guarded.openai("wrong").responses.create(model=MODEL, input="hello")
        with pytest.raises(openai.AuthenticationError):
            guarded.openai("wrong").files.list()
        assert guarded.openai("right").responses.create(model=MODEL, input="hello").output_text
        assert httpx.get(f"{guarded.url}/health", trust_env=False).status_code == 200


def test_streams_of_both_apis_may_be_left(server: Running) -> None:
    client = server.openai()
    for stream in (
        client.chat.completions.create(model=MODEL, messages=say("long"), stream=True),
        client.responses.create(model=MODEL, input="long", stream=True),
    ):
        next(iter(stream))
        stream.close()
    answer = client.chat.completions.create(model=MODEL, messages=say("hello"))
    assert json.loads(answer.model_dump_json())["object"] == "chat.completion"
