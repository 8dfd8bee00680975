"""How responses look on the wire: items that open, grow and close, and an event for each of these, in OpenAI's types.

One state machine writes both: a response that is sent in one piece is the last event of the stream that was not sent.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tusi.agent.types import CallResult, CallStart, Delta, RunEnd
from tusi.backends.protocol import ChatDelta, TokenLogprobs, ToolCallDelta, Usage
from tusi.chat.messages import Message, TextPart
from tusi.chat.openai import to_openai
from tusi.server.answer_format import Payload
from tusi.server.bridge import StreamItem
from tusi.server.errors import ErrorReply
from tusi.server.server_tools import SERVER_LABEL
from tusi.server.steps_format import origin_object

_PARTS: dict[str, Payload] = {
    "reasoning": {"type": "reasoning_text", "text": ""},
    "message": {"type": "output_text", "text": "", "annotations": [], "logprobs": []},
}
_TEXT_EVENTS = {"reasoning": "response.reasoning_text", "message": "response.output_text"}
_PREFIXES = {"reasoning": "rs", "message": "msg", "function_call": "fc", "mcp_call": "mcp"}


@dataclass(slots=True, kw_only=True)
class ResponseFormat:
    """One response in the making.

    body: the response object, without what only its end can tell. server_names: tools whose calls run here.
    name_logprobs: writes log-probabilities, if they were asked for. on_end: is given the finished response, before its
    end is told.
    """

    body: Payload
    server_names: frozenset[str] = frozenset()
    name_logprobs: Callable[[tuple[TokenLogprobs, ...]], list[Payload]] | None = None
    on_end: Callable[[Payload], None] = lambda _body: None
    names_events: bool = True
    _output: list[Payload] = field(default_factory=list)
    _open: Payload | None = None
    _calls: dict[int, Payload] = field(default_factory=dict)
    _is_cut: bool = False
    _thinking_truncated: bool = False
    _number: int = 0

    def opening(self) -> Iterator[Payload]:
        """It has begun."""
        for kind in ("response.created", "response.in_progress"):
            yield self._event(kind, response=self._response("in_progress"))

    def chunks(self, item: StreamItem) -> Iterator[Payload]:
        """The events that an item makes."""
        match item:
            case ChatDelta():
                yield from self._delta(item)
            case Delta():
                yield from self._delta(item.delta)
            case CallStart():
                yield from self._call_start(item)
            case CallResult():
                yield from self._call_result(item)
            case RunEnd():
                last = item.trace.turns[-1].choice
                self._end(last.finish_reason, last.thinking_truncated)

    def closing(self, usage: Usage) -> Iterator[Payload]:
        """What is open is closed, and it has ended."""
        status = "incomplete" if self._is_cut else "completed"
        yield from self._close(status)
        if status == "completed" and not any(item["type"] in ("message", "function_call") for item in self._output):
            yield from self._open_text("message")  # an answer that is empty, not one that is missing
            yield from self._close("completed")
        body = self._response(status, usage)
        self.on_end(body)
        yield self._event(f"response.{status}", response=body)

    def failure(self, reply: ErrorReply) -> Payload:
        """The last event of a stream that fails."""
        codes = {429: "rate_limit_exceeded", 400: "invalid_prompt"}
        error = {"code": codes.get(reply.status, "server_error"), "message": reply.message}
        return self._event("response.failed", response=self._response("failed") | {"error": error})

    def add(self, item: StreamItem) -> None:
        """Take an item of a response that is sent in one piece."""
        for _ in self.chunks(item):
            pass

    def whole(self, usage: Usage) -> Payload:
        """The response in one piece."""
        body: Payload = [*self.closing(usage)][-1]["response"]
        return body

    def _delta(self, delta: ChatDelta) -> Iterator[Payload]:
        for kind, text in (("reasoning", delta.reasoning), ("message", delta.content)):
            if text:
                yield from self._text(kind, text, delta.logprobs if kind == "message" else ())
        for piece in delta.tool_calls:
            yield from self._call_piece(piece)
        if delta.finish_reason is not None:
            self._end(delta.finish_reason, delta.thinking_truncated)
            self._calls.clear()

    def _end(self, finish_reason: str, thinking_truncated: bool) -> None:
        self._is_cut = finish_reason in ("length", "abort")
        self._thinking_truncated = thinking_truncated

    def _text(self, kind: str, text: str, logprobs: tuple[TokenLogprobs, ...]) -> Iterator[Payload]:
        if self._open is None or self._open["type"] != kind:
            yield from self._close("completed")
            yield from self._open_text(kind)
        assert self._open is not None
        part = self._open["content"][0]
        part["text"] += text
        said: Payload = {"content_index": 0, "delta": text}
        if kind == "message":
            said["logprobs"] = self.name_logprobs(logprobs) if self.name_logprobs else []
            part["logprobs"] = part["logprobs"] + said["logprobs"]
        yield self._item_event(f"{_TEXT_EVENTS[kind]}.delta", **said)

    def _open_text(self, kind: str) -> Iterator[Payload]:
        item: Payload = {"id": _new_id(kind), "type": kind, "status": "in_progress", "content": []}
        item |= {"role": "assistant"} if kind == "message" else dict[str, Any](summary=[])
        yield from self._add(item)
        item["content"] = [dict(_PARTS[kind])]
        yield self._item_event("response.content_part.added", content_index=0, part=dict(_PARTS[kind]))

    def _call_piece(self, piece: ToolCallDelta) -> Iterator[Payload]:
        if piece.name is not None and piece.name not in self.server_names:
            yield from self._close("completed")
            item: Payload = {"id": _new_id("function_call"), "type": "function_call", "status": "in_progress"}
            item |= {"call_id": piece.id, "name": piece.name, "arguments": ""}
            yield from self._add(item)
            self._calls[piece.index] = item
        call = self._calls.get(piece.index)
        if call is not None and piece.arguments:
            call["arguments"] += piece.arguments
            yield self._item_event("response.function_call_arguments.delta", delta=piece.arguments)

    def _call_start(self, event: CallStart) -> Iterator[Payload]:
        yield from self._close("completed")
        call = event.call
        item: Payload = {"id": call.id, "type": "mcp_call", "status": "in_progress", "server_label": SERVER_LABEL}
        item |= {"name": call.name, "arguments": "", "output": None, "error": None, "approval_request_id": None}
        yield from self._add(item | {"turn": event.turn, "origin": origin_object(event.origin)})
        yield self._item_event("response.mcp_call.in_progress")
        assert self._open is not None
        self._open["arguments"] = call.arguments
        yield self._item_event("response.mcp_call_arguments.delta", delta=call.arguments)
        yield self._item_event("response.mcp_call_arguments.done", arguments=call.arguments)

    def _call_result(self, event: CallResult) -> Iterator[Payload]:
        assert self._open is not None
        text = "".join(part.text for part in event.content if isinstance(part, TextPart))
        self._open["content"] = [_input_part(part) for part in result_parts(event)]
        self._open["output"] = text
        if event.is_error:
            self._open["error"] = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": text}]}
        yield self._item_event("response.mcp_call.failed" if event.is_error else "response.mcp_call.completed")
        yield from self._close("failed" if event.is_error else "completed")

    def _add(self, item: Payload) -> Iterator[Payload]:
        self._open = item
        self._output.append(item)
        yield self._event("response.output_item.added", output_index=len(self._output) - 1, item=dict(item))

    def _close(self, status: str) -> Iterator[Payload]:
        item = self._open
        if item is None:
            return
        kind = item["type"]
        if kind in _TEXT_EVENTS:
            part = item["content"][0]
            said = {"logprobs": part["logprobs"]} if kind == "message" else {}
            yield self._item_event(f"{_TEXT_EVENTS[kind]}.done", content_index=0, text=part["text"], **said)
            yield self._item_event("response.content_part.done", content_index=0, part=dict(part))
        elif kind == "function_call":
            arguments = item["arguments"] = item["arguments"] or "{}"
            yield self._item_event("response.function_call_arguments.done", name=item["name"], arguments=arguments)
        item["status"] = status
        yield self._event("response.output_item.done", output_index=len(self._output) - 1, item=dict(item))
        self._open = None

    def _item_event(self, kind: str, **fields: Any) -> Payload:
        assert self._open is not None
        where = {"item_id": self._open["id"], "output_index": len(self._output) - 1}
        return self._event(kind, **where, **fields)

    def _event(self, kind: str, **fields: Any) -> Payload:
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **fields}

    def _response(self, status: str, usage: Usage | None = None) -> Payload:
        body = self.body | {"status": status, "output": [dict(item) for item in self._output]}
        if usage is not None:
            body |= {"usage": usage_object(usage), "thinking_truncated": self._thinking_truncated}
        if status == "incomplete":
            body["incomplete_details"] = {"reason": "max_output_tokens"}
        if status == "completed":
            body["completed_at"] = int(time.time())
        return body


def usage_object(usage: Usage) -> Payload:
    """Token counts, by the names of responses."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": 0,
            "image_tokens": usage.image_tokens,
            "video_tokens": usage.video_tokens,
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def result_parts(event: CallResult) -> list[Payload]:
    """What a tool said, as parts of a chat message."""
    content = to_openai([Message(role="tool", content=event.content)])[0]["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _input_part(part: Payload) -> Payload:
    """A part of a chat message as one of an item."""
    if part["type"] == "text":
        return {"type": "input_text", "text": part["text"]}
    return {"type": "input_image", "image_url": part["image_url"]["url"], "detail": "auto"}


def _new_id(kind: str) -> str:
    return f"{_PREFIXES[kind]}_{uuid.uuid4().hex}"
