"""How chat completions look on the wire. Deltas and whole answers are written by the same few functions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tusi.backends.protocol import ChatChoice, ChatDelta, TokenLogprobs, ToolCallDelta, Usage
from tusi.chat.tokenizer import Tokenizer


def usage_object(usage: Usage) -> dict[str, Any]:
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


@dataclass(frozen=True, slots=True, kw_only=True)
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

    def whole(self, choices: Sequence[ChatChoice], usage: Usage) -> dict[str, Any]:
        """A chat.completion."""
        return self._head("chat.completion") | {
            "choices": [self._choice(choice) for choice in choices],
            "usage": usage_object(usage),
        }

    def opening(self) -> Iterator[dict[str, Any]]:
        """Each completion begins by saying who speaks."""
        for index in range(self.n):
            yield self._chunk({"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None})

    def chunk(self, delta: ChatDelta) -> dict[str, Any] | None:
        """A chat.completion.chunk; None for a token that shows nothing yet."""
        says = self._delta(delta)
        logprobs = self._logprobs(delta.logprobs) if delta.logprobs else None
        if not says and logprobs is None and delta.finish_reason is None:
            return None
        choice = {"index": delta.index, "delta": says, "logprobs": logprobs, "finish_reason": delta.finish_reason}
        if delta.finish_reason is not None:
            choice |= {"stop_reason": delta.stop_reason, "thinking_truncated": delta.thinking_truncated}
        return self._chunk(choice)

    def usage_chunk(self, usage: Usage) -> dict[str, Any] | None:
        """The chunk without choices that stream_options.include_usage asks for."""
        if not self.include_usage:
            return None
        return self._head("chat.completion.chunk") | {"choices": [], "usage": usage_object(usage)}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.request_id, "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        usage = {"usage": None} if self.include_usage else {}
        return self._head("chat.completion.chunk") | {"choices": [choice]} | usage

    def _choice(self, choice: ChatChoice) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": choice.content, "refusal": None}
        message |= {"reasoning": choice.reasoning, "reasoning_content": choice.reasoning}
        if choice.tool_calls:
            message["content"] = choice.content or None
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in choice.tool_calls
            ]
        return {
            "index": choice.index,
            "message": message,
            "logprobs": self._logprobs(choice.logprobs) if self.tokenizer else None,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
            "thinking_truncated": choice.thinking_truncated,
        }

    def _delta(self, delta: ChatDelta) -> dict[str, Any]:
        says: dict[str, Any] = {}
        if delta.reasoning:
            says |= {"reasoning": delta.reasoning, "reasoning_content": delta.reasoning}
        if delta.content:
            says["content"] = delta.content
        if delta.tool_calls:
            says["tool_calls"] = [_call_piece(call) for call in delta.tool_calls]
        return says

    def _logprobs(self, entries: Sequence[TokenLogprobs]) -> dict[str, Any]:
        return {"content": [self._token(entry) for entry in entries], "refusal": None}

    def _token(self, entry: TokenLogprobs) -> dict[str, Any]:
        best = sorted(entry.top.items(), key=lambda item: -item[1])[: self.num_top]
        top = [self._named(token_id, logprob) for token_id, logprob in best]
        return self._named(entry.token_id, entry.logprob) | {"top_logprobs": top}

    def _named(self, token_id: int, logprob: float) -> dict[str, Any]:
        assert self.tokenizer is not None
        data = self.tokenizer.id_to_bytes(token_id) or b""
        return {"token": data.decode("utf-8", "replace"), "logprob": finite(logprob), "bytes": list(data)}


def _call_piece(call: ToolCallDelta) -> dict[str, Any]:
    piece: dict[str, Any] = {"index": call.index, "function": {"arguments": call.arguments}}
    if call.id is not None:
        piece |= {"id": call.id, "type": "function"}
    if call.name is not None:
        piece["function"] = {"name": call.name, "arguments": call.arguments}
    return piece
