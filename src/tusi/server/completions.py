"""/v1/completions: prompts without a template, as text or token ids; an answer is the model's text as it stands."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from tusi.backends.collect import ChoiceBuilder
from tusi.backends.local.prompts import TextPrompt
from tusi.backends.outbox import PushedStream, Sink, Wants, always
from tusi.backends.protocol import ChatChoice, ChatDelta, DeltaStream, TokenLogprobs, Usage
from tusi.chat.tokenizer import Tokenizer
from tusi.core.errors import BackendUnavailable, RequestError
from tusi.engine.sampling_params import SamplingParams
from tusi.server.answer_format import Payload
from tusi.server.body import JSONRoute
from tusi.server.bridge import ItemStream, OpenStream, StreamItem
from tusi.server.chat_completions import wants_usage
from tusi.server.chat_format import finite, usage_object
from tusi.server.errors import ErrorReply
from tusi.server.facts import StreamText
from tusi.server.generation import Generator, Job
from tusi.server.sampling import merged_kwargs, sampling_params
from tusi.server.schema import CompletionRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFormat:
    """Text completions for one request.

    tokenizer, num_top: set if log-probabilities were asked for. text_offset counts the characters of the tokens, so
    that stop strings and the format's own line breaks, which no answer shows, count too.
    echo: what each completion begins with, by its number.
    """

    request_id: str
    model: str
    include_usage: bool
    tokenizer: Tokenizer | None = None
    num_top: int = 0
    echo: Sequence[str] = ()
    created: int = field(default_factory=lambda: int(time.time()))
    names_events: bool = False
    _offsets: dict[int, int] = field(default_factory=dict)
    _choices: dict[int, ChoiceBuilder] = field(default_factory=dict)

    def add(self, item: StreamItem) -> None:
        """Take a delta."""
        assert isinstance(item, ChatDelta)
        self._choices.setdefault(item.index, ChoiceBuilder(item.index)).add(item)

    def whole(self, usage: Usage) -> Payload:
        """A text_completion."""
        choices = [self._choice(builder.build()) for _, builder in sorted(self._choices.items())]
        for choice in choices if self.echo else ():
            choice["text"] = self.echo[choice["index"]] + choice["text"]
        return self._head() | {"choices": choices, "usage": usage_object(usage)}

    def opening(self) -> Iterator[Payload]:
        """The prompts, if they were asked for."""
        for index, text in enumerate(self.echo):
            choice = {"index": index, "text": text, "logprobs": None, "finish_reason": None}
            yield self._head() | {"choices": [choice]} | ({"usage": None} if self.include_usage else {})

    def chunks(self, item: StreamItem) -> Iterator[Payload]:
        """A piece of the text; none for a token that shows nothing yet."""
        assert isinstance(item, ChatDelta)
        if item.text or item.logprobs or item.finish_reason is not None:
            usage = {"usage": None} if self.include_usage else {}
            yield self._head() | {"choices": [self._choice(item)]} | usage

    def closing(self, usage: Usage) -> Iterator[Payload]:
        """The chunk without choices that stream_options.include_usage asks for."""
        if self.include_usage:
            yield self._head() | {"choices": [], "usage": usage_object(usage)}

    def failure(self, reply: ErrorReply) -> Payload:
        """OpenAI's error object."""
        return reply.body

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
    routes = APIRouter(route_class=JSONRoute)

    @routes.post("/v1/completions", response_model=None)
    async def create_completion(body: CompletionRequest, http: Request) -> Response:
        """Continue a text, or each of several."""
        return await generator.respond(http, completion_job(generator, body))

    return routes


def completion_job(generator: Generator, body: CompletionRequest, priority: int = 0) -> Job:
    """What to ask the backend and how to answer. Raises RequestError, or BackendUnavailable."""
    model = generator.check_model(body.model)
    params = sampling_params(body, generator.backend.default_sampling_params)
    if generator.facts.stream_text is None:
        raise BackendUnavailable(
            "this backend answers conversations only. Use /v1/chat/completions, or serve a local model."
        )
    kwargs = merged_kwargs(generator.config.mm_processor_kwargs, body.mm_processor_kwargs)
    prompts = _prompts(body.prompt, kwargs)
    tokenizer = generator.facts.require_tokenizer("logprobs") if params.logprobs is not None else None
    request_id = f"cmpl-{uuid.uuid4().hex}"
    ids = [f"{request_id}-{number}" for number in range(len(prompts))]
    streams = [
        _opener(generator.facts.stream_text, prompt, params, ids[number], number * params.n, priority)
        for number, prompt in enumerate(prompts)
    ]

    def abort() -> None:
        for one in ids:
            generator.backend.abort(one)

    return Job(
        endpoint="completions",
        stream=bool(body.stream),
        open_streams=tuple(streams),
        abort=abort,
        answer=TextFormat(
            request_id=request_id,
            model=model,
            include_usage=wants_usage(body),
            tokenizer=tokenizer,
            num_top=params.logprobs or 0,
            echo=[text for text in _echo(generator, body, prompts) for _ in range(params.n)],
        ),
    )


def _echo(generator: Generator, body: CompletionRequest, prompts: Sequence[TextPrompt]) -> list[str]:
    """The prompts as text, if they were asked for. Raises RequestError, or BackendUnavailable."""
    if not body.echo:
        return []
    if body.logprobs is not None:
        raise RequestError(
            "echo and logprobs: log-probabilities of prompts are not reported. Leave one of them out.", param="echo"
        )
    texts = []
    for prompt in prompts:
        if prompt.text is not None:
            texts.append(prompt.text)
        else:
            texts.append(generator.facts.require_tokenizer("echo").decode(list(prompt.token_ids or ())))
    return texts


def _opener(
    stream_text: StreamText,
    prompt: TextPrompt,
    params: SamplingParams,
    request_id: str,
    first_index: int,
    priority: int,
) -> OpenStream:
    """Opens the stream of one prompt, whose completions are numbered after those of the prompts before it."""

    def opened() -> ItemStream:
        stream = stream_text(prompt, params, request_id, priority)
        if not first_index:
            return stream
        return (_RenumberedPush if isinstance(stream, PushedStream) else _Renumbered)(stream, first_index)

    return opened


class _Renumbered:
    """A stream whose completions have other numbers."""

    def __init__(self, stream: DeltaStream, first_index: int) -> None:
        self._stream, self._first_index = stream, first_index

    def __next__(self) -> ChatDelta:
        delta = next(self._stream)
        return replace(delta, index=self._first_index + delta.index)

    def close(self) -> None:
        self._stream.close()


class _RenumberedPush(_Renumbered):
    """The same of a stream that pushes."""

    def forward(self, sink: Sink, wants: Wants = always) -> None:
        """See outbox.PushedStream."""
        assert isinstance(self._stream, PushedStream)
        first = self._first_index
        self._stream.forward(
            lambda item: sink(replace(item, index=first + item.index) if isinstance(item, ChatDelta) else item), wants
        )


def _prompts(prompt: str | list[str] | list[int] | list[list[int]], kwargs: dict[str, Any]) -> list[TextPrompt]:
    """One prompt or several, each as text or as token ids. Raises RequestError."""
    if isinstance(prompt, str):
        return [TextPrompt(text=prompt, mm_processor_kwargs=kwargs)]
    if not prompt:
        raise RequestError("prompt is an empty list. Give a text, token ids, or a list of them.", param="prompt")
    ids = [item for item in prompt if isinstance(item, int)]
    if ids:
        return [TextPrompt(token_ids=ids)]
    return [
        TextPrompt(text=item, mm_processor_kwargs=kwargs) if isinstance(item, str) else TextPrompt(token_ids=item)
        for item in prompt
        if not isinstance(item, int)
    ]
