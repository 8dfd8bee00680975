"""A backend that says what it is told to: for tests of whatever talks to a model, in this package and in yours.

    backend = FakeBackend(["Thinking...\n</think>\n\nA cat.", FakeReply(content="Two cats.", reasoning="One, two.")])

Each completion takes the next reply. Its text goes, a character a token, through the same code that follows the real
engine's tokens: stop strings, max_tokens, the thinking budget, parsing, usage. Parameters that shape how tokens are
drawn (temperature, structured_outputs, tool_choice, ...) have nothing to act on: the reply *is* what was drawn.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

from tusi.backends.collect import collect
from tusi.backends.local.output_processor import Command, CompletionProcessor, EndOfCompletion
from tusi.backends.local.thinking import ThinkingControl, ThinkingTokens, reasoning_limit
from tusi.backends.protocol import ChatDelta, ChatRequest, ChatResult, TokenLogprobs, Usage
from tusi.chat.detokenizer import IncrementalDetokenizer
from tusi.chat.messages import ToolCall
from tusi.chat.stream import StreamParser
from tusi.chat.tags import THINK_CLOSE, THINK_OPEN, TOOL_CALL_CLOSE, TOOL_CALL_OPEN
from tusi.core.errors import EngineError, TusiError
from tusi.engine.sampling_params import SamplingParams

DEFAULT_MAX_TOKENS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeReply:
    """One completion. Either text (raw, as the model writes it) or its parts.

    starts_in_reasoning: the prompt ended inside an open `<think>`; None: if the reply has a `</think>`.
    error: raised once the text is out.
    """

    text: str | None = None
    reasoning: str | None = None
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    starts_in_reasoning: bool | None = None
    error: TusiError | None = None

    @property
    def raw(self) -> str:
        """The whole text as the model would write it."""
        if self.text is not None:
            return self.text
        thought = "" if self.reasoning is None else f"{self.reasoning}\n{THINK_CLOSE}\n\n"
        return thought + self.content + "".join(_spell(call) for call in self.tool_calls)


Reply = str | FakeReply | TusiError
Script = Reply | Callable[[ChatRequest], Reply]


class FakeBackend:
    """Implements Backend over a queue of replies.

    replies: text, FakeReply, an error to be raised at the call, or a function of the request that gives one of these.
    cut: characters a delta. requests: what was asked so far, for assertions.
    """

    def __init__(self, replies: Iterable[Script] = (), *, model: str = "fake", cut: int = 1) -> None:
        self.model = model
        self.default_sampling_params = SamplingParams()
        self.requests: list[ChatRequest] = []
        self._cut = cut
        self._replies: deque[Script] = deque(replies)
        self._aborted: set[str] = set()
        self._closed = False
        self._lock = threading.Lock()

    def queue(self, *replies: Script) -> None:
        """Append replies."""
        self._replies.extend(replies)

    def generate(self, request: ChatRequest) -> ChatResult:
        """Answer with the next replies, in one piece."""
        request_id, stream = self._open(request)
        choices, usage = collect(stream, n=request.sampling_params.n)
        return ChatResult(request_id=request_id, model=self.model, choices=choices, usage=usage)

    def stream(self, request: ChatRequest) -> Generator[ChatDelta, None, None]:
        """Answer with the next replies, piece by piece."""
        return self._open(request)[1]

    def abort(self, request_id: str) -> None:
        """End a stream that is being read."""
        self._aborted.add(request_id)

    def close(self) -> None:
        """Refuse further requests; streams that are open end with EngineError."""
        self._closed = True

    def _open(self, request: ChatRequest) -> tuple[str, Generator[ChatDelta, None, None]]:
        self._check_open()
        with self._lock:
            self.requests.append(request)
            request_id = request.request_id or f"fake-{len(self.requests)}"
            replies = [self._next_reply(request) for _ in range(request.sampling_params.n)]
        self._aborted.discard(request_id)
        completions = [_Completion(i, reply, request, request_id) for i, reply in enumerate(replies)]
        return request_id, self._stream(request, request_id, completions)

    def _next_reply(self, request: ChatRequest) -> FakeReply:
        if not self._replies:
            raise EngineError(
                f"FakeBackend has no reply left for request {len(self.requests)}. Give it one for each completion."
            )
        reply = self._replies.popleft()
        if callable(reply):
            reply = reply(request)
        if isinstance(reply, TusiError):
            raise reply
        return FakeReply(text=reply) if isinstance(reply, str) else reply

    def _stream(
        self, request: ChatRequest, request_id: str, completions: Sequence[_Completion]
    ) -> Generator[ChatDelta, None, None]:
        streams = [
            _coalesce(completion.run(lambda: request_id in self._aborted), self._cut) for completion in completions
        ]
        num_open = len(streams)
        turns = deque(streams)
        while turns:
            stream = turns.popleft()
            delta = next(stream, None)
            self._check_open()
            if delta is None:
                continue
            turns.append(stream)
            num_open -= delta.finish_reason is not None
            yield delta if num_open else replace(delta, usage=_usage(request, completions))

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("this FakeBackend was closed; make a new one.")


class _CharacterTokenizer:
    """A token is a character; the two marks of reasoning are tokens of their own, past the last character."""

    marks = (THINK_OPEN, THINK_CLOSE)
    first_mark = 0x110000
    vocab_size = first_mark + len(marks)
    bos_token_id = None
    eos_token_id = None
    special_token_ids: frozenset[int] = frozenset()

    def encode(self, text: str, *, allow_special: bool = True) -> list[int]:
        for number, mark in enumerate(self.marks if allow_special else ()):
            before, found, after = text.partition(mark)
            if found:
                return [*self.encode(before), self.first_mark + number, *self.encode(after)]
        return [ord(character) for character in text]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        return b"".join(self.id_to_bytes(i) for i in ids).decode("utf-8", "replace")

    def token_to_id(self, token: str) -> int | None:
        if token in self.marks:
            return self.first_mark + self.marks.index(token)
        return ord(token) if len(token) == 1 else None

    def id_to_token(self, token_id: int) -> str:
        return self.marks[token_id - self.first_mark] if token_id >= self.first_mark else chr(token_id)

    def id_to_bytes(self, token_id: int) -> bytes:
        return self.id_to_token(token_id).encode("utf-8", "replace")


_TOKENIZER = _CharacterTokenizer()
_NEWLINE = ord("\n")
_THINK_END = _CharacterTokenizer.first_mark + 1
_THINKING_TOKENS = ThinkingTokens(
    start_id=_CharacterTokenizer.first_mark,
    end_id=_THINK_END,
    line_ids=(_NEWLINE,),
    blank_line_ids=(_NEWLINE, _NEWLINE),
    newline_token_ids=frozenset({_NEWLINE}),
)


class _Completion:
    """One reply on its way through the code that follows a real engine's tokens."""

    def __init__(self, index: int, reply: FakeReply, request: ChatRequest, request_id: str) -> None:
        params = request.sampling_params
        starts = THINK_CLOSE in reply.raw if reply.starts_in_reasoning is None else reply.starts_in_reasoning
        self._error = reply.error
        self._wants_logprobs = params.logprobs is not None
        self._max_tokens = params.max_tokens or DEFAULT_MAX_TOKENS
        self._script = deque(_TOKENIZER.encode(reply.raw))
        self._forced: deque[int] = deque()
        limit = reasoning_limit(
            thinking_budget=params.thinking_budget,
            max_tokens=self._max_tokens,
            closing_length=len(_THINKING_TOKENS.closing_ids(None)),
        )
        self.processor = CompletionProcessor(
            index,
            params,
            detokenizer=IncrementalDetokenizer(_TOKENIZER),
            parser=StreamParser(
                starts, tools_offered=bool(request.tools), make_id=lambda i: f"call_{request_id}_{index}_{i}"
            ),
            thinking=ThinkingControl(
                _THINKING_TOKENS, starts_in_reasoning=starts, limit=limit, break_repetition=params.repetition_break
            ),
            thinking_tokens=_THINKING_TOKENS,
            last_prompt_token_id=_NEWLINE if starts else None,
            max_tool_calls=None if request.parallel_tool_calls else 1,
        )

    def run(self, is_aborted: Callable[[], bool]) -> Iterator[ChatDelta]:
        """Its deltas, a token each."""
        self._force(self.processor.start())
        for count in itertools.count(1):
            if is_aborted():
                yield self.processor.end(EndOfCompletion("abort"))
                return
            if not self._forced and not self._script:
                if self._error is not None:
                    raise self._error
                yield self.processor.end(EndOfCompletion("stop"))
                return
            token_id = self._forced.popleft() if self._forced else self._script.popleft()
            logprobs = (TokenLogprobs(token_id, 0.0, {token_id: 0.0}),) if self._wants_logprobs else ()
            end = EndOfCompletion("length") if count >= self._max_tokens else None
            delta, command = self.processor.push(token_id, logprobs, end)
            yield delta
            if self.processor.finished:
                return
            self._force(command)

    def _force(self, command: Command | None) -> None:
        """A reasoning that is closed by force goes on, in the script, with the answer."""
        if command is None or not command.force:
            return
        self._forced.extend(command.force)
        if _THINK_END in self._script:
            while self._script.popleft() != _THINK_END:
                pass
            while self._script and self._script[0] == _NEWLINE:
                self._script.popleft()
        else:
            self._script.clear()


def _coalesce(deltas: Iterator[ChatDelta], count: int) -> Iterator[ChatDelta]:
    """Join count deltas into one. An error comes after what was said before it."""
    group: list[ChatDelta] = []
    error: TusiError | None = None
    try:
        for delta in deltas:
            group.append(delta)
            if len(group) == count:
                yield reduce(_join, group)
                group.clear()
    except TusiError as raised:
        error = raised
    if group:
        yield reduce(_join, group)
    if error is not None:
        raise error


def _join(first: ChatDelta, second: ChatDelta) -> ChatDelta:
    return replace(
        second,
        text=first.text + second.text,
        reasoning=first.reasoning + second.reasoning,
        content=first.content + second.content,
        tool_calls=first.tool_calls + second.tool_calls,
        token_ids=first.token_ids + second.token_ids,
        logprobs=first.logprobs + second.logprobs,
    )


def _usage(request: ChatRequest, completions: Sequence[_Completion]) -> Usage:
    return Usage(
        prompt_tokens=sum(len(message.text) for message in request.messages),
        completion_tokens=sum(completion.processor.num_output_tokens for completion in completions),
        reasoning_tokens=sum(completion.processor.num_reasoning_tokens for completion in completions),
    )


def _spell(call: ToolCall) -> str:
    return (
        f'\n{TOOL_CALL_OPEN}\n{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}}}\n{TOOL_CALL_CLOSE}\n'
    )
