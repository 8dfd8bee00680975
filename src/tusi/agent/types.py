"""The agent's values: its limits, what it reports while it runs, and the trace that is left. No I/O, no behaviour."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tusi.agent.tool import DEFAULT_TIMEOUT, Origin
from tusi.backends.protocol import ChatChoice, ChatDelta, FinishReason, Usage
from tusi.chat.messages import Message, Part, TextPart, ToolCall
from tusi.core.errors import RequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLimits:
    """When the loop stops offering tools, so that an answer comes. Raises RequestError for a limit without sense.

    max_turns: answers of the model, the last one included; 1 offers no tool at all.
    max_tool_calls: calls in all; further ones of the same turn are answered with an error.
    max_tokens: output tokens of all turns together (None: no such limit), of which answer_tokens are kept for the
    last turn. tool_timeout: seconds for one call.
    """

    max_turns: int = 8
    max_tool_calls: int = 16
    max_tokens: int | None = None
    answer_tokens: int = 256
    tool_timeout: float = DEFAULT_TIMEOUT

    def __post_init__(self) -> None:
        least = 2 * self.answer_tokens
        for name, ok, expected in (
            ("max_turns", self.max_turns >= 1, "1 or more"),
            ("max_tool_calls", self.max_tool_calls >= 0, "0 or more"),
            ("answer_tokens", self.answer_tokens >= 1, "1 or more"),
            ("max_tokens", self.max_tokens is None or self.max_tokens >= least, f"{least} (2 x answer_tokens) or more"),
            ("tool_timeout", math.isfinite(self.tool_timeout) and self.tool_timeout > 0, "over 0 seconds"),
        ):
            if not ok:
                raise RequestError(f"{name} is {getattr(self, name)!r}; it must be {expected}; change it.", param=name)


@dataclass(frozen=True, slots=True)
class Turn:
    """What the model said in one turn, and what it cost."""

    choice: ChatChoice
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A finished run. messages: the whole conversation; the first num_prompt_messages of them were given.

    tools: the schemas that were offered. budget_spent: the last turn was offered none, for a limit was reached.
    """

    model: str
    messages: tuple[Message, ...]
    num_prompt_messages: int
    turns: tuple[Turn, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    limits: AgentLimits = field(default_factory=AgentLimits)
    budget_spent: bool = False

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages that the run began with."""
        return self.messages[: self.num_prompt_messages]

    @property
    def answer(self) -> str:
        """The last turn's content, without thoughts; empty if it was cut before there was any."""
        return self.turns[-1].choice.content

    @property
    def finish_reason(self) -> FinishReason:
        """How the last turn ended."""
        return self.turns[-1].choice.finish_reason

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """All calls, in order."""
        return tuple(call for turn in self.turns for call in turn.choice.tool_calls)

    @property
    def tool_results(self) -> tuple[Message, ...]:
        """The tools' messages, in the order of tool_calls."""
        return tuple(m for m in self.messages[self.num_prompt_messages :] if m.role == "tool")

    @property
    def usage(self) -> Usage:
        """The sums over all turns; a prompt counts once a turn."""
        names = Usage.__slots__
        return Usage(**{name: sum(getattr(turn.usage, name) for turn in self.turns) for name in names})


@dataclass(frozen=True, slots=True)
class TurnStart:
    """The backend has taken the request of a turn."""

    turn: int


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of what the model writes in a turn (turns count from 0)."""

    turn: int
    delta: ChatDelta


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """The model has ended a turn; its calls, if any, are run next."""

    turn: int
    choice: ChatChoice
    usage: Usage


@dataclass(frozen=True, slots=True)
class CallStart:
    """A tool is about to run. origin: the picture and box that it looks at, if it does."""

    turn: int
    call: ToolCall
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class CallResult:
    """What a tool said. The content is what the model sees next."""

    turn: int
    call: ToolCall
    content: tuple[Part, ...]
    origin: Origin | None = None
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class RunEnd:
    """Always the last event."""

    trace: Trace


AgentEvent = TurnStart | Delta | TurnEnd | CallStart | CallResult | RunEnd


def assistant_message(choice: ChatChoice) -> Message:
    """A turn as it goes into the conversation."""
    return Message(
        role="assistant",
        content=(TextPart(choice.content),) if choice.content else (),
        reasoning=choice.reasoning,
        tool_calls=choice.tool_calls,
    )
