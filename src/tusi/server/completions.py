"""/v1/completions: one prompt without a template, as text or token ids; the answer is the model's text as it stands."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from tusi.backends.local.prompts import TextPrompt
from tusi.backends.protocol import ChatChoice, ChatDelta, TokenLogprobs, Usage
from tusi.chat.tokenizer import Tokenizer
from tusi.core.errors import BackendUnavailable, RequestError
from tusi.server.chat_completions import wants_usage
from tusi.server.chat_format import finite, usage_object
from tusi.server.generation import Generator, Job
from tusi.server.sampling import merged_kwargs, sampling_params
from tusi.server.schema import CompletionRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFormat:
    """Text completions for one request.

    tokenizer, num_top: set if log-probabilities were asked for. text_offset counts the characters of the tokens, so
    that stop strings and the format's own line breaks, which no answer shows, count too.
    """

    request_id: str
    model: str
    include_usage: bool
    tokenizer: Tokenizer | None = None
    num_top: int = 0
    created: int = field(default_factory=lambda: int(time.time()))
    _offsets: dict[int, int] = field(default_factory=dict)

    def whole(self, choices: Sequence[ChatChoice], usage: Usage) -> dict[str, Any]:
        """A text_completion."""
        return self._head() | {"choices": [self._choice(choice) for choice in choices], "usage": usage_object(usage)}

    def opening(self) -> Iterator[dict[str, Any]]:
        """Nothing comes before the text."""
        return iter(())

    def chunk(self, delta: ChatDelta) -> dict[str, Any] | None:
        """A piece of the text; None for a token that shows nothing yet."""
        if not delta.text and not delta.logprobs and delta.finish_reason is None:
            return None
        usage = {"usage": None} if self.include_usage else {}
        return self._head() | {"choices": [self._choice(delta)]} | usage

    def usage_chunk(self, usage: Usage) -> dict[str, Any] | None:
        """The chunk without choices that stream_options.include_usage asks for."""
        return self._head() | {"choices": [], "usage": usage_object(usage)} if self.include_usage else None

    def _head(self) -> dict[str, Any]:
        return {"id": self.request_id, "object": "text_completion", "created": self.created, "model": self.model}

    def _choice(self, said: ChatChoice | ChatDelta) -> dict[str, Any]:
        logprobs = self._logprobs(said.index, said.logprobs) if self.tokenizer else None
        choice = {"index": said.index, "text": said.text, "logprobs": logprobs, "finish_reason": said.finish_reason}
        if said.finish_reason is not None:
            choice |= {"stop_reason": said.stop_reason, "thinking_truncated": said.thinking_truncated}
        return choice

    def _logprobs(self, index: int, entries: Sequence[TokenLogprobs]) -> dict[str, Any]:
        """The old format: lists side by side, the alternatives by their text."""
        tokens = [self._text(entry.token_id) for entry in entries]
        offsets = [self._offsets.get(index, 0)]
        for token in tokens:
            offsets.append(offsets[-1] + len(token))
        self._offsets[index] = offsets.pop()
        return {
            "tokens": tokens,
            "token_logprobs": [finite(entry.logprob) for entry in entries],
            "top_logprobs": [self._best(entry) for entry in entries],
            "text_offset": offsets,
        }

    def _best(self, entry: TokenLogprobs) -> dict[str, float]:
        ranked = sorted(entry.top.items(), key=lambda item: -item[1])[: self.num_top]
        # From the unlikeliest on, so that of two tokens that look alike the likelier is told.
        return {self._text(token_id): finite(logprob) for token_id, logprob in reversed(ranked)}

    def _text(self, token_id: int) -> str:
        assert self.tokenizer is not None
        return (self.tokenizer.id_to_bytes(token_id) or b"").decode("utf-8", "replace")


def router(generator: Generator) -> APIRouter:
    """The endpoint."""
    routes = APIRouter()

    @routes.post("/v1/completions", response_model=None)
    async def create_completion(body: CompletionRequest, http: Request) -> Response:
        """Continue a text."""
        return await generator.respond(http, _job(generator, body))

    return routes


def _job(generator: Generator, body: CompletionRequest) -> Job:
    model = generator.check_model(body.model)
    params = sampling_params(body, generator.backend.default_sampling_params)
    stream_text = generator.facts.stream_text
    if stream_text is None:
        raise BackendUnavailable(
            "this backend answers conversations only. Use /v1/chat/completions, or serve a local model."
        )
    kwargs = merged_kwargs(generator.config.mm_processor_kwargs, body.mm_processor_kwargs)
    prompt = _prompt(body.prompt, kwargs)
    tokenizer = generator.facts.require_tokenizer("logprobs") if params.logprobs is not None else None
    request_id = f"cmpl-{uuid.uuid4().hex}"
    return Job(
        endpoint="completions",
        request_id=request_id,
        n=params.n,
        stream=bool(body.stream),
        open_stream=lambda: stream_text(prompt, params, request_id),
        answer=TextFormat(
            request_id=request_id,
            model=model,
            include_usage=wants_usage(body),
            tokenizer=tokenizer,
            num_top=params.logprobs or 0,
        ),
    )


def _prompt(prompt: str | list[str] | list[int], kwargs: dict[str, Any]) -> TextPrompt:
    if isinstance(prompt, str):
        return TextPrompt(text=prompt, mm_processor_kwargs=kwargs)
    ids = [item for item in prompt if isinstance(item, int)]
    if ids:
        return TextPrompt(token_ids=ids)
    texts = [item for item in prompt if isinstance(item, str)]
    if len(texts) != 1:
        raise RequestError(
            f"prompt is a list of {len(texts)} texts; one is answered at a time. Send a request for each: they run "
            "side by side.",
            param="prompt",
        )
    return TextPrompt(text=texts[0], mm_processor_kwargs=kwargs)
