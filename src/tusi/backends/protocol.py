"""The one protocol by which everything above (command line, agent, server, evaluation, rollouts) asks for answers.

A backend takes a conversation and gives back completions, whole or as deltas. It hides where the model runs. A
result is nothing but its deltas put together (`collect`), so that streamed and unstreamed answers cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from tusi.chat.messages import Message, ToolCall
from tusi.core.errors import RequestError
from tusi.engine.sampling_params import SamplingParams

FinishReason = Literal["stop", "length", "tool_calls", "abort"]


@dataclass(frozen=True, slots=True)
class NamedToolChoice:
    """This tool must be called, and no other."""

    name: str


ToolChoice = Literal["auto", "required"] | NamedToolChoice
"""auto: the model calls tools or answers, as it likes; required: it must call one of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A conversation to be continued.

    tools: OpenAI tool objects. tool_choice: whether they must be called; the calls then follow the tools' schemas.
    parallel_tool_calls: False ends a completion after its first call.
    template_kwargs: passed to the chat template (`enable_thinking`, ...).
    mm_processor_kwargs: request-wide overrides for the processor (`fps`, `image_max_pixels`, ...).
    request_id: unique; None lets the backend choose. priority: lower goes first where not all can run at once.
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    sampling_params: SamplingParams = field(default_factory=SamplingParams)
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    mm_processor_kwargs: Mapping[str, Any] = field(default_factory=dict)
    request_id: str | None = None
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    priority: int = 0

    def __post_init__(self) -> None:
        names = [tool["function"]["name"] for tool in self.tools if "function" in tool]
        if self.tool_choice == "required" and not self.tools:
            raise RequestError(
                "tool_choice is 'required' and no tools are offered. Give tools, or leave tool_choice out.",
                param="tool_choice",
            )
        if isinstance(self.tool_choice, NamedToolChoice) and self.tool_choice.name not in names:
            raise RequestError(
                f"tool_choice names {self.tool_choice.name[:80]!r}, and the tools are {', '.join(names) or 'none'}. "
                "Choose one of them, or add it to tools.",
                param="tool_choice",
            )


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log-probability of a chosen token and of the alternatives that were asked for (id -> log-probability)."""

    token_id: int
    logprob: float
    top: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts of one request."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    image_tokens: int = 0
    video_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallDelta:
    """A piece of tool call number index; id and name come with its first piece, arguments are appended."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatDelta:
    """What one step added to completion number index.

    text is what the model wrote; reasoning, content and tool_calls are its parts. The last delta of a completion
    carries finish_reason, stop_reason and thinking_truncated; the last one of a request carries usage.
    """

    index: int = 0
    text: str = ""
    reasoning: str = ""
    content: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    thinking_truncated: bool = False
    usage: Usage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatChoice:
    """One whole completion: the concatenation of its deltas.

    text is what the model wrote, reasoning and tags included; reasoning, content and tool_calls are its parsed parts.
    reasoning is None if there was none; content is never None.
    finish_reason: `tool_calls` if the model ended by itself after calling tools; `length` also for an answer that was
    ended because it repeated itself (stop_reason is then "repetition").
    thinking_truncated: the reasoning was cut by a limit before it ended.
    """

    index: int
    text: str
    reasoning: str | None
    content: str
    tool_calls: tuple[ToolCall, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...]
    finish_reason: FinishReason
    stop_reason: str | int | None = None
    thinking_truncated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatResult:
    """The answer to a ChatRequest. prompt and prompt_token_ids are None where the backend cannot know them."""

    request_id: str
    model: str
    choices: tuple[ChatChoice, ...]
    usage: Usage
    prompt: str | None = None
    prompt_token_ids: tuple[int, ...] | None = None


class DeltaStream(Protocol):
    """Deltas as they come. Every generator is one."""

    def __iter__(self) -> Iterator[ChatDelta]: ...

    def __next__(self) -> ChatDelta: ...

    def close(self) -> None:
        """Abort the request if it is still running. Called on garbage collection too."""
        ...


class Backend(Protocol):
    """Whatever can continue a conversation."""

    @property
    def model(self) -> str:
        """Name of the model that answers."""
        ...

    @property
    def default_sampling_params(self) -> SamplingParams:
        """What to ask with when the caller has no wish: the model's own recommendation, if the backend knows it."""
        ...

    def generate(self, request: ChatRequest) -> ChatResult:
        """Answer in one piece. Raises RequestError, CapacityError or EngineError."""
        ...

    def stream(self, request: ChatRequest) -> DeltaStream:
        """Answer as it comes. Bad requests raise at the call, not later. Closing the stream aborts the request."""
        ...

    def abort(self, request_id: str) -> None:
        """End a request early: its completions finish with `abort`. Unknown and finished ids are ignored."""
        ...

    def close(self) -> None:
        """Give back threads and memory. Requests in flight end with EngineError."""
        ...
