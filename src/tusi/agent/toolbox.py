"""The tools that come with Tusi, by the short names that people type. In: names. Out: tools for the agent loop."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tusi.agent.index.pictures import Embed, PictureIndex, count_pictures
from tusi.agent.tool import Tool
from tusi.agent.tools.calculator import Calculator
from tusi.agent.tools.image_search import ImageSearch, ImageSearchProvider, IndexProvider
from tusi.agent.tools.knowledge_search import KnowledgeSearch
from tusi.agent.tools.zoom import ImageZoomInTool
from tusi.core.errors import ConfigError
from tusi.processing.limits import MediaLimits

NONE = "none"
"""Stands for no tool at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResources:
    """What tools work with. limits: what opening pictures may cost. index: the file that searches look up.

    image_search: searches for pictures instead of the index. embed: makes vectors, for the index's pictures.
    """

    limits: MediaLimits = field(default_factory=MediaLimits)
    index: Path | None = None
    image_search: ImageSearchProvider | None = None
    embed: Embed | None = None


def parse_tool_names(text: str) -> tuple[str, ...]:
    """`zoom,calculator` as names, each once; `none` as no name. Raises ConfigError for a name that is not a tool's."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == [NONE]:
        return ()
    if not names:
        raise ConfigError(f"the list of tools is empty. Name some of {', '.join(TOOL_NAMES)}, or say {NONE}.")
    known = [_FULL_NAMES.get(name, name) for name in names]
    for name in known:
        if name not in _MAKERS:
            raise ConfigError(_unknown(name))
    return tuple(dict.fromkeys(known))


def check_resources(names: Sequence[str], resources: ToolResources) -> None:
    """Raises ConfigError if a tool lacks what it works with. Can be asked before a model is loaded."""
    if "knowledge_search" in names:
        KnowledgeSearch(_index(resources, "knowledge_search", "docs"))
    if "image_search" in names and resources.image_search is None:
        count_pictures(_index(resources, "image_search", "images"))


def make_tools(names: Sequence[str], resources: ToolResources | None = None) -> tuple[Tool, ...]:
    """The tools of these names, in their order. Raises ConfigError if one lacks what it works with."""
    resources = resources or ToolResources()
    return tuple(_MAKERS[name](resources) for name in names)


def _image_search(resources: ToolResources) -> Tool:
    if resources.image_search is not None:
        return ImageSearch(resources.image_search, resources.limits)
    index = _index(resources, "image_search", "images")
    if resources.embed is None:
        raise ConfigError(
            "image_search compares pictures by a model's vision tower, and this backend does not offer one. Run a "
            "model in this process, or search with a service."
        )
    return ImageSearch(IndexProvider(PictureIndex(index, resources.embed)), resources.limits)


def _index(resources: ToolResources, name: str, kind: str) -> Path:
    if resources.index is None:
        raise ConfigError(
            f"{name} needs an index to look up. Make one with tusi index {kind} FOLDER --index FILE, and give --index."
        )
    return resources.index


def _unknown(name: str) -> str:
    if name == NONE:
        return f"{NONE!r} stands among other tools; it means that there is none. Say it alone, or leave it out."
    near = difflib.get_close_matches(name, TOOL_NAMES, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"there is no tool {name!r}; there are: {', '.join(TOOL_NAMES)} (or {NONE}).{hint}"


_MAKERS: dict[str, Callable[[ToolResources], Tool]] = {
    "zoom": lambda resources: ImageZoomInTool(resources.limits),
    "image_search": _image_search,
    "knowledge_search": lambda resources: KnowledgeSearch(_index(resources, "knowledge_search", "docs")),
    "calculator": lambda _resources: Calculator(),
}
_FULL_NAMES = {"image_zoom_in_tool": "zoom"}
TOOL_NAMES: tuple[str, ...] = tuple(_MAKERS)
