"""Our tools as an MCP server, over standard input and output.

Outside a conversation there is no picture to point at, so tools that look at one take it as an argument: a path, an
http(s) URL or a data URL.
"""

from __future__ import annotations

import base64
import copy
import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tusi.agent.tool import ERROR_PREFIX, ConversationMedia, Tool, ToolRunner, error_content
from tusi.chat.messages import ImagePart, Part, TextPart, ToolCall
from tusi.chat.tool_schemas import IMAGE_SEARCH, IMAGE_ZOOM_IN_TOOL, ToolSchema
from tusi.core.errors import BackendUnavailable

if TYPE_CHECKING:
    from mcp.server import Server

_LOOKING = tuple(schema["function"]["name"] for schema in (IMAGE_ZOOM_IN_TOOL, IMAGE_SEARCH))
_IMAGE = {"type": "string", "description": "the picture: a path, an http(s) URL or a data URL"}


def published(schema: ToolSchema) -> dict[str, Any]:
    """A tool's arguments as MCP clients see them."""
    parameters: dict[str, Any] = copy.deepcopy(schema["function"]["parameters"])
    if schema["function"]["name"] in _LOOKING:
        parameters["properties"].pop("img_idx", None)
        parameters["properties"] = {"image": dict(_IMAGE), **parameters["properties"]}
        parameters["required"] = ["image", *(name for name in parameters["required"] if name != "img_idx")]
    return parameters


def run_published(runner: ToolRunner, name: str, arguments: Mapping[str, Any]) -> tuple[Part, ...]:
    """Run a tool with the arguments of an MCP client. Total: errors are texts."""
    given = dict(arguments)
    media = ConversationMedia()
    if name in _LOOKING:
        image = given.pop("image", None)
        if not isinstance(image, str) or not image:
            return error_content("'image' is missing; give the picture as a path, an http(s) URL or a data URL")
        if "img_idx" in given:
            return error_content("there is no argument 'img_idx'; the picture is given as image")
        media = ConversationMedia((ImagePart(image),))
        if name == IMAGE_SEARCH["function"]["name"]:
            given["img_idx"] = 0
    return runner.run(ToolCall("mcp", name, json.dumps(given)), media)


def make_server(tools: Sequence[Tool]) -> Server[Any]:
    """The server, not yet running. Raises BackendUnavailable without the SDK."""
    try:
        import anyio.to_thread
        from mcp import types
        from mcp.server import Server
    except ImportError as error:
        raise BackendUnavailable(
            "tusi mcp needs the MCP SDK, which is not installed. pip install 'tusi[mcp]'."
        ) from error
    runner = ToolRunner(tools)
    functions = [schema["function"] for schema in runner.schemas]
    listed = [
        types.Tool(name=function["name"], description=function["description"], input_schema=published(schema))
        for schema, function in zip(runner.schemas, functions, strict=True)
    ]

    async def list_tools(_context: object, _params: object) -> types.ListToolsResult:
        return types.ListToolsResult(tools=listed)

    async def call_tool(_context: object, params: types.CallToolRequestParams) -> types.CallToolResult:
        # In a thread: a tool reads files and computes, and other calls should not wait for that.
        parts = await anyio.to_thread.run_sync(run_published, runner, params.name, params.arguments or {})
        blocks: list[types.ContentBlock] = [
            types.TextContent(text=part.text)
            if isinstance(part, TextPart)
            else types.ImageContent(data=_png(part.source), mime_type="image/png")
            for part in parts
        ]
        is_error = isinstance(parts[0], TextPart) and parts[0].text.startswith(ERROR_PREFIX)
        return types.CallToolResult(content=blocks, is_error=is_error)

    return Server("tusi", on_list_tools=list_tools, on_call_tool=call_tool)


def serve_stdio(tools: Sequence[Tool]) -> None:
    """Serve until standard input ends."""
    server = make_server(tools)

    async def serve() -> None:
        from mcp.server.stdio import stdio_server

        async with stdio_server() as (read_stream, write_stream):
            await server.run(read_stream, write_stream, server.create_initialization_options())

    import anyio

    anyio.run(serve)


def _png(source: object) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(source)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
