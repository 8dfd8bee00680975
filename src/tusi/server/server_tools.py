"""Tools that run inside the server: which of them a request asks for.

What a request may write in `tools` and `tool_choice` is read here, for chat completions and responses alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tusi.agent.tool import Tool
from tusi.agent.types import AgentLimits
from tusi.backends.protocol import Backend, ChatRequest, NamedToolChoice, ToolChoice
from tusi.chat.openai import parse_tools
from tusi.core.errors import ConfigError, RequestError
from tusi.engine.sampling_params import SamplingParams
from tusi.processing.limits import MediaLimits
from tusi.server.agent_run import AgentRun

SERVER_LABEL = "tusi"
"""What OpenAI's `mcp` tools call this server."""
_ALIASES = {"zoom": "image_zoom_in_tool"}
_MCP_FIELDS = ("type", "server_label", "server_description", "allowed_tools", "require_approval")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a request offers the model. schemas: all of it; server_tools: those that run here."""

    schemas: tuple[Mapping[str, Any], ...] = ()
    server_tools: tuple[Tool, ...] = ()
    client_tools: tuple[Mapping[str, Any], ...] = ()
    choice: ToolChoice = "auto"

    @property
    def client_names(self) -> frozenset[str]:
        """Names of the tools that the client runs."""
        return frozenset(tool["function"]["name"] for tool in self.client_tools)


@dataclass(frozen=True, slots=True)
class ServerTools:
    """What a server offers. limits: the most that a request may ask for. media_limits: for fetching what tools look at.

    Raises ConfigError for two tools of one name.
    """

    all: tuple[Tool, ...] = ()
    limits: AgentLimits = field(default_factory=AgentLimits)
    media_limits: MediaLimits = field(default_factory=lambda: MediaLimits(allow_local_files=False))

    def __post_init__(self) -> None:
        names = [tool.name for tool in self.all]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"two tools are called {name!r}; a name must be one tool's. Drop one of them.")

    def offer(self, tools: object, tool_choice: object) -> Offer:
        """Read `tools` and `tool_choice`. Raises RequestError."""
        chosen, own = self._split(tools)
        choice = _choice(tool_choice)
        if choice is None:
            return Offer()
        schemas = (*(tool.schema for tool in chosen), *own)
        for tool in own:
            if tool["function"]["name"] in {tool.name for tool in chosen}:
                raise RequestError(
                    f"tools has a function {tool['function']['name']!r} beside the built-in tool of that name. "
                    "Rename it, or leave one of them out.",
                    param="tools",
                )
        return Offer(schemas=schemas, server_tools=chosen, client_tools=own, choice=choice)

    def run(
        self,
        backend: Backend,
        request: ChatRequest,
        offer: Offer,
        max_turns: int | None = None,
        max_tool_calls: int | None = None,
    ) -> AgentRun:
        """A conversation with tools that run here. request.sampling_params.max_tokens bounds all turns together."""
        limits, params = self._limits(request.sampling_params, max_turns, max_tool_calls)
        return AgentRun(
            backend,
            replace(request, sampling_params=params),
            offer.server_tools,
            offer.client_tools,
            limits,
            self.media_limits,
        )

    def _split(self, tools: object) -> tuple[tuple[Tool, ...], tuple[Mapping[str, Any], ...]]:
        """The tools that run here, and the schemas of those that the client runs."""
        if not isinstance(tools, list | tuple):
            return (), parse_tools(tools)
        own: list[object] = []
        chosen: dict[str, Tool] = {}
        for number, tool in enumerate(tools):
            param = f"tools[{number}]"
            match tool:
                case {"type": "builtin"}:
                    names = _builtin_names(tool, param)
                case {"type": "mcp"}:
                    names = _mcp_names(tool, param)
                case _:
                    own.append(tool)
                    continue
            chosen |= {found.name: found for found in self._find(names, param)}
        return tuple(chosen.values()), parse_tools(own)

    def _find(self, names: Sequence[str] | None, param: str) -> list[Tool]:
        table = {tool.name: tool for tool in self.all}
        if names is None:
            names = tuple(table)
        for name in names:
            if _ALIASES.get(name, name) not in table:
                raise RequestError(
                    f"{param}: this server does not offer the tool {name[:80]!r}. Use one of: "
                    f"{', '.join(table) or 'none is offered'} (/v1/tools lists them).",
                    param=param,
                )
        return [table[_ALIASES.get(name, name)] for name in names]

    def _limits(
        self, params: SamplingParams, max_turns: int | None, max_tool_calls: int | None
    ) -> tuple[AgentLimits, SamplingParams]:
        most = self.limits
        limits = replace(
            most,
            max_turns=min(most.max_turns, max_turns or most.max_turns),
            max_tool_calls=most.max_tool_calls if max_tool_calls is None else min(most.max_tool_calls, max_tool_calls),
        )
        if params.max_tokens is None:
            return limits, params
        if params.max_tokens < 2:  # room for an answer only
            return replace(limits, max_turns=1), params
        answer = min(limits.answer_tokens, params.max_tokens // 2)
        return replace(limits, max_tokens=params.max_tokens, answer_tokens=answer), params


def _builtin_names(tool: Mapping[str, Any], param: str) -> Sequence[str] | None:
    unknown = [name for name in tool if name not in ("type", "name")]
    name = tool.get("name")
    if unknown or not (name is None or isinstance(name, str)):
        raise RequestError(
            f'{param}: a built-in tool is {{"type": "builtin", "name": "..."}}, with the name as text or without one '
            "for all of them. Correct it.",
            param=param,
        )
    return None if name is None else [name]


def _mcp_names(tool: Mapping[str, Any], param: str) -> Sequence[str] | None:
    unknown = [name for name in tool if name not in _MCP_FIELDS and tool[name] is not None]
    if unknown or tool.get("server_label") != SERVER_LABEL:
        what = f"{unknown[0]} is given" if unknown else f"server_label is {str(tool.get('server_label'))[:80]!r}"
        raise RequestError(
            f"{param}: {what}. This server calls only the MCP servers that it was started with (--mcp); their tools "
            f'and its own go by server_label "{SERVER_LABEL}", without an address.',
            param=param,
        )
    if tool.get("require_approval") not in (None, "never"):
        raise RequestError(
            f'{param}: calls are never asked about first. Set require_approval to "never", or offer functions of your '
            "own and run them yourself.",
            param=f"{param}.require_approval",
        )
    allowed = tool.get("allowed_tools")
    if isinstance(allowed, Mapping) and set(allowed) == {"tool_names"}:
        allowed = allowed["tool_names"]
    if allowed is None:
        return None
    if not isinstance(allowed, list) or not all(isinstance(name, str) for name in allowed):
        raise RequestError(f"{param}: allowed_tools must be a list of names. Correct it.", param=param)
    return allowed


def _choice(tool_choice: object) -> ToolChoice | None:
    """None: no tool at all."""
    match tool_choice:
        case None | "auto":
            return "auto"
        case "none":
            return None
        case "required":
            return "required"
        case {"type": "function", "function": {"name": str(name), **others}} if not others:
            return NamedToolChoice(_ALIASES.get(name, name))
        case {"type": "function" | "builtin", "name": str(name), **others} if not others:
            return NamedToolChoice(_ALIASES.get(name, name))
        case {"type": "mcp", "server_label": label, "name": str(name), **others} if (
            label == SERVER_LABEL and not others
        ):
            return NamedToolChoice(_ALIASES.get(name, name))
    raise RequestError(
        f"tool_choice: {str(tool_choice)[:80]!r} is not known here. Use 'auto', 'none', 'required', or "
        '{"type": "function", "function": {"name": "..."}}.',
        param="tool_choice",
        code="unsupported_parameter",
    )
