"""Tools of MCP servers as tools of the agent loop. A server is a command to be run, or a URL.

The SDK is asynchronous; each connection has a thread of its own in which it lives, so that the loop need not be. What a
server says (names, descriptions, results) goes into the prompt: connect to servers that you trust.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import shlex
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from tusi.agent.tool import DEFAULT_TIMEOUT, ERROR_PREFIX, ConversationMedia, ToolError
from tusi.chat.messages import ImagePart, Part, TextPart
from tusi.chat.tool_schemas import ToolSchema
from tusi.core.errors import BackendUnavailable, ConfigError, UnsupportedMedia
from tusi.processing.limits import MediaLimits
from tusi.processing.media import open_picture

if TYPE_CHECKING:
    from mcp_types import CallToolResult
    from mcp_types import Tool as ListedTool

START_TIMEOUT = 60.0  # some commands download what they run when they are first started
MAX_TOOLS = 64
MAX_DESCRIPTION_CHARS = 2000
_DEFAULT_LIMITS = MediaLimits()


class McpConnection:
    """A running connection to one server. Use it in a with block, which ends it.

    target: an http(s) URL, or a command line. Raises ConfigError if the server cannot be reached, BackendUnavailable
    without the SDK.
    """

    def __init__(self, target: str, *, limits: MediaLimits = _DEFAULT_LIMITS, timeout: float = DEFAULT_TIMEOUT) -> None:
        self.target, self.limits = target, limits
        self._timeout = timeout
        self._server = _server_of(target)
        self._loop = asyncio.new_event_loop()
        self._life: asyncio.Task[None] | None = None
        self._client: Any = None
        self._listed: Future[list[ListedTool]] = Future()
        self._thread = threading.Thread(target=self._run, name="tusi-mcp", daemon=True)

    def __enter__(self) -> McpConnection:
        self._thread.start()
        try:
            self._listed.result(START_TIMEOUT)
        except TimeoutError as error:
            self.close()
            raise ConfigError(
                f"the MCP server {self.target!r} did not say within {START_TIMEOUT:g} s what it offers. Check it."
            ) from error
        except Exception as error:
            self.close()
            raise ConfigError(
                f"the MCP server {self.target!r} cannot be used ({_reason(error)}). Check the command or the URL."
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, and the server if it is a command."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop has just ended by itself
                self._loop.call_soon_threadsafe(self._end)
            self._thread.join(START_TIMEOUT)

    def _end(self) -> None:
        if self._life is not None:
            self._life.cancel()

    def tools(self) -> tuple[McpTool, ...]:
        """What the server offers."""
        listed = self._listed.result(0)
        if len(listed) > MAX_TOOLS:
            raise ConfigError(
                f"the MCP server {self.target!r} offers {len(listed)} tools, and a prompt takes {MAX_TOOLS}. Choose a "
                "server with fewer."
            )
        return tuple(McpTool(self, tool) for tool in listed)

    def call(self, name: str, arguments: Mapping[str, Any]) -> CallToolResult:
        """Call a tool. Raises ToolError."""
        if not self._thread.is_alive():
            raise ToolError(f"the server of {name} is gone; go on without it")
        call = self._client.call_tool(name, dict(arguments), self._timeout)
        try:
            result: CallToolResult = asyncio.run_coroutine_threadsafe(call, self._loop).result(self._timeout)
        except TimeoutError as error:
            raise ToolError(f"{name} gave no result within {self._timeout:g} seconds; go on without it") from error
        except Exception as error:  # whatever the SDK or the server raises is for the model to read
            raise ToolError(f"{name} failed ({_reason(error)}); try other arguments, or go on without it") from error
        return result

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._life = self._loop.create_task(self._live())
        try:
            self._loop.run_until_complete(self._life)
        except asyncio.CancelledError:
            return  # the way in which it is ended
        except Exception as error:  # noqa: BLE001 - told to whoever waits, who raises it again
            if not self._listed.done():
                self._listed.set_exception(error)
        finally:
            self._loop.close()

    async def _live(self) -> None:
        from mcp import Client

        async with Client(self._server, read_timeout_seconds=START_TIMEOUT) as client:
            self._client = client
            listed: list[ListedTool] = []
            cursor: str | None = None
            while len(listed) <= MAX_TOOLS:
                page = await client.list_tools(cursor=cursor)
                listed += page.tools
                cursor = page.next_cursor
                if cursor is None:
                    break
            self._listed.set_result(listed)
            await asyncio.Event().wait()  # until it is cancelled


class McpTool:
    """A tool that lives in an MCP server."""

    def __init__(self, connection: McpConnection, tool: ListedTool) -> None:
        self.name: str = tool.name
        description = (tool.description or "")[:MAX_DESCRIPTION_CHARS]
        function = {"name": tool.name, "description": description, "parameters": tool.input_schema}
        self.schema: ToolSchema = {"type": "function", "function": function}
        self._connection = connection

    def call(self, arguments: Mapping[str, Any], media: ConversationMedia) -> tuple[Part, ...]:
        """What the server answers; pictures as uint8 RGB [H, W, 3]. Raises ToolError."""
        result = self._connection.call(self.name, arguments)
        parts = tuple(_part(block, self._connection.limits) for block in result.content)
        if result.is_error:
            text = " ".join(part.text for part in parts if isinstance(part, TextPart))
            text = text.removeprefix(ERROR_PREFIX)
            raise ToolError(text or f"{self.name} failed without saying why; go on without it")
        return parts or (TextPart("done; the tool returned nothing"),)


def _server_of(target: str) -> Any:
    try:
        from mcp import StdioServerParameters
    except ImportError as error:
        raise BackendUnavailable(
            "MCP servers need its SDK, which is not installed. pip install 'tusi[mcp]'."
        ) from error
    if target.lower().startswith(("http://", "https://")):
        return target
    try:
        words = shlex.split(target)
    except ValueError as error:
        raise ConfigError(
            f"the command of the MCP server {target!r} cannot be read ({error}). Close quotes."
        ) from error
    if not words:
        raise ConfigError("the MCP server is empty. Give a command in quotes, or an http(s) URL.")
    return StdioServerParameters(command=words[0], args=words[1:])


def _part(block: Any, limits: MediaLimits) -> Part:
    if block.type == "text":
        return TextPart(block.text)
    if block.type == "image":
        try:
            return ImagePart(np.asarray(open_picture(base64.b64decode(block.data, validate=True), limits)))
        except (ValueError, UnsupportedMedia) as error:
            return TextPart(f"[a picture that cannot be shown: {error}]")
    if block.type == "resource" and hasattr(block.resource, "text"):
        return TextPart(block.resource.text)
    return TextPart(f"[{block.type}, which cannot be shown]")


def _reason(error: BaseException) -> str:
    """The first real cause: task groups wrap what happens in them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
