"""Chat completions with tools that run inside the server: ordinary chunks, and steps beside them (docs/server.md).

The unstreamed answer is its own chunks added up, so that the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from tusi.agent.tool import Origin
from tusi.agent.types import CallResult, CallStart, Delta, RunEnd, TurnEnd, TurnStart, assistant_message
from tusi.backends.protocol import ToolCallDelta, Usage
from tusi.chat.messages import Message, ToolCall
from tusi.chat.openai import to_openai
from tusi.server.answer_format import Payload
from tusi.server.bridge import StreamItem
from tusi.server.chat_format import ChatFormat, delta_object, usage_object

TURN_BREAK = "\n\n"


@dataclass(slots=True, kw_only=True)
class StepsFormat(ChatFormat):
    """client_names: tools that the client runs; calls of others are steps and never tool_calls."""

    client_names: frozenset[str] = frozenset()
    _client_calls: dict[int, int] = field(default_factory=dict)  # index among all calls of a turn -> among the client's
    _said: dict[str, int] = field(default_factory=dict)  # "content", "reasoning" -> the turn that last had some
    _sum: Payload = field(default_factory=dict)
    _steps: list[Payload] = field(default_factory=list)

    def chunks(self, item: StreamItem) -> Iterator[Payload]:
        """What an event adds."""
        match item:
            case Delta():
                yield from self._delta(item)
            case RunEnd():
                yield self._end(item)
            case TurnStart() | TurnEnd() | CallStart() | CallResult():
                empty = {"index": 0, "delta": {}, "finish_reason": None}
                yield self.chunk(empty) | {"step": step_object(item)}

    def add(self, item: StreamItem) -> None:
        """Take an event: what its chunks say is added up."""
        for chunk in self.chunks(item):
            if "step" in chunk:
                self._steps.append(chunk["step"])
            _add_choice(self._sum, chunk["choices"][0])

    def whole(self, usage: Usage) -> Payload:
        """A chat.completion."""
        summed = self._sum
        says = summed.pop("delta", {})
        message: Payload = {"role": "assistant", "content": says.get("content"), "refusal": None}
        message |= {"reasoning": says.get("reasoning"), "reasoning_content": says.get("reasoning")}
        if says.get("tool_calls"):
            message["tool_calls"] = [
                {name: call[name] for name in call if name != "index"} for call in says["tool_calls"]
            ]
        choice = {"index": 0, "message": message, "logprobs": None} | summed | {"steps": self._steps}
        return self.head("chat.completion") | {"choices": [choice], "usage": usage_object(usage)}

    def _delta(self, item: Delta) -> Iterator[Payload]:
        delta = replace(
            item.delta,
            reasoning=self._parted("reasoning", item.turn, item.delta.reasoning),
            content=self._parted("content", item.turn, item.delta.content),
            tool_calls=tuple(self._own_calls(item.delta.tool_calls)),
        )
        if item.delta.finish_reason is not None:
            self._client_calls.clear()
        says = delta_object(delta)
        if says or delta.logprobs:
            choice: Payload = {"index": 0, "delta": says, "finish_reason": None}
            if self.tokenizer:
                choice["logprobs"] = self.logprobs(delta.logprobs)
            yield self.chunk(choice)

    def _parted(self, what: str, turn: int, text: str) -> str:
        """A blank line between what is said in two turns."""
        if not text:
            return ""
        is_new = self._said.get(what, turn) != turn
        self._said[what] = turn
        return TURN_BREAK + text if is_new else text

    def _own_calls(self, pieces: tuple[ToolCallDelta, ...]) -> Iterator[ToolCallDelta]:
        for piece in pieces:
            if piece.name is not None and piece.name in self.client_names:
                self._client_calls[piece.index] = len(self._client_calls)
            if piece.index in self._client_calls:
                yield replace(piece, index=self._client_calls[piece.index])

    def _end(self, item: RunEnd) -> Payload:
        choice = item.trace.turns[-1].choice
        calls = [call for call in choice.tool_calls if call.name in self.client_names]
        reason = choice.finish_reason
        if calls:
            reason = "tool_calls"
        elif reason == "tool_calls":  # of the server's own: no client is to act on them
            reason = "stop"
        says = {}
        if "content" not in self._said and not calls and not choice.thinking_truncated:
            says["content"] = ""
        return self.chunk(
            {
                "index": 0,
                "delta": says,
                "finish_reason": reason,
                "stop_reason": choice.stop_reason,
                "thinking_truncated": choice.thinking_truncated,
                "budget_spent": item.trace.budget_spent,
            }
        )


def step_object(event: TurnStart | TurnEnd | CallStart | CallResult) -> Payload:
    """An event as a step."""
    match event:
        case TurnStart():
            return {"type": "turn", "turn": event.turn}
        case TurnEnd():
            message = to_openai([assistant_message(event.choice)])[0]
            return {"type": "turn_end", "turn": event.turn, "message": message, "usage": usage_object(event.usage)}
        case CallStart():
            return {"type": "tool_call", "turn": event.turn} | _call(event.call, event.origin)
        case CallResult():
            result = Message(role="tool", content=event.content, tool_call_id=event.call.id)
            written = to_openai([result])[0]
            if isinstance(written["content"], str):
                written["content"] = [{"type": "text", "text": written["content"]}]
            said = {"is_error": event.is_error, "message": written}
            return {"type": "tool_result", "turn": event.turn} | _call(event.call, event.origin) | said


def _call(call: ToolCall, origin: Origin | None) -> Payload:
    return {"call": {"id": call.id, "name": call.name, "arguments": call.arguments}, "origin": origin_object(origin)}


def origin_object(origin: Origin | None) -> Payload | None:
    """Where a tool looks."""
    if origin is None:
        return None
    return {"img_idx": origin.img_idx, "bbox_2d": None if origin.bbox_2d is None else list(origin.bbox_2d)}


def _add_choice(total: Payload, choice: Payload) -> None:
    """Add a chunk's choice as a client does."""
    says = total.setdefault("delta", {})
    for name in ("content", "reasoning"):
        if name in choice["delta"]:
            says[name] = says.get(name, "") + choice["delta"][name]
    for piece in choice["delta"].get("tool_calls", ()):
        calls: list[Payload] = says.setdefault("tool_calls", [])
        if piece["index"] == len(calls):
            calls.append(piece | {"function": dict(piece["function"])})
        else:
            calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
    if choice.get("logprobs"):
        logprobs: Payload = total.setdefault("logprobs", {"content": [], "refusal": None})
        logprobs["content"] = logprobs["content"] + choice["logprobs"]["content"]
    if choice["finish_reason"] is not None:
        names = ("finish_reason", "stop_reason", "thinking_truncated", "budget_spent")
        total |= {name: choice[name] for name in names}
