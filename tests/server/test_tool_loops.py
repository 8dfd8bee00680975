"""One loop over a picture in the three ways in which tools can run: in the server, in the client, in an MCP server.

The model is scripted, and looks: it asks for a quarter of the picture, and answers with the colour of what came back.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from openai import OpenAI
from PIL import Image

from tests.fixtures.http_server import Running, running
from tests.server.test_server_tools import TOOLS, four_colours
from tusi.backends.fake import FakeBackend, FakeReply
from tusi.backends.protocol import ChatRequest
from tusi.chat.messages import ImagePart, ToolCall
from tusi.chat.tool_schemas import IMAGE_ZOOM_IN_TOOL

OURS = StdioServerParameters(
    command=sys.executable,
    args=["-c", "import sys; from tusi.cli.main import main; sys.exit(main(['mcp']))"],
    env=dict(os.environ),
)
COLOURS = {(255, 0, 0): "red", (0, 255, 0): "green", (0, 0, 255): "blue", (255, 255, 255): "white"}
QUARTERS = {"green": [600, 100, 900, 400], "blue": [100, 600, 400, 900]}

CallTool = Callable[[dict[str, Any], str], list[dict[str, Any]]]


def look(request: ChatRequest) -> FakeReply:
    """Zooms where the question says, and answers with what it sees."""
    last = request.messages[-1]
    if last.role != "tool":
        arguments = json.dumps({"bbox_2d": json.loads(last.text)})
        return FakeReply(reasoning="Too small.", tool_calls=(ToolCall("x", "image_zoom_in_tool", arguments),))
    [crop] = [part.source for part in last.content if isinstance(part, ImagePart)]
    picture = opened(crop) if isinstance(crop, str) else Image.fromarray(crop)  # type: ignore[arg-type]
    colour = COLOURS[picture.getpixel((picture.width // 2, picture.height // 2))]  # type: ignore[index]
    return FakeReply(reasoning="I see.", content=f"It is {colour}.")


def opened(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")


def data_url(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@pytest.fixture
def served() -> Iterator[Running]:
    with running(FakeBackend([look] * 8), tools=TOOLS) as server:
        yield server


def question(box: list[int]) -> list[dict[str, Any]]:
    picture = {"type": "image_url", "image_url": {"url": four_colours()}}
    return [{"role": "user", "content": [picture, {"type": "text", "text": json.dumps(box)}]}]


def loop(client: OpenAI, box: list[int], tool: dict[str, Any], call_tool: CallTool) -> str:
    """As OpenAI's documentation shows it."""
    messages: list[Any] = question(box)
    for _ in range(4):
        message = client.chat.completions.create(model="fake", messages=messages, tools=[tool]).choices[0].message  # type: ignore[list-item]
        if not message.tool_calls:
            return message.content or ""
        messages.append(message)
        for call in message.tool_calls:
            content = call_tool(json.loads(call.function.arguments), four_colours())  # type: ignore[union-attr]
            messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
    raise AssertionError("no answer came")


@pytest.mark.parametrize("colour", QUARTERS)
def test_in_the_server(served: Running, colour: str) -> None:
    answer = served.openai().chat.completions.create(
        model="fake",
        messages=question(QUARTERS[colour]),  # type: ignore[arg-type]
        tools=[{"type": "builtin", "name": "zoom"}],  # type: ignore[list-item]
    )
    assert answer.choices[0].message.content == f"It is {colour}."
    [step] = [one for one in answer.choices[0].model_dump()["steps"] if one["type"] == "tool_result"]
    assert step["origin"]["bbox_2d"] == QUARTERS[colour]


@pytest.mark.parametrize("colour", QUARTERS)
def test_in_the_client_which_returns_pictures(served: Running, colour: str) -> None:
    def crop(arguments: dict[str, Any], picture: str) -> list[dict[str, Any]]:
        whole = opened(picture)
        x1, y1, x2, y2 = (
            value * size // 1000 for value, size in zip(arguments["bbox_2d"], whole.size * 2, strict=True)
        )
        return [{"type": "image_url", "image_url": {"url": data_url(whole.crop((x1, y1, x2, y2)))}}]

    assert loop(served.openai(), QUARTERS[colour], IMAGE_ZOOM_IN_TOOL, crop) == f"It is {colour}."


def test_in_the_client_by_responses(served: Running) -> None:
    client = served.openai()
    said: Any = [
        {
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": four_colours(), "detail": "auto"},
                {"type": "input_text", "text": json.dumps(QUARTERS["blue"])},
            ],
        }
    ]
    tools: Any = [{"type": "function", **IMAGE_ZOOM_IN_TOOL["function"]}]
    first = client.responses.create(model="fake", input=said, tools=tools)
    call = first.output[-1]
    crop = {"type": "input_image", "image_url": data_url(Image.new("RGB", (60, 60), (0, 0, 255)))}
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": [crop]}  # type: ignore[union-attr]
    second = client.responses.create(model="fake", input=[result], tools=tools, previous_response_id=first.id)
    assert second.output_text == "It is blue."


def test_in_an_mcp_server(served: Running) -> None:
    """The client holds the picture, and gives it to the tool beside what the model says."""

    async def answer() -> str:
        async with Client(OURS, read_timeout_seconds=300) as mcp:
            [zoom] = [tool for tool in (await mcp.list_tools()).tools if tool.name == "image_zoom_in_tool"]
            parameters = dict(zoom.input_schema)
            parameters["properties"] = {k: v for k, v in parameters["properties"].items() if k != "image"}
            parameters["required"] = [name for name in parameters["required"] if name != "image"]
            function = {"name": zoom.name, "description": zoom.description, "parameters": parameters}
            loop_of_mcp = asyncio.get_running_loop()

            def call(arguments: dict[str, Any], picture: str) -> list[dict[str, Any]]:
                calling = mcp.call_tool(zoom.name, {"image": picture, **arguments})
                blocks = asyncio.run_coroutine_threadsafe(calling, loop_of_mcp).result(300).content
                urls = [f"data:{block.mime_type};base64,{block.data}" for block in blocks if block.type == "image"]
                return [{"type": "image_url", "image_url": {"url": url}} for url in urls]

            tool = {"type": "function", "function": function}
            return await asyncio.to_thread(loop, served.openai(), QUARTERS["green"], tool, call)

    assert asyncio.run(answer()) == "It is green."
