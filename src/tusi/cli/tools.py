"""Which tools a question is asked with: those of --tools or, without it, zoom for pictures too large to see whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from tusi.agent.index.pictures import Embed
from tusi.agent.mcp.client import McpConnection
from tusi.agent.tool import Tool
from tusi.agent.toolbox import ToolResources, check_resources, make_tools, parse_tool_names
from tusi.agent.tools.image_search_http import HttpProvider
from tusi.backends.protocol import Backend
from tusi.chat.messages import ImagePart, Message, iter_media
from tusi.core.errors import ConfigError
from tusi.processing.limits import MediaLimits
from tusi.processing.media import read_picture_size

ON_BY_ITSELF = "zoom"
EMBEDDED_PIXELS = 448 * 448


class ToolChoice:
    """What a session's questions are asked with. Tools are made once, when they are first needed.

    names None: zoom where a picture is larger than what the model sees of it at once; otherwise exactly these.
    mcp: servers whose tools are offered as well; they are connected to for the length of a with block.
    """

    def __init__(self, names: tuple[str, ...] | None, resources: ToolResources, mcp: Sequence[str] = ()) -> None:
        self._names, self._resources, self._mcp = names, resources, tuple(mcp)
        self._connections = ExitStack()
        self._remote: tuple[Tool, ...] = ()
        self._made: dict[tuple[str, ...], tuple[Tool, ...]] = {}
        self._areas: dict[str, int] = {}

    @classmethod
    def of(
        cls,
        text: str | None,
        limits: MediaLimits,
        *,
        index: Path | None = None,
        image_search_url: str | None = None,
        mcp: Sequence[str] | None = None,
        has_schema: bool = False,
    ) -> ToolChoice:
        """From the options. has_schema: the answer must follow a JSON schema. Raises ConfigError."""
        names = None if text is None else parse_tool_names(text)
        if has_schema and (names or mcp):
            wanted = f"--tools {text}" if names else "those of --mcp"
            raise ConfigError(
                f"--json-schema holds whatever the model says to the schema, so that it cannot call {wanted}. "
                "Leave one of them out."
            )
        for option, value, users in (
            ("--index", index, ("knowledge_search",) if image_search_url else ("knowledge_search", "image_search")),
            ("--image-search-url", image_search_url, ("image_search",)),
        ):
            if value is not None and not set(users) & set(names or ()):
                wanted = " or ".join(users)
                raise ConfigError(f"{option} {value} has nothing to act on. Leave it out, or add --tools {wanted}.")
        service = None if image_search_url is None else HttpProvider(image_search_url, limits=limits)
        resources = ToolResources(limits=limits, index=index, image_search=service)
        check_resources(names or (), resources)
        return cls(() if has_schema else names, resources, mcp or ())

    def __enter__(self) -> ToolChoice:
        with ExitStack() as opened:
            connections = [
                opened.enter_context(McpConnection(target, limits=self._resources.limits)) for target in self._mcp
            ]
            self._remote = tuple(tool for connection in connections for tool in connection.tools())
            self._connections = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connections.close()

    def tools(
        self, backend: Backend, messages: Sequence[Message], mm_processor_kwargs: Mapping[str, Any]
    ) -> tuple[Tool, ...]:
        """The tools for a conversation. Raises ConfigError, or UnsupportedMedia for a picture that cannot be read."""
        names = self._names
        if names is None:
            names = (ON_BY_ITSELF,) if self._has_large_picture(backend, messages, mm_processor_kwargs) else ()
        if names not in self._made:
            embed = embedder(backend) if "image_search" in names else None
            self._made[names] = (*make_tools(names, replace(self._resources, embed=embed)), *self._remote)
        return self._made[names]

    def _has_large_picture(
        self, backend: Backend, messages: Sequence[Message], mm_processor_kwargs: Mapping[str, Any]
    ) -> bool:
        # A backend that does not run the model here may not know; then nothing is switched on by itself.
        budget = mm_processor_kwargs.get("image_max_pixels") or getattr(backend, "image_max_pixels", None)
        pictures = [part for part in iter_media(messages) if isinstance(part, ImagePart)]
        return budget is not None and any(self._area(part.source) > budget for part in pictures)

    def _area(self, source: object) -> int:
        limits = self._resources.limits
        if not isinstance(source, str):
            return _area(source, limits)
        if source not in self._areas:
            self._areas[source] = _area(source, limits)
        return self._areas[source]


def embedder(backend: Backend) -> Embed | None:
    """What makes vectors of pictures for an index; None if the backend cannot.

    Likeness does not need the last detail: pictures are seen at EMBEDDED_PIXELS at most.
    """
    embed = getattr(backend, "embed_image", None)
    if embed is None:
        return None
    options = {"max_pixels": min(EMBEDDED_PIXELS, getattr(backend, "image_max_pixels", EMBEDDED_PIXELS))}
    return lambda picture: embed(ImagePart(picture, options))


def _area(source: object, limits: MediaLimits) -> int:
    width, height = read_picture_size(source, limits)
    return width * height
