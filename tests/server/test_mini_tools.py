"""tusi-mini looks closer through the server's own tool, through a tool of the client's, and through an MCP server.

All three hand it the same crop, so that it must say the same; and mostly what is there, as a small model may.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from mcp import Client
from openai import OpenAI
from PIL import Image

from tests.fixtures.http_server import Running, running
from tests.server.test_server_tools import TOOLS
from tests.server.test_tool_loops import OURS, data_url, opened
from tusi.backends.local.backend import LocalBackend
from tusi.chat.tool_schemas import IMAGE_ZOOM_IN_TOOL
from tusi.engine.config import EngineConfig
from tusi.models import embedded
from tusi.processing.crop import crop_by_bbox
from tusi.server.config import ServerConfig
from tusi.tasks.scoring import score
from tusi.tasks.world import WorldSample, generate

pytestmark = pytest.mark.skipif(not embedded.is_embedded_there(), reason="this source tree has no tusi-mini")

SAMPLES = [generate("zoom", 1, "en", seed, "eval", kind="number") for seed in range(12)]
GREEDY: dict[str, Any] = {"model": embedded.EMBEDDED_MODEL, "temperature": 0, "max_tokens": 256}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """In float32, so that how requests happen to meet in a step decides no answer."""
    engine = EngineConfig(kv_cache_dtype="fp32")
    with (
        LocalBackend.load(embedded.embedded_folder(), dtype="fp32", engine_config=engine) as backend,
        running(backend, ServerConfig(served_model_names=(embedded.EMBEDDED_MODEL,)), TOOLS) as served,
    ):
        yield served


@pytest.fixture(scope="module")
def built_in(server: Running) -> list[Any]:
    """What comes of every sample by the server's own tool."""

    def ask(sample: WorldSample) -> Any:
        tools: Any = [{"type": "builtin", "name": "zoom"}]
        return client.chat.completions.create(messages=question(sample), tools=tools, **GREEDY).choices[0]

    client = server.openai()
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(ask, SAMPLES))


def picture(sample: WorldSample) -> str:
    (pixels,) = sample.media
    return data_url(Image.fromarray(np.asarray(pixels)))


def question(sample: WorldSample) -> list[Any]:
    image = {"type": "image_url", "image_url": {"url": picture(sample)}}
    return [{"role": "user", "content": [image, {"type": "text", "text": sample.question}]}]


def last_answer(choice: Any) -> str:
    ends = [step["message"] for step in choice.model_dump()["steps"] if step["type"] == "turn_end"]
    return ends[-1]["content"] or ""


def test_the_servers_own_tool_shows_it_what_it_asks_for(built_in: list[Any]) -> None:
    rights = zooms = 0
    for sample, choice in zip(SAMPLES, built_in, strict=True):
        results = [step for step in choice.model_dump()["steps"] if step["type"] == "tool_result"]
        rights += score(sample.gold, last_answer(choice)) == 1
        zooms += bool(results) and results[0]["message"]["content"][0]["type"] == "image_url"
    assert zooms >= 10
    assert rights >= 6


def loop(client: OpenAI, sample: WorldSample, tool: Any, call_tool: Any) -> str:
    messages = question(sample)
    for _ in range(8):
        message = client.chat.completions.create(messages=messages, tools=[tool], **GREEDY).choices[0].message
        if not message.tool_calls:
            return message.content or ""
        messages.append(message)
        for call in message.tool_calls:
            content = call_tool(json.loads(call.function.arguments), picture(sample))  # type: ignore[union-attr]
            messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
    raise AssertionError("no answer came")


def test_a_tool_of_the_clients_returns_the_same_picture(server: Running, built_in: list[Any]) -> None:
    def crop(arguments: dict[str, Any], whole: str) -> list[Any]:
        url = data_url(Image.fromarray(np.asarray(crop_by_bbox(np.asarray(opened(whole)), arguments["bbox_2d"]))))
        return [{"type": "image_url", "image_url": {"url": url}}]

    client = server.openai()
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda sample: loop(client, sample, IMAGE_ZOOM_IN_TOOL, crop), SAMPLES))
    assert said == [last_answer(choice) for choice in built_in]


def test_an_mcp_server_returns_it_too(server: Running, built_in: list[Any]) -> None:
    async def answers() -> list[str]:
        async with Client(OURS, read_timeout_seconds=300) as mcp:
            here = asyncio.get_running_loop()

            def call(arguments: dict[str, Any], whole: str) -> list[Any]:
                calling = mcp.call_tool("image_zoom_in_tool", {"image": whole, **arguments})
                blocks = asyncio.run_coroutine_threadsafe(calling, here).result(300).content
                urls = [f"data:{block.mime_type};base64,{block.data}" for block in blocks if block.type == "image"]
                return [{"type": "image_url", "image_url": {"url": url}} for url in urls]

            client = server.openai()
            return [await asyncio.to_thread(loop, client, sample, IMAGE_ZOOM_IN_TOOL, call) for sample in SAMPLES[:4]]

    assert asyncio.run(answers()) == [last_answer(choice) for choice in built_in[:4]]
