"""Puts deltas together into whole completions. A backend's `generate` is `collect(stream(...))`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby

from tusi.backends.protocol import ChatChoice, ChatDelta, FinishReason, TokenLogprobs, ToolCallDelta, Usage
from tusi.chat.messages import ToolCall
from tusi.core.errors import EngineError


@dataclass(slots=True)
class _CallBuilder:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def add(self, delta: ToolCallDelta) -> None:
        self.id = delta.id or self.id
        self.name = delta.name or self.name
        self.arguments.append(delta.arguments)


@dataclass(slots=True)
class ChoiceBuilder:
    """One completion in the making: add() its deltas in order, then build()."""

    index: int
    _text: list[str] = field(default_factory=list)
    _reasoning: list[str] = field(default_factory=list)
    _content: list[str] = field(default_factory=list)
    _calls: dict[int, _CallBuilder] = field(default_factory=dict)
    _token_ids: list[int] = field(default_factory=list)
    _logprobs: list[TokenLogprobs] = field(default_factory=list)
    _finish_reason: FinishReason | None = None
    _stop_reason: str | int | None = None
    _thinking_truncated: bool = False

    def add(self, delta: ChatDelta) -> None:
        """Append a delta of this completion."""
        self._text.append(delta.text)
        self._reasoning.append(delta.reasoning)
        self._content.append(delta.content)
        for call in delta.tool_calls:
            self._calls.setdefault(call.index, _CallBuilder()).add(call)
        self._token_ids.extend(delta.token_ids)
        self._logprobs.extend(delta.logprobs)
        if delta.finish_reason is not None:
            self._finish_reason = delta.finish_reason
            self._stop_reason = delta.stop_reason
            self._thinking_truncated = delta.thinking_truncated

    def build(self) -> ChatChoice:
        """The whole completion. Raises EngineError if its last delta never came."""
        if self._finish_reason is None:
            raise EngineError(
                f"completion {self.index} ended without a finish_reason after {len(self._token_ids)} tokens; "
                "a backend must send one. Report this as a bug."
            )
        return ChatChoice(
            index=self.index,
            text="".join(self._text),
            reasoning="".join(self._reasoning) or None,
            content="".join(self._content),
            tool_calls=tuple(
                ToolCall(call.id, call.name, "".join(call.arguments)) for _, call in sorted(self._calls.items())
            ),
            token_ids=tuple(self._token_ids),
            logprobs=tuple(self._logprobs),
            finish_reason=self._finish_reason,
            stop_reason=self._stop_reason,
            thinking_truncated=self._thinking_truncated,
        )


def joined(deltas: Iterable[ChatDelta]) -> Iterator[ChatDelta]:
    """The same deltas, neighbours with more text of the same kind put together."""
    for _, run in groupby(deltas, key=_kind):
        first, *others = run
        yield _join(first, others) if others else first


def _kind(delta: ChatDelta) -> tuple[object, ...]:
    """Equal for two deltas that nobody could wish to have apart."""
    if delta.tool_calls or delta.finish_reason is not None or delta.usage is not None:
        return (object(),)
    return delta.index, bool(delta.text), bool(delta.reasoning), bool(delta.content)


def _join(first: ChatDelta, others: Sequence[ChatDelta]) -> ChatDelta:
    deltas = (first, *others)
    return replace(
        first,
        text="".join([delta.text for delta in deltas]),
        reasoning="".join([delta.reasoning for delta in deltas]),
        content="".join([delta.content for delta in deltas]),
        token_ids=tuple(chain.from_iterable([delta.token_ids for delta in deltas])),
        logprobs=tuple(chain.from_iterable([delta.logprobs for delta in deltas])),
    )


def collect(deltas: Iterable[ChatDelta], *, n: int = 1) -> tuple[tuple[ChatChoice, ...], Usage]:
    """Read a stream of n completions to its end. Returns the completions, and the usage of the last delta."""
    builders = [ChoiceBuilder(index) for index in range(n)]
    usage = Usage()
    for delta in deltas:
        builders[delta.index].add(delta)
        usage = delta.usage or usage
    return tuple(builder.build() for builder in builders), usage
