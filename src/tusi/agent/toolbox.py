"""The tools that come with Tusi, by the short names that people type. In: names. Out: tools for the agent loop."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

from tusi.agent.tool import Tool
from tusi.agent.tools.calculator import Calculator
from tusi.agent.tools.zoom import ImageZoomInTool
from tusi.core.errors import ConfigError
from tusi.processing.limits import MediaLimits

NONE = "none"
"""Stands for no tool at all."""

_DEFAULT_LIMITS = MediaLimits()
_MAKERS: dict[str, Callable[[MediaLimits], Tool]] = {
    "zoom": ImageZoomInTool,
    "calculator": lambda _limits: Calculator(),
}
_FULL_NAMES = {"image_zoom_in_tool": "zoom"}
TOOL_NAMES: tuple[str, ...] = tuple(_MAKERS)


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


def make_tools(names: Sequence[str], *, limits: MediaLimits = _DEFAULT_LIMITS) -> tuple[Tool, ...]:
    """The tools of these names, in their order. limits: what opening a picture may cost."""
    return tuple(_MAKERS[name](limits) for name in names)


def _unknown(name: str) -> str:
    if name == NONE:
        return f"{NONE!r} stands among other tools; it means that there is none. Say it alone, or leave it out."
    near = difflib.get_close_matches(name, TOOL_NAMES, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"there is no tool {name!r}; there are: {', '.join(TOOL_NAMES)} (or {NONE}).{hint}"
