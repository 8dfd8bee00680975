"""How chat completions look on the wire. Deltas and whole answers are written by the same few functions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tusi.backends.collect import ChoiceBuilder
from tusi.backends.protocol import ChatChoice, ChatDelta, TokenLogprobs, ToolCallDelta, Usage
from tusi.chat.tokenizer import Tokenizer
from tusi.server.answer_format import Payload
from tusi.server.bridge import StreamItem
from tusi.server.errors import ErrorReply


def usage_object(usage: Usage) -> Payload:
    """Token counts, OpenAI's names; those of pictures and videos beside them."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "image_tokens": usage.image_tokens,
            "video_tokens": usage.video_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def finite(logprob: float) -> float:
    """A log-probability that JSON can say: minus infinity is what OpenAI writes for it."""
    return max(logprob, -9999.0)


@dataclass(slots=True, kw_only=True)
class ChatFormat:
    """Chat completions for one request.

    tokenizer, num_top: set if log-probabilities were asked for; they cover every token written, reasoning included.
    """

    request_id: str
    model: str
    n: int
    include_usage: bool
    tokenizer: Tokenizer | None = None
    num_top: int = 0
    created: int = field(default_factory=lambda: int(time.time()))
    names_events: bool = False
    _choices: dict[int, ChoiceBuilder] = field(default_factory=dict)
    _spoken: set[int] = field(default_factory=set)

    def add(self, item: StreamItem) -> None:
        """Take a delta."""
        assert isinstance(item, ChatDelta)
        self._choices.setdefault(item.index, ChoiceBuilder(item.index)).add(item)

    def whole(self, usage: Usage) -> Payload:
        """A chat.completion."""
        choices = [self._choice(builder.build()) for _, builder in sorted(self._choices.items())]
        return self.head("chat.completion") | {"choices": choices, "usage": usage_object(usage)}

    def opening(self) -> Iterator[Payload]:
        """Each completion begins by saying who speaks."""
        for index in range(self.n):
            yield self.chunk({"index": index, "delta": {"role": "assistant"}, "finish_reason": None})

    def chunks(self, item: StreamItem) -> Iterator[Payload]:
        """What a delta adds; nothing for a token that shows nothing yet."""
        assert isinstance(item, ChatDelta)
        says = delta_object(item)
        if not says and not item.logprobs and item.finish_reason is None:
            return
        if "content" in says or "tool_calls" in says:
            self._spoken.add(item.index)
        choice: Payload = {"index": item.index, "delta": says, "finish_reason": item.finish_reason}
        if item.finish_reason is not None:
            if item.index not in self._spoken and not item.thinking_truncated:
                says["content"] = ""  # an answer that is empty, not one that is missing
            choice |= {"stop_reason": item.stop_reason, "thinking_truncated": item.thinking_truncated}
        if self.tokenizer:
            choice["logprobs"] = self.logprobs(item.logprobs)
        yield self.chunk(choice)

    def closing(self, usage: Usage) -> Iterator[Payload]:
        """The chunk without choices that stream_options.include_usage asks for."""
        if self.include_usage:
            yield self.head("chat.completion.chunk") | {"choices": [], "usage": usage_object(usage)}

    def failure(self, reply: ErrorReply) -> Payload:
        """OpenAI's error object."""
        return reply.body

    def head(self, kind: str) -> Payload:
        """What every object of this answer begins with."""
        return {"id": self.request_id, "object": kind, "created": self.created, "model": self.model}

    def chunk(self, choice: Payload) -> Payload:
        """A chunk with one choice."""
        usage = {"usage": None} if self.include_usage else {}
        return self.head("chat.completion.chunk") | {"choices": [choice]} | usage

    def _choice(self, choice: ChatChoice) -> Payload:
        is_missing = not choice.content and (choice.thinking_truncated or bool(choice.tool_calls))
        message: Payload = {"role": "assistant", "content": None if is_missing else choice.content, "refusal": None}
        message |= {"reasoning": choice.reasoning, "reasoning_content": choice.reasoning}
        if choice.tool_calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in choice.tool_calls
            ]
        return {
            "index": choice.index,
            "message": message,
            "logprobs": self.logprobs(choice.logprobs) if self.tokenizer else None,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
            "thinking_truncated": choice.thinking_truncated,
        }

    def logprobs(self, entries: Sequence[TokenLogprobs]) -> Payload:
        """Log-probabilities of the tokens of one choice."""
        assert self.tokenizer is not None
        return {"content": named_logprobs(self.tokenizer, entries, self.num_top), "refusal": None}


def named_logprobs(tokenizer: Tokenizer, entries: Sequence[TokenLogprobs], num_top: int) -> list[Payload]:
    """Log-probabilities with their tokens as text and bytes, and the likeliest alternatives."""

    def named(token_id: int, logprob: float) -> Payload:
        data = tokenizer.id_to_bytes(token_id) or b""
        return {"token": data.decode("utf-8", "replace"), "logprob": finite(logprob), "bytes": list(data)}

    return [
        named(entry.token_id, entry.logprob)
        | {"top_logprobs": [named(*best) for best in sorted(entry.top.items(), key=lambda item: -item[1])[:num_top]]}
        for entry in entries
    ]


def delta_object(delta: ChatDelta) -> Payload:
    """What a delta says, as the delta of a chunk."""
    says: Payload = {}
    if delta.reasoning:
        says |= {"reasoning": delta.reasoning, "reasoning_content": delta.reasoning}
    if delta.content:
        says["content"] = delta.content
    if delta.tool_calls:
        says["tool_calls"] = [_call_piece(call) for call in delta.tool_calls]
    return says


def _call_piece(call: ToolCallDelta) -> Payload:
    piece: Payload = {"index": call.index, "function": {"arguments": call.arguments}}
    if call.id is not None:
        piece |= {"id": call.id, "type": "function"}
    if call.name is not None:
        piece["function"] = {"name": call.name, "arguments": call.arguments}
    return piece
